/**
 * `senet-torch setup` and `senet-torch doctor`: hand over to the scripts, which are plain Node and work before there is
 * a native build.
 */
import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import path from 'node:path';

import type { Command } from 'commander';

import { PACKAGE_ROOT } from '../package-root';
import { EXIT_FAILURE } from './output';

const SCRIPTS = path.join(PACKAGE_ROOT, 'scripts', 'setup');

export function addScripts(program: Command): void {
  addScript(
    program,
    'setup',
    'Get LibTorch and build the native part. Each step is skipped when it is done.',
    '--from wheel',
  );
  addScript(
    program,
    'doctor',
    'Print what was found on this machine: LibTorch, CUDA, threads, compiler.',
    '--json',
  );
}

function addScript(program: Command, name: 'setup' | 'doctor', description: string, example: string): void {
  program
    .command(name)
    .description(description)
    .argument('[args...]', 'see --help')
    // The script has its own options, its --help among them.
    .helpOption(false)
    .allowUnknownOption()
    .passThroughOptions()
    .addHelpText('after', `\nExample:\n  $ senet-torch ${name} ${example}`)
    .action((args: string[]) => runScript(path.join(SCRIPTS, `${name}.js`), args));
}

function runScript(script: string, args: readonly string[]): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [script, ...args], { stdio: 'inherit' });
    // The terminal sends Ctrl-C to both; the child's end decides.
    process.on('SIGINT', () => undefined);
    child.on('error', reject);
    child.on('exit', (code, signal) => {
      process.exitCode = code ?? (signal === null ? EXIT_FAILURE : 128 + constants.signals[signal]);
      resolve();
    });
  });
}
