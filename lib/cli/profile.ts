/** `senet-torch profile`: the steps of a compiled model with the time of each, as a table, as JSON and as a picture. */
import { InvalidArgumentError, Option, type Command } from 'commander';

import { makeError } from '../errors';
import type { ModelName } from '../models/registry';
import type {
  CompiledDType,
  CompiledModel,
  CompiledPlan,
  CompiledProfile,
  ProfiledStep,
} from '../nn/compiled-model';
import type { Module } from '../nn/module';
import { COMPILED_DTYPES } from '../tensor/dtype';
import { lazy } from './lazy';
import { count, percent, printJson, printLine, printTable } from './output';
import { drawProfile } from './profile-picture';
import { addPlaceOptions, atLeastOne } from './training-options';

interface ProfileCommandOptions {
  weights?: string;
  key?: string;
  prefix?: string;
  inChannels?: number;
  dtype: CompiledDType;
  batch: number;
  size?: [number, number];
  runs: number;
  top?: number;
  threads?: number;
  explain?: boolean;
  json?: boolean;
  svg?: string;
}

export function addProfile(program: Command, interrupted: () => AbortSignal): void {
  const command = program
    .command('profile')
    .description('Compile a model, and print its steps with the time that each takes.')
    .argument(
      '<model>',
      'the model (see `senet-torch models`), hf-hub:REPOSITORY, local-dir:FOLDER or a file of weights',
    )
    .option(
      '-w, --weights <file>',
      'a checkpoint, or the name of published weights; default: weights drawn at random, which take as long',
    );
  addPlaceOptions(command)
    .option(
      '--in-channels <n>',
      "of its images; default: what the weights say, or the model's own",
      atLeastOne,
    )
    .addOption(
      new Option('--dtype <dtype>', 'of weights and activations').choices(COMPILED_DTYPES).default('float32'),
    )
    .option('-b, --batch <n>', 'images that go through the model together', atLeastOne, 1)
    .option('--size <HxW>', 'height and width of an image; default: what the model is made for', parseSize)
    .option('--runs <n>', 'measured runs; each time is the median', atLeastOne, 10)
    .option('--threads <n>', 'threads that work on it; default: all that are granted', atLeastOne)
    .option('--top <n>', 'only the N slowest steps, the slowest first', atLeastOne)
    .option('--explain', 'print the plan, and run nothing')
    .option('--json', 'print JSON')
    .option('--svg <file>', 'write a picture too: a bar for each step')
    .addHelpText(
      'after',
      '\nMMACs are millions of multiply-adds for one image; GFLOP/s counts two operations for each.\n' +
        '\nExamples:\n  $ senet-torch profile se_resnet50\n  $ senet-torch profile se_resnet50 --dtype bfloat16 --batch 8 --top 10 --svg profile.svg\n  $ senet-torch profile se_inception_v3 --explain --json',
    )
    .action((model: string, options: ProfileCommandOptions) => profile(model, options, interrupted()));
}

async function profile(name: string, options: ProfileCommandOptions, signal: AbortSignal): Promise<void> {
  if (options.explain === true && options.svg !== undefined)
    throw makeError('ERR_SENET_ARG_RANGE', '--svg and --explain exclude each other: a picture shows times');
  const { configure } = lazy.runtime;
  if (options.threads !== undefined) configure({ workers: 1, threadsPerWorker: options.threads });
  const source = await makeSource(name, options, signal);
  const compiled = await compileSource(source.eval(), options, signal);
  source.dispose();
  try {
    const plan = compiled.explain(options.size);
    if (options.explain === true) {
      if (options.json === true) printJson(plan);
      else printPlan(name, plan, options.top);
      return;
    }
    const { randn } = lazy.factories;
    const [height, width] = plan.inputSize;
    const channels = plan.steps[0]?.input[0] ?? 3;
    const x = randn([options.batch, channels, height, width]);
    const measured = await compiled.profile(x, { runs: options.runs, signal });
    x.dispose();
    const { threadsPerWorker: threads } = lazy.native.binding.configuration();
    const rates = ratesOf(measured);
    try {
      if (options.svg !== undefined) {
        const { writeAtomically } = lazy.atomicFile;
        const picture = drawProfile(titleOf(name, measured), summaryOf(measured, threads), {
          steps: chooseSteps(measured.steps, options.top, ({ milliseconds }) => milliseconds),
          of: measured,
        });
        await writeAtomically(options.svg, (sink) => sink.write(Buffer.from(picture)));
      }
    } finally {
      // What was measured is not lost with a picture that cannot be written.
      if (options.json === true) printJson({ ...measured, ...rates, threads });
      else printProfile(name, measured, threads, options.top);
    }
  } finally {
    compiled.dispose();
  }
}

/** int8 is calibrated on noise: it takes as long whatever its bytes mean. */
async function compileSource(
  source: Module<unknown>,
  { dtype, size }: ProfileCommandOptions,
  signal: AbortSignal,
): Promise<CompiledModel> {
  if (dtype !== 'int8') return source.compile({ dtype, signal });
  const float32 = await source.compile({ signal });
  const { steps, inputSize } = float32.explain(size);
  float32.dispose();
  const calibration = lazy.factories.randn([1, steps[0]?.input[0] ?? 3, ...inputSize]);
  try {
    return await source.compile({ dtype, calibration, signal });
  } finally {
    calibration.dispose();
  }
}

