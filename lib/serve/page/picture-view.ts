/** The picture as the network saw it, the labels with bars, and where it looked. */
import { choice, el, percent, section } from './dom';
import { overlay, scaleBar } from './pixels';
import { csvButton, saveCanvas } from './save';
import { button } from './dom';
import type { Choices, Request, Shown } from './source';

const METHOD_NAMES: Readonly<Record<string, string>> = {
  gradcam: 'Grad-CAM',
  'gradcam++': 'Grad-CAM++',
  layercam: 'LayerCAM',
  scorecam: 'Score-CAM (slow)',
};

export function labelsView({ name, explanation, before }: Shown): HTMLElement {
  const { labels, milliseconds, input } = explanation;
  const earlier = new Map(before.map((label) => [label.index, label.score]));
  const changed = before !== labels;
  const rows = labels.map(({ label, index, score }) => {
    const was = earlier.get(index);
    const earlierScore = !changed
      ? null
      : el('span', { className: 'number quiet' }, was === undefined ? '' : `was ${percent(was)}`);
    const width = `${(100 * score).toFixed(2)}%`;
    return el(
      'li',
      {},
      el('span', {}, label),
      el(
        'span',
        { className: 'bar', set: { 'aria-hidden': 'true' } },
        el('span', { style: `width:${width}` as never }),
      ),
      el('span', { className: 'number' }, percent(score)),
      earlierScore,
    );
  });
  const canvas = overlay(input, null, 0);
  canvas.setAttribute('role', 'img');
  canvas.setAttribute('aria-label', `${name}, as the network saw it`);
  return section(
    'labels',
    'Labels',
    el(
      'div',
      { className: 'columns' },
      el(
        'figure',
        {},
        canvas,
        el('figcaption', {}, `${name}, as the network saw it: ${input.width} x ${input.height} pixels`),
      ),
      el(
        'div',
        {},
        el('ol', { className: changed ? 'labels changed' : 'labels' }, ...rows),
        el('p', { className: 'quiet' }, `Network and map took ${milliseconds.toFixed(0)} ms.`),
        csvButton('labels', () => [
          ['label', 'index', 'score'],
          ...labels.map((one) => [one.label, one.index, one.score]),
        ]),
      ),
    ),
  );
}

export function mapView(
  { name, explanation, map }: Shown,
  { methods, layers, targets }: Choices,
  opacity: number,
  change: (request: Partial<Request>) => void,
  setOpacity: (opacity: number) => void,
): HTMLElement {
  const labelOf = (index: number): string =>
    targets.find((one) => one.index === index)?.label ?? String(index);
  const slider = el('input', {
    ...{ type: 'range', min: '0', max: '1', step: '0.05', value: String(opacity) },
    set: { 'data-key': 'opacity' },
  });
  const holder = el('div');
  const paint = (value: number): void => {
    const canvas = overlay(explanation.input, map?.grid ?? null, value);
    canvas.setAttribute('role', 'img');
    canvas.setAttribute(
      'aria-label',
      map === null ? name : `Where ${name} looks like ${labelOf(map.target)}: ${placesOf(map.grid)}`,
    );
    holder.replaceChildren(canvas);
  };
  paint(opacity);
  slider.addEventListener('input', () => {
    setOpacity(Number(slider.value));
    paint(Number(slider.value));
  });
  const said =
    map === null
      ? 'There is no map of this choice in the file.'
      : `${METHOD_NAMES[map.method] ?? map.method} of ${map.layer} (${map.grid.width} x ${map.grid.height}) for ${labelOf(map.target)}.`;
  const controls = [
    choice(
      'Method',
      methods.map((one) => [one, METHOD_NAMES[one] ?? one]),
      map?.method ?? '',
      (method) => change({ method }),
    ),
    choice(
      'Layer',
      layers.map((one) => [one, one]),
      map?.layer ?? '',
      (layer) => change({ layer }),
    ),
    choice(
      'Class',
      targets.map((one) => [String(one.index), one.label]),
      String(map?.target ?? ''),
      (target) => change({ target: Number(target) }),
    ),
    el('label', {}, 'Strength of the map', slider),
  ];
  const bar = scaleBar('turbo');
  bar.setAttribute('aria-hidden', 'true');
  return section(
    'map',
    'Where it looked',
    el(
      'div',
      { className: 'columns' },
      el(
        'figure',
        {},
        holder,
        el('figcaption', {}, said),
        el('p', { className: 'scale' }, 'little', bar, 'much'),
      ),
      el(
        'div',
        {},
        el('div', { className: 'controls' }, ...controls),
        el(
          'p',
          { className: 'quiet' },
          'A class activation map shows which places of a layer spoke for a class. The last block is the usual layer; earlier ones are finer and mean less.',
        ),
        el(
          'div',
          { className: 'controls' },
          button('Save PNG', () =>
            saveCanvas('map.png', overlay(explanation.input, map?.grid ?? null, opacity)),
          ),
          map === null ? null : csvButton('map', () => rowsOf(map.grid)),
        ),
      ),
    ),
  );
}

type Grid = NonNullable<Shown['map']>['grid'];

function rowsOf({ width, height, data }: Grid): number[][] {
  return Array.from({ length: height }, (_, row) =>
    Array.from({ length: width }, (_, column) => data[row * width + column] as number),
  );
}

/** In words, for who does not see the colours: the share of the map in each ninth of the picture that has most. */
function placesOf(grid: Grid): string {
  const { width, height, data } = grid;
  const rows = ['top', 'middle', 'bottom'];
  const columns = ['left', 'centre', 'right'];
  const sums = new Map<string, number>();
  let total = 0;
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      const value = data[row * width + column] as number;
      const down = rows[Math.min(2, Math.floor((3 * (row + 0.5)) / height))];
      const across = columns[Math.min(2, Math.floor((3 * (column + 0.5)) / width))];
      const place = `${down} ${across}`;
      sums.set(place, (sums.get(place) ?? 0) + value);
      total += value;
    }
  }
  if (total === 0) return 'nowhere';
  return [...sums]
    .sort(([, left], [, right]) => right - left)
    .slice(0, 3)
    .map(([place, sum]) => `${place} ${percent(sum / total)}`)
    .join(', ');
}
