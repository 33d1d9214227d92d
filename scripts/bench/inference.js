#!/usr/bin/env node
'use strict';
// `npm run bench`: how long inference takes, beside PyTorch, torch.compile and onnxruntime-node in the same run.
//
// The same seeded weights and inputs for every engine; outputs are checked against each other. Each engine runs alone
// in a process of its own (idle threads of one engine spin and would slow the next), the processes of one model take
// turns for several rounds, and the machine's own limit is measured in every round. What is not installed is named.
// What is computed from the times, and how it is printed, is inference-report.js's.
const { spawnSync } = require('node:child_process');
const { existsSync, mkdirSync, mkdtempSync, rmSync } = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { parseArgs } = require('node:util');
const { findPython, installOnnxruntime, readFloats, runJson } = require('./peers');
const { summarize, toMarkdown, toTable } = require('./inference-report');

// variance: the range of the BatchNorm statistics, which keeps each network well-conditioned (the parity fixtures').
const MODELS = {
  se_resnet50: { side: 224, batches: [1, 8], variance: [0.5, 1.5] },
  se_inception_v3: { side: 299, batches: [1, 8], variance: [5, 15] },
  se_resnet20: { side: 32, batches: [1, 32], variance: [0.5, 1.5] },
  // timm's, whose Python comes from timm itself.
  ...Object.fromEntries(
    [
      ...['seresnet50', 'seresnext50_32x4d', 'seresnext101_32x8d', 'seresnextaa101d_32x8d', 'seresnet152d'],
      ...['senet154', 'resnetrs50', 'ecaresnet50t', 'legacy_seresnet50', 'legacy_seresnext50_32x4d'],
    ].map((name) => [name, { side: 224, batches: [1, 8], variance: [0.5, 1.5], onRequest: true }]),
  ),
};

// In the order of the table. `slack` is the relative L2 distance from our eager output that is still the same answer;
// without it the distance is only reported.
const FLOAT32 = { dtype: 'float32', slack: 1e-3 };
const BFLOAT16 = { dtype: 'bfloat16' };
const INT8 = { dtype: 'int8' };
const ENGINES = {
  'compiled-float32': { title: 'senet-torch compiled, float32', by: 'senet-torch', ...FLOAT32 },
  'compiled-bfloat16': { title: 'senet-torch compiled, bfloat16', by: 'senet-torch', ...BFLOAT16 },
  'compiled-int8': { title: 'senet-torch compiled, int8', by: 'senet-torch', ...INT8 },
  'compiled-int8-vnni': {
    title: 'senet-torch compiled, int8, without AMX',
    by: 'senet-torch',
    ...INT8,
    environment: { SENET_COMPILE_KERNELS: 'avx512_vnni' },
    onRequest: true,
  },
  eager: { title: 'senet-torch eager', by: 'senet-torch', ...FLOAT32 },
  'eager-channels-last': { title: 'senet-torch eager, channels-last', by: 'senet-torch', ...FLOAT32 },
  'eager-no-cache': {
    title: 'senet-torch eager, no caching allocator',
    by: 'senet-torch',
    ...FLOAT32,
    environment: { SENET_CACHING_ALLOCATOR: '0' },
    onRequest: true,
  },
  onnxruntime: { title: 'onnxruntime-node', by: 'onnxruntime', ...FLOAT32 },
  'onnxruntime-int8': { title: 'onnxruntime-node, int8 (static, QDQ)', by: 'onnxruntime', ...INT8 },
  pytorch: { title: 'PyTorch eager', by: 'pytorch', ...FLOAT32 },
  'pytorch-channels-last': { title: 'PyTorch eager, channels-last', by: 'pytorch', ...FLOAT32 },
  'pytorch-bfloat16': { title: 'PyTorch eager, channels-last, bfloat16', by: 'pytorch', ...BFLOAT16 },
  inductor: { title: 'torch.compile, freezing', by: 'pytorch', ...FLOAT32 },
  'inductor-bfloat16': { title: 'torch.compile, freezing, bfloat16', by: 'pytorch', ...BFLOAT16 },
};

// What `--amx` asks for: everything that the goals for processors with AMX compare, in less than ten minutes.
const AMX = {
  engines: [
    ...['compiled-float32', 'compiled-bfloat16', 'compiled-int8', 'compiled-int8-vnni'],
    ...['onnxruntime', 'onnxruntime-int8', 'inductor-bfloat16'],
  ],
  rounds: 3,
  seconds: 0.5,
};

