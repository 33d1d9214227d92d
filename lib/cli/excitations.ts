/** `senet-torch excitations`: what SE layers do for each class of a folder of images. */
import { extname } from 'node:path';

import type { SingleBar } from 'cli-progress';
import { Option, type Command } from 'commander';

import { makeError } from '../errors';
import { packageVersion } from '../package-root';
import {
  classExcitationsToCsv,
  classExcitationsToJson,
  makePage,
  round,
  type AblationJson,
  type ClassExcitationsJson,
} from '../serve/page-data';
import type { ImageClassifier } from '../vision/image-classifier';
import type { ImageFolder } from '../data/image-folder';
import type { LabelledImage } from '../vision/class-excitations';
import { lazy } from './lazy';
import { addNetworkOptions, loadClassifier, titleOf, type NetworkOptions } from './load-classifier';
import { count, printJson, printLine, printNote, printTable } from './output';
import { atLeastOne } from './training-options';
import { progressBar } from './progress-bar';

interface ExcitationsOptions extends NetworkOptions {
  perClass: number;
  classes?: string[];
  split?: 'train' | 'validation' | 'test' | 'none';
  ablate?: string[];
  ablateImages: number;
  output?: string[];
  json?: boolean;
}

/** Of those that are printed. */
const STRONGEST = 5;

export function addExcitations(program: Command, interrupted: () => AbortSignal): void {
  const command = program
    .command('excitations')
    .description(
      'Measure the mean gates of SE layers for each class of a folder of images, how selective each channel is, and what it is worth.',
    )
    .argument('<folder>', 'a folder with a folder of images for each class');
  addNetworkOptions(command)
    .option('-n, --per-class <n>', 'images of each class, spread evenly over its files', atLeastOne, 50)
    .option('--classes <names...>', 'only these folders')
    .addOption(
      new Option(
        '--split <part>',
        'of a folder with parts for training and test, the one that is meant',
      ).choices(['train', 'validation', 'test', 'none']),
    )
    .option(
      '--ablate <layers...>',
      'SE layers whose channels are taken away one by one (`layer4.2.se`, or `last`): a forward for each',
    )
    .option('--ablate-images <n>', 'images that are looked at for it, of all classes', atLeastOne, 10)
    .option('-o, --output <files...>', 'write files: .json, .csv, or .html with the figure')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      '\nExamples:\n  $ senet-torch excitations imagenet/val --model se_resnet50 --pretrained --classes pug goldfish cliff plane --output figure.html\n  $ senet-torch excitations photos --weights mine.safetensors --ablate last --output figure.html table.csv',
    )
    .action((folder: string, options: ExcitationsOptions) => excitations(folder, options, interrupted()));
}

async function excitations(folder: string, options: ExcitationsOptions, signal: AbortSignal): Promise<void> {
  const outputs = options.output ?? [];
  for (const file of outputs) writerOf(file); // a wrong name says so before the work
  const data = await lazy.imageFolder.ImageFolder.open(
    folder,
    options.split === undefined ? {} : { split: options.split },
  );
  const classes = chosenClasses(data, options.classes);
  const images = chosenImages(data, classes, options.perClass);
  const classifier = await loadClassifier(options, signal);
  try {
    const bar = progressBar(format('images'), images.length);
    const statistics = await lazy.classExcitations
      .classExcitations(classifier, counted(images, bar), { classes, signal })
      .finally(() => bar?.stop());
    const ablation = await ablate(
      classifier,
      images,
      classes,
      options,
      statistics.layers.map(({ path }) => path),
      signal,
    );
    const figure = classExcitationsToJson(statistics, ablation);
    try {
      for (const file of outputs) {
        const text = await writerOf(file)(figure, titleOf(classifier, options));
        await lazy.atomicFile.writeAtomically(file, (sink) => sink.write(Buffer.from(text)), 'excitations');
        printNote(`Wrote ${file}`);
      }
    } finally {
      // What was measured is not lost with a file that cannot be written.
      if (options.json === true) printJson(figure);
      else print(figure);
    }
  } finally {
    await classifier.dispose();
  }
}

function chosenClasses(data: ImageFolder, wanted: readonly string[] | undefined): readonly string[] {
  if (wanted === undefined) return data.classes;
  const missing = wanted.find((name) => !data.classes.includes(name));
  if (missing !== undefined) {
    throw makeError('ERR_SENET_DATASET', `--classes: ${data.root} has no folder '${missing}'`);
  }
  return wanted;
}

