/** `senet-torch quantize`: weights for int8, calibrated on images, and how good they are before and after. */
import type { Command } from 'commander';

import type { Dataset } from '../data/dataset';
import type { ModelName } from '../models/registry';
import type { CompiledStep } from '../binding';
import { calibrationSettings } from '../nn/calibration-settings';
import type { Quantized } from '../train/quantize-weights';
import {
  addCalibrationOptions,
  checkCalibrationOptions,
  type CalibrationOptions,
} from './calibration-options';
import { lazy } from './lazy';
import { count, percent, printJson, printLine, printLines, printNote, printTable } from './output';
import { addPlaceOptions } from './training-options';
import { progressBar } from './progress-bar';

interface QuantizeCommandOptions extends CalibrationOptions {
  model?: string;
  key?: string;
  prefix?: string;
  calibration: string;
  output: string;
  evaluate: boolean;
  json?: boolean;
}

/** Layers that are named when they are further off than this. */
const LARGE_ERROR = 0.05;

export function addQuantize(program: Command, interrupted: () => AbortSignal): void {
  const command = program
    .command('quantize')
    .description(
      'Write weights for int8, calibrated on images, and print what share of them is right before and after.',
    )
    .argument('<file>', 'a checkpoint (.safetensors, .pt, .pth, .pkl), hf-hub:REPOSITORY or local-dir:FOLDER')
    .requiredOption(
      '--calibration <data>',
      'images like those to come: a folder with a folder for each class, IDX files, CIFAR (as of `evaluate`)',
    )
    .requiredOption('-o, --output <file>', 'a path that ends in .safetensors')
    .option('-m, --model <name>', 'the network; default: what the keys and shapes of the weights say');
  addCalibrationOptions(addPlaceOptions(command))
    .option('--no-evaluate', 'print nothing of the accuracy')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      '\nExamples:\n  $ senet-torch quantize best.safetensors --calibration photos --output best-int8.safetensors\n  $ senet-torch serve --weights best-int8.safetensors --dtype int8',
    )
    .action((file: string, options: QuantizeCommandOptions) => {
      checkCalibrationOptions(command);
      return quantize(file, options, interrupted());
    });
}

async function quantize(file: string, options: QuantizeCommandOptions, signal: AbortSignal): Promise<void> {
  const { model, key, prefix, calibration, dataset: kind, output, evaluate, json } = options;
  const { calibrationLabels: labels } = options;
  const { openEvaluationData } = lazy.evaluation;
  const { dataset, from } = await openEvaluationData(calibration, { labels, dataset: kind });
  printNote(`Calibrating with ${count(Math.min(options.limit, dataset.length), 'image')} of ${from}`);
  const bar = progressBar('{bar} {value} of {total} images', Math.min(options.limit, dataset.length));
  let written: Quantized;
  try {
    written = await lazy.quantize.quantizeWeights(file, output, {
      ...(model === undefined ? {} : { model: model as ModelName }),
      ...(key === undefined ? {} : { key }),
      ...(prefix === undefined ? {} : { prefix }),
      ...{ calibration: dataset, ...calibrationSettings(options), keep: options.keep ?? [] },
      ...{ signal, onProgress: (done: number) => bar?.update(done) },
    });
  } finally {
    bar?.stop();
  }
  const accuracy = evaluate
    ? {
        before: await accuracyOf(written.model, file, 'float32', dataset, signal),
        after: await accuracyOf(written.model, output, 'int8', dataset, signal),
      }
    : null;
  const layers = written.plan.steps.filter(({ quantization }) => quantization !== undefined);
  if (json === true) {
    printJson({
      output,
      model: written.model,
      images: written.images,
      accuracy,
      layers: layers.map(recordOf),
    });
    return;
  }
  printLine(
    `${output}: ${written.model}, ${count(layers.length, 'layer')} of int8, calibrated on ${count(written.images, 'image')}`,
  );
  if (accuracy !== null)
    printLine(`${percent(accuracy.before)} right in float32, ${percent(accuracy.after)} in int8`);
  const worst = layers
    .filter(({ quantization }) => (quantization?.error ?? 0) > LARGE_ERROR)
    .sort((a, b) => (b.quantization?.error ?? 0) - (a.quantization?.error ?? 0));
  if (worst.length === 0) return;
  printLines([
    '',
    `Layers that are off by more than ${percent(LARGE_ERROR)}; --keep NAME leaves one in float32:`,
  ]);
  printTable(
    worst.slice(0, 10).map(({ name, quantization }) => [name, percent(quantization?.error ?? 0)]),
    [1],
  );
}

function recordOf({ name, quantization }: CompiledStep): object {
  return { name, ...quantization };
}

async function accuracyOf(
  model: string,
  weights: string,
  dtype: 'float32' | 'int8',
  dataset: Dataset,
  signal: AbortSignal,
): Promise<number> {
  const { ImageClassifier } = lazy.classifier;
  const classifier = await ImageClassifier.load(model as ModelName, { weights, dtype, signal });
  try {
    return (await lazy.evaluation.evaluateClassifier(classifier, dataset, { batchSize: 100, signal })).top1;
  } finally {
    await classifier.dispose();
  }
}