const HELP = `usage: npm run bench -- [options]

  --models NAMES     of ${Object.keys(MODELS).join(', ')}
                     (default: the first three; the others need a Python with timm)
  --engines NAMES    of ${Object.keys(ENGINES).join(', ')}
                     (default: all but ${Object.keys(ENGINES)
                       .filter((name) => ENGINES[name].onRequest)
                       .join(', ')})
  --rounds N         default 5
  --seconds N        that each engine is measured for, for each batch of each model in each round; default 1
  --quick            2 rounds of 0.3 seconds
  --amx              what the goals for processors with AMX compare: ${AMX.engines.length} engines, ${AMX.rounds} rounds of ${AMX.seconds} seconds
  --threads N        of each engine; default: the processors of this machine
  --python PATH      a Python with torch, onnx and onnxscript (or SENET_BENCH_PYTHON; default: python3)
  --folder PATH      keeps weights, exports and compiled code there, and takes them from there the next time
  --json, --markdown other forms of the table

Names are separated by commas. Progress goes to stderr.`;

const ENGINE_FOLDER = path.join(__dirname, 'engines');
const SCRIPTS = Object.fromEntries(
  ['senet-torch.js', 'onnxruntime.js', 'pytorch.py'].map((file) => [
    path.parse(file).name,
    path.join(ENGINE_FOLDER, file),
  ]),
);
// For estimates before the first round is over: what a process costs beside the time that it measures.
const START_SECONDS = { 'senet-torch': 1.5, onnxruntime: 1.5, pytorch: 5 };

class UsageError extends Error {}

function parseOptions() {
  let values;
  try {
    ({ values } = parseArgs({
      options: {
        models: { type: 'string' },
        engines: { type: 'string' },
        rounds: { type: 'string' },
        seconds: { type: 'string' },
        quick: { type: 'boolean', default: false },
        amx: { type: 'boolean', default: false },
        threads: { type: 'string' },
        python: { type: 'string' },
        folder: { type: 'string' },
        json: { type: 'boolean', default: false },
        markdown: { type: 'boolean', default: false },
        help: { type: 'boolean', short: 'h', default: false },
      },
    }));
  } catch (error) {
    throw new UsageError(error.message);
  }
  const number = (name, otherwise, least) => {
    const value = values[name] === undefined ? otherwise : Number(values[name]);
    if (!(value >= least)) throw new UsageError(`--${name}: expected a number, got '${values[name]}'`);
    return value;
  };
  const names = (option, known, otherwise) => {
    if (values[option] === undefined) return otherwise;
    const wanted = values[option].split(',').map((name) => name.trim());
    const unknown = wanted.find((name) => !Object.hasOwn(known, name));
    if (unknown !== undefined)
      throw new UsageError(`--${option}: '${unknown}' is none of ${Object.keys(known).join(', ')}`);
    return Object.keys(known).filter((name) => wanted.includes(name));
  };
  return {
    ...values,
    models: names(
      'models',
      MODELS,
      Object.keys(MODELS).filter((name) => !MODELS[name].onRequest),
    ),
    engines: names(
      'engines',
      ENGINES,
      Object.keys(ENGINES).filter((name) =>
        values.amx ? AMX.engines.includes(name) : !ENGINES[name].onRequest,
      ),
    ),
    rounds: Math.round(number('rounds', values.quick ? 2 : values.amx ? AMX.rounds : 5, 1)),
    seconds: number('seconds', values.quick ? 0.3 : values.amx ? AMX.seconds : 1, 0),
    threads: Math.round(number('threads', os.availableParallelism(), 1)),
  };
}

