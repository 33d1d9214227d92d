/** The article's figure: mean gates by class, layer by layer; and which channels matter. */
import * as Plot from '@observablehq/plot';

import type { ClassExcitationsJson } from '../page-data';
import { checkbox, choice, el, plotWidth, section } from './dom';
import { csvButton, plotButtons } from './save';

export interface FigureState {
  readonly every: boolean;
  readonly band: boolean;
  /** Whether the axis shows only the gates that there are, instead of 0 to 1. */
  readonly fitted: boolean;
  readonly layer: string | null;
  readonly by: 'selectivity' | 'ablation';
}

type Layer = ClassExcitationsJson['layers'][number];
type Update = (state: Partial<FigureState>) => void;

/** The layers of the article's figure, of SE-ResNet-50. */
const IN_ARTICLE = ['SE_2_3', 'SE_3_4', 'SE_4_6', 'SE_5_1', 'SE_5_2', 'SE_5_3'];
/** Channels that the article draws of each layer. */
const FEW = 50;
/** Pixels of a bar with its number. */
const BAR_WIDTH = 38;
/** Apart by colour and by dash, so that neither is needed alone. */
const COLOURS = [
  '#3b8fd9',
  '#e4572e',
  '#2fa66a',
  '#a97be0',
  '#d08b12',
  '#9c6b4f',
  '#1ca3b6',
  '#df6bb5',
  '#8f9a14',
  '#868c95',
];
const DASHES = ['', '6 3', '2 2', '8 3 2 3', '12 4', '1 3'];

export function figureView(figure: ClassExcitationsJson, state: FigureState, update: Update): HTMLElement {
  const layers = shownLayers(figure.layers);
  const chosen = figure.layers.find(({ path }) => path === state.layer) ?? layers.at(-1);
  const images = figure.classes.reduce((sum, one) => sum + one.images, 0);
  return section(
    'figure',
    'Excitations by class',
    el(
      'p',
      { className: 'quiet' },
      `Mean gate of each channel for ${figure.classes.length} classes, ${images} images, as in the article's figure: early layers open the same channels for all classes, later ones choose by class.`,
    ),
    el(
      'div',
      { className: 'controls' },
      checkbox(`All channels (else ${FEW}, evenly spread)`, state.every, (every) => update({ every })),
      checkbox('Standard deviation', state.band, (band) => update({ band })),
      checkbox('Fit the axis', state.fitted, (fitted) => update({ fitted })),
      csvButton('excitations-by-class', () => tableOf(figure)),
    ),
    legendOf(figure),
    ...layers.map((layer) => curves(figure, layer, state)),
    chosen === undefined ? null : importance(figure, chosen, state, update),
  );
}

/** Those of the article where there are some of them, else the last of each stage. */
function shownLayers(layers: readonly Layer[]): readonly Layer[] {
  const known = layers.filter(({ name }) => name !== null && IN_ARTICLE.includes(name));
  const [last] = layers.slice(-1);
  if (known.length >= 4 || last === undefined) return known;
  const widths = layers.filter((layer, index) => layers[index + 1]?.channels !== layer.channels);
  return widths.length <= 8 ? widths : [...widths.slice(0, 7), last];
}

function styleOf(index: number): { colour: string; dash: string } {
  return {
    colour: COLOURS[index % COLOURS.length] as string,
    dash: DASHES[Math.floor(index / COLOURS.length + index) % DASHES.length] as string,
  };
}

function legendOf({ classes }: ClassExcitationsJson): HTMLElement {
  const line = (label: string, colour: string, dash: string, width: number): HTMLElement => {
    const item = el('li');
    item.innerHTML = `<svg width="34" height="8" aria-hidden="true"><line x1="0" x2="34" y1="4" y2="4" stroke="${colour}" stroke-width="${width}" stroke-dasharray="${dash}"/></svg>`;
    item.append(label);
    return item;
  };
  return el(
    'ul',
    { className: 'legend', set: { 'aria-label': 'Curves' } },
    line('all', 'currentColor', '', 2.5),
    ...classes.map(({ label, images }, index) => {
      const { colour, dash } = styleOf(index);
      return line(`${label} (${images})`, colour, dash, 1.5);
    }),
  );
}

