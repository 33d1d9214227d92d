#!/usr/bin/env node
/**
 * The command line. Each command is a file of this folder and loads what is native only when it runs, so that help,
 * `setup`, `doctor` and `inspect` work without a build.
 */
import { Command, CommanderError } from 'commander';

import { fileError } from '../errors';
import { packageVersion } from '../package-root';
import { addClassify } from './classify';
import { addConvert } from './convert';
import { addEvaluate } from './evaluate';
import { addExcitations } from './excitations';
import { addExplain } from './explain';
import { addExport } from './export';
import { addFinetune } from './finetune';
import { addInspect } from './inspect';
import { addModels } from './models';
import { EXIT_FAILURE, EXIT_USAGE, exitCodeOf, interruptSignal, printError, printNote } from './output';
import { addProfile } from './profile';
import { addQuantize } from './quantize';
import { addScripts } from './scripts';
import { addServe } from './serve';
import { addTrain } from './train';
import { addEnqueue, addWorker } from './worker';

/** For those who start this in their own process: what may stand first. */
export const COMMANDS: readonly string[] = [
  'classify',
  'evaluate',
  'serve',
  'explain',
  'excitations',
  'train',
  'finetune',
  'models',
  'profile',
  'worker',
  'enqueue',
  'doctor',
  'setup',
  'inspect',
  'convert',
  'quantize',
  'export',
  'help',
];

/** Runs a command and sets the exit code of the process. */
export async function main(args: readonly string[]): Promise<void> {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    // The reader of a pipe may leave (`| head`): that is no failure of ours. A disk that is full is one.
    if (error.code === 'EPIPE') process.exit(0);
    printError(fileError('standard output', error));
    process.exit(EXIT_FAILURE);
  });
  // What is said beside the result may have no reader any more: the work has.
  process.stderr.on('error', () => undefined);
  const program = new Command('senet-torch')
    .description('Squeeze-and-Excitation networks on LibTorch.')
    .version(packageVersion())
    .enablePositionalOptions()
    .exitOverride()
    .configureOutput({ outputError: (text) => printNote(...text.trimEnd().split('\n')) })
    .addHelpText(
      'after',
      '\nExamples:\n  $ senet-torch setup\n  $ senet-torch classify photo.jpg --model se_resnet50 --pretrained\n\nExit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted. SENET_DEBUG=1 prints stacks.',
    );
  addClassify(program, interruptSignal);
  addEvaluate(program, interruptSignal);
  addServe(program, interruptSignal);
  addExplain(program, interruptSignal);
  addExcitations(program, interruptSignal);
  addTrain(program, interruptSignal);
  addFinetune(program, interruptSignal);
  addModels(program, interruptSignal);
  addProfile(program, interruptSignal);
  addWorker(program, interruptSignal);
  addEnqueue(program, interruptSignal);
  addInspect(program, interruptSignal);
  addConvert(program, interruptSignal);
  addQuantize(program, interruptSignal);
  addExport(program, interruptSignal);
  addScripts(program);
  let running: Command = program;
  program.hook('preAction', (_, command) => void (running = command));
  try {
    await program.parseAsync(args, { from: 'user' });
  } catch (error) {
    if (error instanceof CommanderError) {
      // Commander has printed it already.
      process.exitCode = error.exitCode === 0 ? 0 : EXIT_USAGE;
      return;
    }
    const own = running.options.map((option) => ({ name: option.attributeName(), flag: option.long ?? '' }));
    printError(error, own);
    process.exitCode = exitCodeOf(error);
  }
}

if (require.main === module) void main(process.argv.slice(2));
