/** `senet-torch explain`: what a network saw in images, as a page that is one file, or as JSON. */
import path from 'node:path';

import { Option, type Command } from 'commander';

import { makeError } from '../errors';
import { CAM_METHODS, GRADIENT_CAMS, type CamMethod } from '../explain/cam-methods';
import {
  makePage,
  readFigure,
  round,
  type PageImage,
  type PageMap,
  type PageWhatIf,
} from '../serve/page-data';
import type { Explanation } from '../vision/explanation';
import type { ImageClassifier } from '../vision/image-classifier';
import { packageVersion } from '../package-root';
import { lazy } from './lazy';
import { addNetworkOptions, loadClassifier, titleOf, type NetworkOptions } from './load-classifier';
import { count, percent, printJson, printLine, printNote } from './output';
import { atLeastOne } from './training-options';
import { progressBar } from './progress-bar';

interface ExplainCommandOptions extends NetworkOptions {
  output?: string;
  json?: boolean;
  cam: CamMethod;
  layer?: string;
  target?: string;
  topK: number;
  scoreCam?: boolean;
  figure?: string;
}

/** The maps of a page are of so many of the best classes. */
const PAGE_CLASSES = 3;
const PAGE_CHANNELS = 6;

export function addExplain(program: Command, interrupted: () => AbortSignal): void {
  const command = program
    .command('explain')
    .description(
      'Show what a network saw in images: labels, where it looked, and the gates of its SE layers. Without files: in the first images that come with the package.',
    )
    .argument('[files...]', 'JPEG, PNG, WebP, AVIF, GIF, TIFF, BMP, PBM, PGM or PPM images');
  addNetworkOptions(command)
    .option('-o, --output <page.html>', 'write a page with everything inside, for any browser')
    .addOption(new Option('--cam <method>', 'how the map is made').choices(CAM_METHODS).default('gradcam'))
    .option('--layer <path>', 'the module that the map is of; default: the last block')
    .option('--target <class>', 'label or index of the class that the map is of; default: the best')
    .option('-k, --top-k <n>', 'labels for each image', atLeastOne, 5)
    .option('--score-cam', 'Score-CAM in the page too: a forward for each channel of the last block')
    .option('--figure <file>', 'the JSON of `senet-torch excitations`, to be drawn in the page too')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      '\nExamples:\n  $ senet-torch explain\n  $ senet-torch explain photo.jpg --model se_resnet50 --pretrained --output page.html\n  $ senet-torch explain shoe.png --cam layercam --layer layer2.2 --json',
    )
    .action((files: string[], options: ExplainCommandOptions) => explain(files, options, interrupted()));
}

async function explain(
  given: readonly string[],
  options: ExplainCommandOptions,
  signal: AbortSignal,
): Promise<void> {
  const files = given.length > 0 ? given : (await lazy.bundledImages.bundledImages()).slice(0, 4);
  const figure = options.figure === undefined ? null : await readFigure(options.figure);
  const classifier = await loadClassifier(options, signal);
  try {
    const target = targetOf(options.target, classifier.labels);
    const { cam, layer, topK, output } = options;
    const request = {
      ...{ cam, topK, signal, channels: output === undefined ? 0 : PAGE_CHANNELS },
      ...(layer === undefined ? {} : { layer }),
      ...(target === undefined ? {} : { target }),
    };
    const images: PageImage[] = [];
    const explanations: { file: string; explanation: Explanation }[] = [];
    for (const file of files) {
      const explanation = await classifier.explain(file, request);
      explanations.push({ file, explanation });
      if (output === undefined) continue;
      const maker = new PageImageMaker(classifier, file, explanation, signal);
      images.push(await maker.make(options.scoreCam === true || cam === 'scorecam'));
    }
    try {
      if (output !== undefined) {
        const model = titleOf(classifier, options);
        const page = await makePage({ version: packageVersion(), model, images, figure });
        await lazy.atomicFile.writeAtomically(output, (sink) => sink.write(Buffer.from(page)), 'explain');
        printNote(`Wrote ${output}: ${count(images.length, 'image')}, ${(page.length / 1e6).toFixed(1)} MB`);
      }
    } finally {
      // What was measured is not lost with a page that cannot be written.
      if (options.json === true) {
        printJson(explanations.map(({ file, explanation }) => ({ file, ...explanation.toJSON() })));
      } else {
        for (const [index, { file, explanation }] of explanations.entries())
          printExplanation(given.length > 0 ? file : path.basename(file), explanation, index > 0);
      }
    }
  } finally {
    await classifier.dispose();
  }
}

/** A class by its label, or by its index where no label is so. */
function targetOf(given: string | undefined, labels: readonly string[]): number | undefined {
  if (given === undefined) return undefined;
  const index = labels.indexOf(given);
  if (index >= 0) return index;
  if (/^\d{1,9}$/.test(given)) return Number(given);
  throw makeError(
    'ERR_SENET_ARG_RANGE',
    `--target: no label is '${given}'; give one, or the index of a class`,
  );
}

