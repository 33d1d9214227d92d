/** `senet-torch convert`: weights of another framework as safetensors. */
import type { Command } from 'commander';

import type { ModelName } from '../models/registry';
import { lazy } from './lazy';
import { count, printJson, printLine } from './output';
import { addPlaceOptions } from './training-options';

interface ConvertCommandOptions {
  model?: string;
  key?: string;
  prefix?: string;
  labels?: string;
  overwrite?: boolean;
  json?: boolean;
}

export function addConvert(program: Command, interruptSignal: () => AbortSignal): void {
  const command = program
    .command('convert')
    .description(
      'Write weights of timm, Cadene, mmpretrain, MONAI, NVIDIA, pytorchcv or senet.pytorch as safetensors that carry the model’s name, labels and preprocessing. Nothing in the file is executed.',
    )
    .argument('<file>', 'any file of weights that `inspect` reads')
    .argument('<output>', 'a path that ends in .safetensors')
    .option('-m, --model <name>', 'the network; default: what the keys and shapes of the weights say');
  addPlaceOptions(command)
    .option('--labels <file>', 'labels, as of `classify`; default: what the file brings')
    .option('--overwrite', 'replace an output that exists')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      '\nExample:\n  $ senet-torch convert se_resnet50-ce0d4300.pth legacy_seresnet50.safetensors',
    )
    .action(async (file: string, output: string, options: ConvertCommandOptions) => {
      const { json, overwrite = false, model, ...place } = options;
      const converted = await lazy.convert.convertWeights(file, output, {
        ...place,
        ...(model === undefined ? {} : { model: model as ModelName }),
        overwrite,
        signal: interruptSignal(),
      });
      if (json === true) {
        printJson({ output, ...converted });
        return;
      }
      const labels = converted.labels === null ? 'no labels' : count(converted.labels, 'label');
      printLine(
        `${output}: ${converted.model}, ${count(converted.tensors, 'tensor')}, classes: ${converted.numClasses}, ${labels}`,
      );
    });
}
