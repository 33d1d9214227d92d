/** The gates of every SE layer as a heat map, one layer with its strongest and weakest channels, and what if. */
import * as Plot from '@observablehq/plot';

import type { ChannelJson, LayerExcitationJson } from '../../vision/explanation';
import { button, checkbox, choice, el, percent, plotWidth, section } from './dom';
import { gridOf, paintGrid, scaleBar } from './pixels';
import { csvButton, plotButtons, saveCanvas } from './save';
import type { Change, Shown, Subject } from './source';

export interface ExcitationState {
  readonly sorted: boolean;
  /** Colours from the least gate of each layer to its greatest, instead of from 0 to 1. */
  readonly stretched: boolean;
  /** Path of the layer that is looked at. */
  readonly layer: string | null;
  readonly gates: Readonly<Record<string, Change>>;
}

type Look = Pick<ExcitationState, 'sorted' | 'stretched'>;
type Update = (state: Partial<ExcitationState>) => void;

export function excitationView(
  { explanation, before }: Shown,
  subject: Subject,
  state: ExcitationState,
  update: Update,
): HTMLElement {
  const layers = explanation.excitations ?? [];
  const chosen = layers.find(({ path }) => path === state.layer) ?? layers.at(-1);
  if (chosen === undefined)
    return section(
      'excitations',
      'Excitations',
      el('p', {}, 'This network has no squeeze-and-excitation layer.'),
    );
  const bar = scaleBar('viridis');
  bar.setAttribute('aria-hidden', 'true');
  return section(
    'excitations',
    'Excitations',
    el(
      'p',
      { className: 'quiet' },
      'Each row is an SE layer, each cell the factor from 0 to 1 that it scales a channel by. Choose a layer to look into it.',
    ),
    el(
      'div',
      { className: 'controls' },
      checkbox('Sorted, the strongest first', state.sorted, (sorted) => update({ sorted })),
      checkbox("Colours from each layer's least to its most", state.stretched, (stretched) =>
        update({ stretched }),
      ),
      el(
        'span',
        { className: 'scale' },
        state.stretched ? 'least' : '0',
        bar,
        state.stretched ? 'most' : '1',
      ),
      button('Save PNG', () => saveCanvas('excitations.png', wholeMap(layers, state)), 'png excitations'),
      csvButton('excitations', () => [
        ['layer', 'channel', 'gate'],
        ...layers.flatMap(({ path, gates }) => gates.map((gate, channel) => [path, channel, gate])),
      ]),
    ),
    el(
      'div',
      { className: 'layers', set: { role: 'group', 'aria-label': 'SE layers' } },
      ...layers.map((layer) => rowOf(layer, layer === chosen, state, update)),
    ),
    layerView(chosen, subject, state, update),
    subject.whatIf === null ? servedWhatIf(layers, state, update) : storedWhatIf(subject.whatIf, before),
  );
}

function rowOf(
  layer: LayerExcitationJson,
  isChosen: boolean,
  look: ExcitationState,
  update: Update,
): HTMLElement {
  const { path, gates } = layer;
  const canvas = paintGrid({ width: gates.length, height: 1, data: cellsOf(gates, look) }, 'viridis');
  canvas.setAttribute('aria-hidden', 'true');
  const row = el(
    'button',
    {
      ...{ type: 'button', className: 'layer', title: describe(layer) },
      set: { 'aria-pressed': String(isChosen), 'aria-label': describe(layer), 'data-key': `layer ${path}` },
    },
    el('span', {}, path),
    canvas,
  );
  row.addEventListener('click', () => update({ layer: path }));
  return row;
}

function describe({ path, gates }: LayerExcitationJson): string {
  const mean = gates.reduce((sum, gate) => sum + gate, 0) / gates.length;
  const [least, most] = [Math.min(...gates), Math.max(...gates)];
  return `${path}: ${gates.length} channels, from ${least.toFixed(2)} to ${most.toFixed(2)}, mean ${mean.toFixed(2)}`;
}

function cellsOf(gates: readonly number[], { sorted, stretched }: Look): readonly number[] {
  const ordered = sorted ? [...gates].sort((left, right) => right - left) : gates;
  if (!stretched) return ordered;
  const [least, most] = [Math.min(...gates), Math.max(...gates)];
  return ordered.map((gate) => (gate - least) / (most - least || 1));
}

/** All layers below each other, each as wide as the widest. */
function wholeMap(layers: readonly LayerExcitationJson[], look: Look): HTMLCanvasElement {
  const rowHeight = 14;
  const canvas = document.createElement('canvas');
  canvas.width = 1024;
  canvas.height = rowHeight * layers.length;
  const context = canvas.getContext('2d');
  if (context === null) return canvas;
  context.imageSmoothingEnabled = false;
  for (const [row, { gates }] of layers.entries()) {
    const painted = paintGrid({ width: gates.length, height: 1, data: cellsOf(gates, look) }, 'viridis');
    context.drawImage(painted, 0, row * rowHeight, canvas.width, rowHeight - 1);
  }
  return canvas;
}