function curves(
  figure: ClassExcitationsJson,
  layer: Layer,
  { every, band, fitted }: FigureState,
): HTMLElement {
  const { channels, path, name, all, classes } = layer;
  const step = every || channels <= FEW ? 1 : channels / FEW;
  const picked = Array.from({ length: Math.min(channels, Math.ceil(channels / step)) }, (_, index) =>
    Math.floor(index * step),
  );
  const points = ({
    mean,
    deviation,
  }: Layer['all']): { channel: number; mean: number; low: number; high: number }[] =>
    picked.map((channel) => {
      const [centre, around] = [mean[channel] as number, deviation[channel] as number];
      return { channel, mean: centre, low: Math.max(0, centre - around), high: Math.min(1, centre + around) };
    });
  const title = name === null ? path : `${name} (${path})`;
  const marks = classes.flatMap((one, index) => {
    if ((figure.classes[index]?.images ?? 0) === 0) return [];
    const { colour, dash } = styleOf(index);
    const data = points(one);
    return [
      ...(band
        ? [Plot.areaY(data, { x: 'channel', y1: 'low', y2: 'high', fill: colour, fillOpacity: 0.12 })]
        : []),
      Plot.lineY(data, {
        x: 'channel',
        y: 'mean',
        stroke: colour,
        strokeWidth: 1.5,
        ...(dash === '' ? {} : { strokeDasharray: dash }),
      }),
    ];
  });
  const plot = Plot.plot({
    ...{ width: plotWidth(960), height: 220, marginLeft: 45 },
    x: { label: 'channel' },
    y: { ...(fitted ? { nice: true, zero: false } : { domain: [0, 1] }), label: 'gate', grid: true },
    ariaLabel: `Mean gates of ${title} by class`,
    marks: [
      ...marks,
      Plot.lineY(points(all), { x: 'channel', y: 'mean', stroke: 'currentColor', strokeWidth: 2.5 }),
    ],
  }) as SVGSVGElement;
  const spread = classes.length < 2 ? 0 : layer.selectivity.reduce((sum, one) => sum + one, 0) / channels;
  return el(
    'figure',
    {},
    el('h3', {}, title),
    el('div', { className: 'plot' }, plot),
    el('figcaption', {}, `${channels} channels, mean class selectivity ${spread.toFixed(3)}`),
    el('div', { className: 'controls' }, ...plotButtons(`class gates ${path}`, () => plot)),
  );
}

function importance(
  figure: ClassExcitationsJson,
  layer: Layer,
  state: FigureState,
  update: Update,
): HTMLElement {
  const ablated = figure.ablation.find((one) => one.layer === layer.path);
  const by = state.by === 'ablation' && ablated !== undefined ? 'ablation' : 'selectivity';
  const values = by === 'ablation' ? (ablated?.drops ?? []) : layer.selectivity;
  const unit = by === 'ablation' ? 'fall of the probability' : 'class selectivity';
  const bars = values
    .map((value, channel) => ({ channel: String(channel), value }))
    .sort((left, right) => right.value - left.value)
    .slice(0, Math.floor(plotWidth(960) / BAR_WIDTH));
  const plot = Plot.plot({
    ...{ width: plotWidth(960), height: 240, marginLeft: 55 },
    x: { label: 'channel', domain: bars.map(({ channel }) => channel) },
    y: { label: unit, grid: true },
    ariaLabel: `The ${bars.length} channels of ${layer.path} that matter most by ${unit}`,
    marks: [Plot.barY(bars, { x: 'channel', y: 'value', fill: 'var(--bar, #2f7fd0)' }), Plot.ruleY([0])],
  }) as SVGSVGElement;
  const note =
    by === 'ablation'
      ? `How much less probable the right class is, over ${ablated?.images ?? 0} images, with the gate of the channel at 0.`
      : 'How far the class that opens a channel most is above the others, from 0 to 1.';
  return el(
    'figure',
    {},
    el('h3', {}, 'Channels that matter'),
    el(
      'div',
      { className: 'controls' },
      choice(
        'SE layer',
        figure.layers.map(({ path, name }) => [path, name === null ? path : `${name} (${path})`]),
        layer.path,
        (path) => update({ layer: path }),
      ),
      choice(
        'By',
        [
          ['selectivity', 'class selectivity'],
          ...(ablated === undefined ? [] : [['ablation', 'ablation'] as const]),
        ] as const,
        by,
        (value) => update({ by: value }),
      ),
      ...plotButtons(`importance ${layer.path}`, () => plot),
      csvButton(`importance ${layer.path}`, () => [
        ['channel', 'selectivity', ...(ablated === undefined ? [] : ['fall'])],
        ...layer.selectivity.map((one, channel) => [
          channel,
          one,
          ...(ablated === undefined ? [] : [ablated.drops[channel] as number]),
        ]),
      ]),
    ),
    el('div', { className: 'plot' }, plot),
    el('figcaption', {}, note),
  );
}

function tableOf({ classes, layers }: ClassExcitationsJson): (string | number)[][] {
  const rows: (string | number)[][] = [['layer', 'name', 'channel', 'class', 'mean', 'deviation']];
  for (const { path, name, channels, all, classes: each } of layers) {
    for (const [index, { mean, deviation }] of [all, ...each].entries()) {
      const label = index === 0 ? 'all' : (classes[index - 1]?.label ?? '');
      for (let channel = 0; channel < channels; channel++)
        rows.push([path, name ?? '', channel, label, mean[channel] as number, deviation[channel] as number]);
    }
  }
  return rows;
}