async function makeSource(
  name: string,
  { weights, inChannels, key, prefix }: ProfileCommandOptions,
  signal: AbortSignal,
): Promise<Module<unknown>> {
  const { allRecords, createModel, parseName } = lazy.models;
  const options = { progress: process.stderr.isTTY, signal, key, prefix };
  const given = inChannels === undefined ? {} : { inChannels };
  const meant = parseName(name, 'profile');
  // Speed is the same whatever the weights: a tag alone needs none.
  if (meant.kind === 'model' && weights === undefined) {
    const { name: model, numClasses } = meant.record;
    return createModel(model as ModelName, { numClasses: numClasses ?? 1000, ...given });
  }
  const { wantedWeights } = lazy.weights;
  const wanted = wantedWeights(meant, { weights }, 'profile');
  return lazy.openWeights.loadModel(allRecords(), wanted, options, 'profile', given);
}

/** What a whole run amounts to. */
function ratesOf({ milliseconds, batch, multiplyAdds }: CompiledProfile): {
  imagesPerSecond: number;
  gigaflopsPerSecond: number;
} {
  return {
    imagesPerSecond: (1000 * batch) / milliseconds,
    gigaflopsPerSecond: gigaflops(multiplyAdds * batch, milliseconds),
  };
}

function gigaflops(multiplyAdds: number, milliseconds: number): number {
  return (2 * multiplyAdds) / milliseconds / 1e6;
}

/** The steps in order, or the first `top` by `weight`. */
function chooseSteps<Step>(
  steps: readonly Step[],
  top: number | undefined,
  weight: (step: Step) => number,
): Step[] {
  if (top === undefined) return [...steps];
  return [...steps].sort((left, right) => weight(right) - weight(left)).slice(0, top);
}

const PLAN_HEADER = ['STEP', 'OPERATION', 'FUSED', 'INPUT', 'OUTPUT', 'WEIGHTS', 'MMACS'];
const PLAN_RIGHT = [5, 6];

function planCells({
  name,
  operation,
  kernel,
  fused,
  input,
  output,
  weightBytes,
  multiplyAdds,
}: CompiledPlan['steps'][number]): string[] {
  return [
    name,
    kernel === undefined ? operation : `${operation} (${kernel})`,
    fused.join(', ') || '-',
    input.join(' x '),
    output.join(' x '),
    bytes(weightBytes),
    multiplyAdds === 0 ? '-' : (multiplyAdds / 1e6).toFixed(3),
  ];
}

function printPlan(name: string, plan: CompiledPlan, top: number | undefined): void {
  printLine(titleOf(name, plan));
  printLine();
  const steps = chooseSteps(plan.steps, top, ({ multiplyAdds }) => multiplyAdds);
  printTable([PLAN_HEADER, ...steps.map(planCells)], PLAN_RIGHT);
  printLine();
  printLine(
    `total: ${count(plan.steps.length, 'step')}, ${bytes(plan.weightBytes)} of weights, ` +
      `${(plan.multiplyAdds / 1e6).toFixed(1)} million multiply-adds an image; ${plan.backend}, ${plan.dtype}`,
  );
}

function printProfile(
  name: string,
  measured: CompiledProfile,
  threads: number,
  top: number | undefined,
): void {
  printLine(titleOf(name, measured));
  printLine();
  const steps = chooseSteps(measured.steps, top, ({ milliseconds }) => milliseconds);
  // Shares of the sum, which differs a little from the median of whole runs.
  const sum = measured.steps.reduce((total, { milliseconds }) => total + milliseconds, 0);
  let passed = 0;
  const timeCells = ({ milliseconds, multiplyAdds }: ProfiledStep): string[] => {
    passed += milliseconds;
    return [
      milliseconds.toFixed(3),
      percent(milliseconds / sum),
      multiplyAdds === 0 || milliseconds === 0
        ? '-'
        : gigaflops(multiplyAdds * measured.batch, milliseconds).toFixed(1),
      percent(passed / sum),
    ];
  };
  printTable(
    [
      [...PLAN_HEADER, 'MS', 'SHARE', 'GFLOP/S', 'CUMULATIVE'],
      ...steps.map((step) => [...planCells(step), ...timeCells(step)]),
    ],
    [...PLAN_RIGHT, 7, 8, 9, 10],
  );
  printLine();
  printLine(`total: ${summaryOf(measured, threads)}`);
}

function titleOf(name: string, { inputSize: [height, width] }: Pick<CompiledPlan, 'inputSize'>): string {
  return `${name}, compiled, at ${height} x ${width}`;
}

function summaryOf(measured: CompiledProfile, threads: number): string {
  const { batch, milliseconds, backend, dtype, runs } = measured;
  const { imagesPerSecond, gigaflopsPerSecond } = ratesOf(measured);
  return (
    `${milliseconds.toFixed(2)} ms a batch of ${batch}, ${imagesPerSecond.toFixed(1)} images/s, ` +
    `${gigaflopsPerSecond.toFixed(1)} GFLOP/s; ${backend}, ${dtype}, ${count(threads, 'thread')}, ` +
    `median of ${count(runs, 'run')}`
  );
}

/** Bytes in a unit that leaves few digits. */
function bytes(number: number): string {
  if (number === 0) return '-';
  for (const [unit, size] of [
    ['MB', 1e6],
    ['kB', 1e3],
  ] as const)
    if (number >= size) return `${(number / size).toFixed(1)} ${unit}`;
  return `${number} B`;
}

/** For commander: "224x192", or one number for both. */
function parseSize(text: string): [number, number] {
  const [, height, width = height] = /^(\d{1,6})(?:x(\d{1,6}))?$/.exec(text) ?? [];
  if (!(Number(height) >= 1 && Number(width) >= 1))
    throw new InvalidArgumentError('Expected HEIGHTxWIDTH, such as 224x224.');
  return [Number(height), Number(width)];
}
