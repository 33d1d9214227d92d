/** `senet-torch train`: a network from a folder of images or a data set. */
import type { Command } from 'commander';

import { lazy } from './lazy';
import { addTrainingOptions, typedOptions } from './training-options';

export function addTrain(program: Command, interrupted: () => AbortSignal): void {
  const command = program
    .command('train')
    .description(
      'Train a network: weights, a log, and a report to open in a browser. Ctrl-C saves; --resume goes on from there, with the same result as without the interruption.',
    )
    .argument(
      '[data]',
      'a folder with a folder of images for each class (or with train and val), IDX files, or CIFAR-10 or -100 (folder or archive)',
    );
  addTrainingOptions(command, 'train')
    .addHelpText(
      'after',
      '\nExamples:\n  $ senet-torch train photos --model se_resnet18 --epochs 30\n  $ senet-torch train /usr/share/datasets/fashion-mnist --reduction 4 --output fashion\n  $ senet-torch train --resume fashion/checkpoint.pt',
    )
    .action((data: string | undefined) =>
      lazy.training.runTraining(typedOptions(command, 'train', data), interrupted()),
    );
}
