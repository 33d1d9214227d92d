/** `senet-torch export`: a network with its weights as a file for other runtimes. */
import { InvalidArgumentError, Option, type Command } from 'commander';

import type { ModelName } from '../models/registry';
import { calibrationSettings } from '../nn/calibration-settings';
import type { ExportProgress } from '../onnx/export-weights';
import type { OnnxDType, OnnxValue } from '../onnx/save-onnx';
import {
  addCalibrationOptions,
  checkCalibrationOptions,
  type CalibrationOptions,
} from './calibration-options';
import { lazy } from './lazy';
import { readPreprocessing } from './load-classifier';
import { count, printJson, printLine, printNote } from './output';
import { progressBar } from './progress-bar';
import { addPlaceOptions } from './training-options';

interface ExportCommandOptions extends CalibrationOptions {
  output: string;
  model?: string;
  key?: string;
  prefix?: string;
  dtype: OnnxDType;
  opset?: number;
  preprocess?: boolean;
  softmax?: boolean;
  keepBatchNorm?: boolean;
  labels?: string;
  preprocessing?: string;
  calibration?: string;
  checkHash: boolean;
  json?: boolean;
}

export function addExport(program: Command, interrupted: () => AbortSignal): void {
  const command = program
    .command('export')
    .description(
      'Write a network with its weights for other runtimes (ONNX Runtime in Node.js, browsers, Python, C++, ...): evaluation mode, any batch, any size of image that it takes.',
    )
    .argument(
      '<weights>',
      'a checkpoint (.safetensors, .pt, .pth, .pkl), hf-hub:REPOSITORY, local-dir:FOLDER, or the name of published weights',
    )
    .requiredOption('-o, --output <file>', 'a path that ends in .onnx')
    .addOption(new Option('--format <format>', 'of the file').choices(['onnx']).default('onnx'))
    .option('-m, --model <name>', 'the network; default: what the keys and shapes of the weights say');
  addPlaceOptions(command)
    .option('--no-check-hash', 'accept a download whose SHA-256 is not the promised one')
    .addOption(
      new Option('--dtype <dtype>', 'of the weights')
        .choices(['float32', 'float16', 'int8'])
        .default('float32'),
    )
    .option('--opset <n>', 'version of the operator set, 17 to 25; default: 17, and 18 to resize', opsetOf)
    .option('--preprocess', 'the file prepares images: uint8, N x height x width x 3, of any size')
    .option('--softmax', 'the file gives probabilities, not logits')
    .option('--keep-batch-norm', 'every BatchNorm stays a node; default: folded into its convolution')
    .option('--labels <file>', 'labels, as of `classify`; default: what the weights bring')
    .option(
      '--preprocessing <json>',
      'JSON, or a file with it: channels, size, crop, pad, interpolation, mean, std; default: what the weights bring',
    )
    .optionsGroup('int8:')
    .option(
      '--calibration <data>',
      'images like those to come, as of `quantize`; default: what weights that `quantize` wrote say',
    );
  addCalibrationOptions(command)
    .optionsGroup('Options:')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      '\nExamples:\n  $ senet-torch export best.safetensors --output net.onnx --preprocess --softmax\n  $ senet-torch export best.safetensors --output net.onnx --dtype int8 --calibration photos',
    )
    .action((weights: string, options: ExportCommandOptions) => {
      checkCalibrationOptions(command);
      return exportTo(weights, options, interrupted());
    });
}

function opsetOf(text: string): number {
  if (/^\d+$/.test(text)) return Number(text);
  throw new InvalidArgumentError('Expected a whole number.');
}

async function exportTo(weights: string, options: ExportCommandOptions, signal: AbortSignal): Promise<void> {
  const { output, model, key, prefix, labels, calibration, json, opset, keep } = options;
  const preprocessing =
    options.preprocessing === undefined ? undefined : await readPreprocessing(options.preprocessing);
  const dataset =
    calibration === undefined
      ? undefined
      : await lazy.evaluation.openEvaluationData(calibration, {
          labels: options.calibrationLabels,
          dataset: options.dataset,
        });
  if (dataset !== undefined) {
    const images = Math.min(options.limit, dataset.dataset.length);
    printNote(`Calibrating with ${count(images, 'image')} of ${dataset.from}`);
  }
  const bars = new Bars();
  let written;
  try {
    written = await lazy.onnx.exportWeights(weights, output, {
      ...(model === undefined ? {} : { model: model as ModelName }),
      ...(key === undefined ? {} : { key }),
      ...(prefix === undefined ? {} : { prefix }),
      ...(labels === undefined ? {} : { labels }),
      ...(preprocessing === undefined ? {} : { preprocessing }),
      ...(dataset === undefined ? {} : { calibration: dataset.dataset }),
      ...(opset === undefined ? {} : { opset }),
      ...{ dtype: options.dtype, keep: keep ?? [], ...calibrationSettings(options) },
      ...{ preprocess: options.preprocess ?? false, softmax: options.softmax ?? false },
      ...{ keepBatchNorm: options.keepBatchNorm ?? false, checkHash: options.checkHash },
      ...{ progress: process.stderr.isTTY, signal, onProgress: (progress) => bars.show(progress) },
    });
  } finally {
    bars.stop();
  }
  if (json === true) {
    printJson({ file: output, ...written });
    return;
  }
  const named = written.labels === null ? 'no labels' : count(written.labels, 'label');
  printLine(
    `${output}: ${written.model}, ${(written.bytes / 1e6).toFixed(1)} MB of ${written.dtype}, opset ${written.opset}, ${named}`,
  );
  printLine(`takes ${valueText(written.input)}, gives ${valueText(written.output)}`);
}

function valueText({ name, dtype, shape }: OnnxValue): string {
  return `${name}: ${dtype}, ${shape.join(' x ')}`;
}

/** A bar for each phase. */
class Bars {
  #phase: ExportProgress['phase'] | undefined;
  #bar: ReturnType<typeof progressBar>;

  show({ phase, done, total }: ExportProgress): void {
    if (phase !== this.#phase) {
      this.stop();
      this.#phase = phase;
      this.#bar = progressBar(`{bar} {value} of {total} ${phase === 'write' ? 'bytes' : 'images'}`, total);
    }
    this.#bar?.update(done);
  }

  stop(): void {
    this.#bar?.stop();
    this.#bar = undefined;
  }
}