/** The classes in turn, so that whoever interrupts has seen some of each. */
function chosenImages(data: ImageFolder, classes: readonly string[], perClass: number): LabelledImage[] {
  const each = classes.map((name) => {
    const index = data.classToIdx.get(name);
    const files = data.samples.filter(({ label }) => label === index).map(({ file }) => file);
    const wanted = Math.min(perClass, files.length);
    return Array.from(
      { length: wanted },
      (_, place) => files[Math.floor((place * files.length) / wanted)] as string,
    );
  });
  return Array.from({ length: Math.max(...each.map((files) => files.length)) }, (_, place) =>
    each.flatMap((files, label) => {
      const image = files[place];
      return image === undefined ? [] : [{ image, label }];
    }),
  ).flat();
}

const format = (what: string): string => `${what} {bar} {value} of {total}, {eta_formatted} left`;

function* counted(images: readonly LabelledImage[], bar: SingleBar | undefined): Iterable<LabelledImage> {
  for (const image of images) {
    yield image;
    bar?.increment();
  }
}

/** Falls of the probability of what the network itself says, or of the class where its name is one of the network's labels. */
async function ablate(
  classifier: ImageClassifier,
  images: readonly LabelledImage[],
  classes: readonly string[],
  { ablate: wanted = [], ablateImages }: ExcitationsOptions,
  known: readonly string[],
  signal: AbortSignal,
): Promise<AblationJson[]> {
  const layers = [...new Set(wanted.map((layer) => (layer === 'last' ? (known.at(-1) ?? layer) : layer)))];
  const some = images.slice(0, ablateImages);
  const found: AblationJson[] = [];
  for (const layer of layers) {
    const bar = progressBar(format(layer), some.length);
    try {
      let drops: Float64Array | undefined;
      let baseline = 0;
      for (const { image, label } of some) {
        const target = classifier.labels.indexOf(classes[label] as string);
        const one = await classifier.ablate(image, layer, { signal, ...(target < 0 ? {} : { target }) });
        drops ??= new Float64Array(one.drops.length);
        for (const [channel, drop] of one.drops.entries())
          drops[channel] = (drops[channel] as number) + drop / some.length;
        baseline += one.baseline / some.length;
        bar?.increment();
      }
      found.push({ layer, images: some.length, baseline, drops: round(Float32Array.from(drops ?? [])) });
    } finally {
      bar?.stop();
    }
  }
  return found;
}

type Writer = (figure: ClassExcitationsJson, model: string) => string | Promise<string>;

function writerOf(file: string): Writer {
  switch (extname(file).toLowerCase()) {
    case '.json':
      return (figure) => `${JSON.stringify(figure)}\n`;
    case '.csv':
      return (figure) => classExcitationsToCsv(figure);
    case '.html':
      return (figure, model) => makePage({ version: packageVersion(), model, images: [], figure });
    default:
      throw makeError('ERR_SENET_ARG_RANGE', `--output: expected .json, .csv or .html, got '${file}'`);
  }
}

function print({ classes, layers, ablation }: ClassExcitationsJson): void {
  printLine(classes.map(({ label, images }) => `${label} (${images})`).join(', '));
  printLine();
  printTable(
    [
      ['SE LAYER', 'NAME', 'CHANNELS', 'MEAN', 'DEVIATION', 'SELECTIVITY', 'MOST SELECTIVE'],
      ...layers.map(({ path, name, channels, all, selectivity }) => [
        ...[
          path,
          name ?? '-',
          String(channels),
          meanOf(all.mean),
          meanOf(all.deviation),
          meanOf(selectivity),
        ],
        highest(selectivity).join(' '),
      ]),
    ],
    [2, 3, 4, 5],
  );
  for (const { layer, images, baseline, drops } of ablation) {
    printLine();
    printLine(
      `${layer} without a channel, over ${count(images, 'image')}; probability ${baseline.toFixed(3)} with all`,
    );
    printTable(
      highest(drops).map((channel) => [`  channel ${channel}`, (drops[channel] as number).toFixed(4)]),
      [1],
    );
  }
}

function meanOf(values: readonly number[]): string {
  return (values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length)).toFixed(3);
}

function highest(values: readonly number[]): number[] {
  return [...values.keys()]
    .sort((left, right) => (values[right] as number) - (values[left] as number))
    .slice(0, STRONGEST);
}