function printExplanation(name: string, explanation: Explanation, follows: boolean): void {
  const { labels, layer, method, map, excitations, milliseconds, target } = explanation;
  if (follows) printLine();
  printLine(name);
  for (const { label, score } of labels) printLine(`  ${percent(score).padStart(8)}  ${label}`);
  printLine();
  if (map !== null) {
    printLine(`  Where it looked for ${target.label}: ${method ?? ''} of ${layer ?? ''}`);
    for (const line of sketchOf(map)) printLine(`  ${line}`);
    printLine();
  }
  if (excitations !== null && excitations.length > 0) {
    printLine('  SE layer                    channels   least    mean    most  strongest');
    for (const { path: place, gates } of excitations) {
      const mean = gates.reduce((sum, gate) => sum + gate, 0) / gates.length;
      const most = gates.reduce(
        (best, gate, channel) => (gate > (gates[best] as number) ? channel : best),
        0,
      );
      const least = gates.reduce((lowest, gate) => Math.min(lowest, gate), 1);
      const numbers = [least, mean, gates[most] as number].map((one) => one.toFixed(3).padStart(8));
      printLine(`  ${place.padEnd(26)}${String(gates.length).padStart(10)}${numbers.join('')}  ${most}`);
    }
    printLine();
  }
  printLine(`  ${milliseconds.toFixed(0)} ms for the network and the map`);
}

const SHADES = ' .:-=+*#%@';
const SKETCH = { columns: 32, rows: 16 };

/** A map in characters. */
function sketchOf({ width, height, data }: NonNullable<Explanation['map']>): string[] {
  const most = data.reduce((greatest, value) => Math.max(greatest, value), 0) || 1;
  return Array.from({ length: SKETCH.rows }, (_, row) =>
    Array.from({ length: SKETCH.columns }, (_unused, column) => {
      const y = Math.floor(((row + 0.5) * height) / SKETCH.rows);
      const x = Math.floor(((column + 0.5) * width) / SKETCH.columns);
      const value = (data[y * width + x] as number) / most;
      return SHADES[Math.min(SHADES.length - 1, Math.floor(value * SHADES.length))];
    }).join(''),
  );
}

/** What the page shows of one image: maps for all its choices, and the labels with each layer's gates changed. */
class PageImageMaker {
  readonly #layers: readonly string[];

  constructor(
    private readonly classifier: ImageClassifier,
    private readonly file: string,
    private readonly explanation: Explanation,
    private readonly signal: AbortSignal,
  ) {
    this.#layers = lastBlocks(explanation);
  }

  async make(withScoreCam: boolean): Promise<PageImage> {
    const { explanation, file } = this;
    const name = path.basename(file);
    const classes = [...new Set([explanation.target.index, ...explanation.labels.map(({ index }) => index)])];
    const targets = classes.slice(0, PAGE_CLASSES);
    const [usual] = this.#layers.slice(-1);
    const wanted = this.#layers.flatMap((layer) =>
      targets.flatMap((target) => {
        const methods: CamMethod[] = [...GRADIENT_CAMS];
        if (withScoreCam && layer === usual) methods.push('scorecam');
        return methods.map((cam) => ({ layer, target, cam }));
      }),
    );
    const layers = (explanation.excitations ?? []).map(({ path: place }) => place);
    const bar = progressBar(`${name} {bar} {value} of {total}`, wanted.length + 2 * layers.length);
    try {
      const maps: PageMap[] = [];
      for (const one of wanted) {
        maps.push(await this.#map(one));
        bar?.increment();
      }
      const whatIf: PageWhatIf[] = [];
      for (const layer of layers) {
        for (const change of [1, 'mean'] as const) {
          whatIf.push({ layer, change, labels: await this.#labelsWith(layer, change) });
          bar?.increment();
        }
      }
      return { name, explanation: explanation.toJSON(), maps, whatIf };
    } finally {
      bar?.stop();
    }
  }

  async #map({ layer, target, cam }: { layer: string; target: number; cam: CamMethod }): Promise<PageMap> {
    const { classifier, file, signal } = this;
    const { layerMap } = await classifier.explain(file, { layer, target, cam, signal, excitations: false });
    const { width, height, data } = layerMap as NonNullable<typeof layerMap>;
    return { layer, target, method: cam, width, height, data: round(data) };
  }

  async #labelsWith(layer: string, change: 1 | 'mean'): Promise<Explanation['labels']> {
    const { classifier, file, signal } = this;
    const topK = this.explanation.labels.length;
    const gates = { [layer]: change };
    return (await classifier.explain(file, { cam: false, excitations: false, gates, topK, signal })).labels;
  }
}

/** The blocks in front of which the number of channels changes, and the layer that was asked for. */
function lastBlocks({ excitations, layer }: Explanation): string[] {
  const layers = excitations ?? [];
  const lasts = layers
    .filter(({ gates }, index) => layers[index + 1]?.gates.length !== gates.length)
    .map(({ path: place }) => place.slice(0, Math.max(place.lastIndexOf('.'), 0)))
    .filter((place) => place !== '');
  return [...new Set([...lasts.slice(-4), ...(layer === null ? [] : [layer])])];
}