const progress = {
  /** Says what is going on: over the same line on a terminal. */
  show(text) {
    if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`);
  },
  /** A line that stays. */
  note(text) {
    process.stderr.write(process.stderr.isTTY ? `\r\x1b[K${text}\n` : `${text}\n`);
  },
  clear() {
    if (process.stderr.isTTY) process.stderr.write('\r\x1b[K');
  },
};

/** What an engine's process is told: everything but the engine's name, which `measure` adds. */
function makeJob(model, folder, options) {
  const { side, batches, variance } = MODELS[model];
  const own = path.join(folder, model);
  mkdirSync(own, { recursive: true });
  return {
    model,
    side,
    variance,
    threads: options.threads,
    seconds: options.seconds,
    warmUpSeconds: options.seconds / 4,
    leastRuns: 3,
    weights: path.join(own, 'weights.pt'),
    batches: batches.map((size) => ({
      size,
      input: path.join(own, `input-${size}.f32`),
      reference: path.join(own, `reference-${size}.f32`),
      output: path.join(own, `output-${size}.f32`),
      onnx: path.join(own, `batch-${size}.onnx`),
      onnxInt8: path.join(own, `batch-${size}.int8.onnx`),
    })),
  };
}

/** Runs one of the engines' scripts in a process of its own. */
function runScript(by, command, job, { python, folder }, environment = {}) {
  const args = [SCRIPTS[by], command, ...(job === null ? [] : [JSON.stringify(job)])];
  if (by !== 'pytorch') return runJson(process.execPath, args, environment);
  return runJson(python, args, {
    PYTHONDONTWRITEBYTECODE: '1',
    TORCHINDUCTOR_CACHE_DIR: path.join(folder, 'inductor'),
    ...environment,
  });
}

/** Compiles peak.cpp with the machine's C++ compiler; gives a function that measures, or null and why. */
function buildPeak(folder, threads) {
  const program = path.join(folder, 'peak');
  const compiler = process.env.CXX ?? 'c++';
  const source = path.join(__dirname, 'peak.cpp');
  const flags = ['-std=c++17', '-O3', '-march=native', '-pthread'];
  const built = spawnSync(compiler, [...flags, source, '-o', program], { encoding: 'utf8' });
  if (built.status !== 0) return { measure: null, why: `${compiler} does not compile peak.cpp` };
  return { measure: () => runJson(program, [String(threads)]) };
}

/** Relative L2 distance. */
function distance(values, reference) {
  if (values.length !== reference.length) return Infinity;
  let [difference, norm] = [0, 0];
  for (let i = 0; i < values.length; i++) {
    difference += (values[i] - reference[i]) ** 2;
    norm += reference[i] ** 2;
  }
  return Math.sqrt(difference / norm);
}

/** Weights, inputs, exports; gives each model's job, versions, and for each engine why it is absent. */
function prepare(options, context) {
  const absent = {};
  const versions = { node: process.versions.node };
  const exclude = (by, reason) => {
    for (const name of options.engines) if (ENGINES[name].by === by) absent[name] ??= reason;
  };
  const needs = (by) => options.engines.some((name) => ENGINES[name].by === by);

  const torch = findPython(options.python);
  context.python = torch?.python;
  let probed = null;
  if (torch === null) {
    const reason =
      'no Python with torch; type: pip install torch, and name that Python with --python or SENET_BENCH_PYTHON';
    exclude('pytorch', reason);
  } else {
    probed = runScript('pytorch', 'probe', null, context);
    versions.pytorch = probed.torch;
  }
  if (needs('onnxruntime')) {
    const onnxruntime = installOnnxruntime(progress);
    if (onnxruntime.absent) exclude('onnxruntime', onnxruntime.absent);
    versions.onnxruntime = onnxruntime.version;
  }

  const quantize = (job) => {
    if (probed === null || probed.quantize !== null) {
      absent['onnxruntime-int8'] =
        `no int8 ONNX file without ${probed === null ? 'torch' : probed.quantize} in Python; type: pip install onnx onnxruntime`;
      return;
    }
    progress.show(`${job.model}: quantising the ONNX files ...`);
    try {
      runScript('pytorch', 'quantize', job, context);
    } catch (error) {
      if (error.interrupted) throw error;
      absent['onnxruntime-int8'] = `onnxruntime did not quantise: ${error.reason}`;
    }
  };
  const jobs = options.models.map((model) => {
    const job = makeJob(model, context.folder, options);
    progress.show(`${model}: making weights and inputs ...`);
    const made = runScript('senet-torch', 'prepare', job, context);
    versions.senetTorch = made.versions;
    job.multiplyAdds = made.multiplyAdds;
    if (probed !== null) job.multiplyAdds = runScript('pytorch', 'count', job, context).multiplyAdds;
    if (needs('onnxruntime') && !absent.onnxruntime && !job.batches.every(({ onnx }) => existsSync(onnx))) {
      const missing = probed === null ? 'torch, onnx and onnxscript' : probed.export;
      if (missing !== null) {
        const reason = `no ONNX file without ${missing} in Python; type: pip install torch onnx onnxscript`;
        exclude('onnxruntime', reason);
      } else {
        progress.show(`${model}: exporting to ONNX ...`);
        try {
          runScript('pytorch', 'export', job, context);
        } catch (error) {
          if (error.interrupted) throw error;
          exclude('onnxruntime', `the export to ONNX failed: ${error.reason}`);
        }
      }
    }
    if (options.engines.includes('onnxruntime-int8') && !absent['onnxruntime-int8']) {
      if (!job.batches.every(({ onnxInt8 }) => existsSync(onnxInt8))) quantize(job);
    }
    return job;
  });
  return { jobs, versions, absent };
}

/** One engine on one model in a process of its own; each batch's time with its distance from the reference. */
function measure(name, job, context) {
  const { by, environment } = ENGINES[name];
  const answer = runScript(by, 'measure', { ...job, engine: name }, context, environment);
  if (answer.absent !== undefined) return answer;
  answer.batches.forEach((result, index) => {
    const { output, reference } = job.batches[index];
    result.distance = distance(readFloats(output), readFloats(reference));
  });
  return answer;
}

/** Outputs that are not the reference's; written so that NaN is one. */
function findMismatches(name, job, batches) {
  const { title, slack = Infinity } = ENGINES[name];
  return batches
    .filter((result) => !(result.distance <= slack))
    .map(
      (result) =>
        `${title} gives another output on ${job.model}, batch ${result.size}: relative L2 distance ${result.distance.toExponential(1)}, more than ${slack}`,
    );
}

/** The share of all processors' time that other programs take, watched for half a second in which we do nothing. */
function watchOthers() {
  const read = () => {
    const times = os.cpus().map((cpu) => cpu.times);
    const idle = times.reduce((sum, time) => sum + time.idle, 0);
    return {
      idle,
      all: times.reduce((sum, { user, nice, sys, idle, irq }) => sum + user + nice + sys + idle + irq, 0),
    };
  };
  const before = read();
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500);
  const after = read();
  return 1 - (after.idle - before.idle) / Math.max(1, after.all - before.all);
}

function estimateMinutes(options, jobs, absent) {
  let seconds = 0;
  for (const name of options.engines) {
    if (absent[name]) continue;
    const each = START_SECONDS[ENGINES[name].by] + 2 * 1.5 * options.seconds;
    const compiling = name.startsWith('inductor') ? 40 : 0;
    seconds += jobs.length * (options.rounds * each + compiling);
  }
  return Math.max(1, Math.ceil(seconds / 60));
}

/** All rounds; results[model][engine] is a list with one entry for each round. */
function measureRounds(options, jobs, absent, peak, context) {
  const results = Object.fromEntries(
    jobs.map((job) => [job.model, Object.fromEntries(options.engines.map((name) => [name, []]))]),
  );
  const failures = [];
  const peaks = [];
  const busy = [];
  for (let round = 1; round <= options.rounds; round++) {
    busy.push(watchOthers());
    if (peak.measure !== null) peaks.push(peak.measure());
    for (const job of jobs) {
      const started = Date.now();
      for (const name of options.engines) {
        const known = results[job.model][name];
        if (absent[name] || known.failed) continue;
        progress.show(`round ${round} of ${options.rounds}, ${job.model}: ${ENGINES[name].title} ...`);
        try {
          const answer = measure(name, job, context);
          if (answer.absent !== undefined) absent[name] = answer.absent;
          else {
            known.push(answer.batches);
            known.instructions = answer.instructions ?? null;
          }
          if (round === 1) failures.push(...findMismatches(name, job, answer.batches ?? []));
        } catch (error) {
          if (error.interrupted) throw error;
          known.failed = true;
          failures.push(`${ENGINES[name].title} failed on ${job.model}: ${error.reason ?? error.message}`);
          progress.note(failures.at(-1));
        }
      }
      const seconds = Math.round((Date.now() - started) / 1000);
      progress.note(`round ${round} of ${options.rounds}, ${job.model}: ${seconds} s`);
    }
  }
  return { results, failures, peaks, busy };
}

function benchmark(options) {
  const temporary = options.folder === undefined;
  const folder = temporary
    ? mkdtempSync(path.join(os.tmpdir(), 'senet-bench-'))
    : path.resolve(options.folder);
  mkdirSync(folder, { recursive: true });
  // The engine that runs gets the signal too, and its end is then ours: the folder must not stay behind.
  process.once('SIGINT', () => undefined);
  const context = { folder, python: undefined };
  try {
    const { jobs, versions, absent } = prepare(options, context);
    const peak = buildPeak(folder, options.threads);
    progress.note(
      `measuring takes about ${estimateMinutes(options, jobs, absent)} min; the machine must have nothing else to do`,
    );
    const measured = measureRounds(options, jobs, absent, peak, context);
    progress.clear();
    return summarize({
      ...measured,
      options,
      jobs,
      versions,
      absent,
      peakAbsent: peak.why,
      engines: ENGINES,
    });
  } finally {
    if (temporary) rmSync(folder, { recursive: true, force: true });
  }
}

function main() {
  const options = parseOptions();
  if (options.help) {
    console.log(HELP);
    return;
  }
  const summary = benchmark(options);
  if (options.json) console.log(JSON.stringify(summary, null, 2));
  else console.log(options.markdown ? toMarkdown(summary) : toTable(summary));
  if (summary.failures.length > 0) process.exitCode = 1;
}

try {
  main();
} catch (error) {
  progress.clear();
  if (error instanceof UsageError) console.error(`${error.message} (--help lists the options)`);
  else console.error(error.interrupted ? 'interrupted' : (error.reason ?? error.message));
  process.exitCode = error.interrupted ? 130 : 1;
}
