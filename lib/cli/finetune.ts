/** `senet-torch finetune`: weights that exist, a new head for other classes. */
import type { Command } from 'commander';

import { lazy } from './lazy';
import { addTrainingOptions, typedOptions } from './training-options';

export function addFinetune(program: Command, interrupted: () => AbortSignal): void {
  const command = program
    .command('finetune')
    .description(
      'Train on from weights that exist, with a new head for the classes of the data. Everything else is as with train.',
    )
    .argument('[data]', 'as with train');
  addTrainingOptions(command, 'finetune')
    .addHelpText(
      'after',
      '\nExamples:\n  $ senet-torch finetune photos --model se_resnet50 --pretrained --freeze backbone\n  $ senet-torch finetune photos --weights training/best.safetensors',
    )
    .action((data: string | undefined) =>
      lazy.training.runTraining(typedOptions(command, 'finetune', data), interrupted()),
    );
}