function layerView(
  layer: LayerExcitationJson,
  subject: Subject,
  state: ExcitationState,
  update: Update,
): HTMLElement {
  const { path, gates, strongest, weakest } = layer;
  const plot = Plot.plot({
    ...{ width: plotWidth(560), height: 180, marginLeft: 50 },
    x: { domain: [0, 1], label: 'gate' },
    y: { label: 'channels', grid: true },
    ariaLabel: `How many channels of ${path} have which gate`,
    marks: [
      Plot.rectY(gates, {
        ...Plot.binX<Plot.RectYOptions>(
          { y: 'count' },
          { x: (gate: number) => gate, domain: [0, 1], thresholds: 40 },
        ),
        fill: 'var(--bar, #2f7fd0)',
      }),
      Plot.ruleY([0]),
    ],
  }) as SVGSVGElement;
  const cards = (title: string, channels: readonly ChannelJson[]): (HTMLElement | null)[] =>
    channels.length === 0
      ? [null]
      : [
          el('h3', {}, title),
          el(
            'div',
            { className: 'channels' },
            ...channels.map((channel) => channelView(channel, layer, subject.whatIf === null, state, update)),
          ),
        ];
  return el(
    'div',
    { set: { role: 'group', 'aria-label': path } },
    el('h3', {}, describe(layer)),
    el('div', { className: 'plot' }, plot),
    el('div', { className: 'controls' }, ...plotButtons(`gates ${path}`, () => plot)),
    ...cards('Strongest channels', strongest),
    ...cards('Weakest channels', weakest),
  );
}

function channelView(
  { channel, gate, map }: ChannelJson,
  { path, gates }: LayerExcitationJson,
  canChange: boolean,
  state: ExcitationState,
  update: Update,
): HTMLElement {
  const canvas = paintGrid(gridOf(map), 'viridis');
  canvas.setAttribute('role', 'img');
  canvas.setAttribute('aria-label', `What channel ${channel} of ${path} shows, ${map.width} x ${map.height}`);
  const current = state.gates[path];
  const now = Array.isArray(current) ? (current[channel] ?? null) : null;
  const set = (value: string): void => {
    const row = Array.isArray(current) ? [...current] : gates.map((): number | null => null);
    row[channel] = value === '' ? null : Number(value);
    update({ gates: withChange(state.gates, path, row.some((one) => one !== null) ? row : null) });
  };
  return el(
    'figure',
    {},
    canvas,
    el('figcaption', {}, `${channel}: ${gate.toFixed(3)}`),
    canChange
      ? choice(
          `Channel ${channel}`,
          [
            ['', 'as is'],
            ['0', '0'],
            ['1', '1'],
          ],
          now === null ? '' : (String(now) as '0' | '1'),
          set,
        )
      : null,
  );
}

function withChange(
  gates: ExcitationState['gates'],
  path: string,
  change: Change | null,
): Readonly<Record<string, Change>> {
  const rest = Object.fromEntries(Object.entries(gates).filter(([other]) => other !== path));
  return change === null ? rest : { ...rest, [path]: change };
}

function servedWhatIf(
  layers: readonly LayerExcitationJson[],
  { gates }: ExcitationState,
  update: Update,
): HTMLElement {
  const changed = Object.keys(gates).length;
  return el(
    'details',
    { open: changed > 0 },
    el(
      'summary',
      { set: { 'data-key': 'what if' } },
      `What if gates were others? (${changed} layers changed)`,
    ),
    el('p', { className: 'quiet' }, 'Set the gates of a layer, and see the labels above move.'),
    el(
      'div',
      { className: 'controls' },
      ...layers.map(({ path }) => {
        const change = gates[path];
        const now = Array.isArray(change) ? 'channels' : change === undefined ? '' : String(change);
        const options: [string, string][] = [
          ['', 'computed'],
          ['1', 'all 1'],
          ['mean', 'their mean'],
          ['0', 'all 0'],
        ];
        if (now === 'channels') options.push(['channels', 'some channels']);
        return choice(path, options, now, (value) => {
          if (value === 'channels') return;
          const next: Change | null = value === '' ? null : value === 'mean' ? 'mean' : Number(value);
          update({ gates: withChange(gates, path, next) });
        });
      }),
    ),
    button('As computed again', () => update({ gates: {} })),
  );
}

function storedWhatIf(whatIf: NonNullable<Subject['whatIf']>, before: Shown['before']): HTMLElement {
  const layers = [...new Set(whatIf.map(({ layer }) => layer))];
  const best = before[0];
  const cell = (layer: string, change: 1 | 'mean'): string => {
    const labels = whatIf.find((one) => one.layer === layer && one.change === change)?.labels ?? [];
    const first = labels[0];
    return first === undefined ? '' : `${first.label} ${percent(first.score)}`;
  };
  return el(
    'details',
    {},
    el('summary', {}, 'What if gates were others?'),
    el(
      'div',
      { className: 'scroll', tabIndex: 0, set: { role: 'region', 'aria-label': 'What if' } },
      el(
        'table',
        {},
        el(
          'caption',
          {},
          `The best label with all gates of one layer set to 1, or to their mean${best === undefined ? '' : `; as computed it is ${best.label} ${percent(best.score)}`}`,
        ),
        el(
          'thead',
          {},
          el(
            'tr',
            {},
            ...['SE layer', 'all 1', 'their mean'].map((title) => el('th', { scope: 'col' }, title)),
          ),
        ),
        el(
          'tbody',
          {},
          ...layers.map((layer) =>
            el(
              'tr',
              {},
              el('th', { scope: 'row' }, layer),
              el('td', {}, cell(layer, 1)),
              el('td', {}, cell(layer, 'mean')),
            ),
          ),
        ),
      ),
    ),
    el(
      'p',
      { className: 'quiet' },
      'Other changes, and single channels, need the network: run senet-torch serve and open its page.',
    ),
    csvButton('what-if', () => [
      ['layer', 'gates', 'label', 'score'],
      ...whatIf.flatMap(({ layer, change, labels }) =>
        labels.map(({ label, score }) => [layer, change, label, score]),
      ),
    ]),
  );
}
