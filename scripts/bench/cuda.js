#!/usr/bin/env node
'use strict';
// `npm run bench:cuda`: compiled models on a GPU, beside PyTorch on the same GPU (a CUDA graph of eager, and
// torch.compile) in the same run; how far their numbers are from float64; how long the first answer takes; and where
// the time of one network goes. `--full` also: every peer, from pixels on the host to logits there, training steps, and
// the kernels without Node and LibTorch (cuda-runner/).
//
// Every engine runs alone in a process of its own. `ms` is of a batch with several in flight, `answer` of one that is
// waited for and read. Times are of images that are on the device already; `pixels` are uint8 on the host, as a
// classifier has them.
const { spawnSync } = require('node:child_process');
const { mkdtempSync, rmSync } = require('node:fs');
const { tmpdir } = require('node:os');
const path = require('node:path');
const { monitorEventLoopDelay } = require('node:perf_hooks');
const { parseArgs } = require('node:util');
const { findPython, median, runJson } = require('./peers');

const JOBS = {
  // variance: of the BatchNorm statistics, which keeps each network's numbers within float16.
  se_resnet50: { side: 224, batches: [1, 8, 32, 128], variance: 1 },
  se_resnet20: { side: 32, batches: [1, 128, 1024], variance: 1 },
  se_inception_v3: { side: 299, batches: [1, 32, 128], variance: 10 },
};
const OURS = ['float16', 'bfloat16', 'float32-tf32', 'float32'];
const PEERS = ['graph-float16', 'compile-float16', 'autotune-float16', 'eager-tf32', 'compile-tf32'];
const USUAL_PEERS = 'graph-float16,compile-float16';
const TRAINING = {
  se_resnet50: { side: 224, size: 128 },
  se_resnet20: { side: 32, size: 128 },
};
const TRAINING_OURS = ['float16', 'bfloat16', 'float32'];
const TRAINING_PEERS = ['eager-float16', 'compile-float16', 'eager-bfloat16', 'eager-float32'];

const HELP = `usage: npm run bench:cuda -- [options]

  --models NAMES     of ${Object.keys(JOBS).join(', ')} (default: all)
  --ours NAMES       of ${OURS.join(', ')} (default: all)
  --peers NAMES      of ${PEERS.join(', ')} (default: ${USUAL_PEERS}; compiling takes 15 to 30 seconds
                     for each batch), or none
  --full             every peer, pixels from the host, training steps and the runner too: about fifteen minutes, most of
                     them torch.compile's
  --pixels           also from uint8 pixels on the host to logits there, images a second
  --training         also training steps of ${Object.keys(TRAINING).join(' and ')} at batch 128
  --batches NUMBERS  in place of the usual ones
  --seconds N        that each batch is measured for; default 0.4
  --steps            also the time of each step of the first model in float16, and its share
  --python PATH      a Python with a torch that sees the GPU (default: SENET_BENCH_PYTHON, or python3)
  --json             lines of JSON

Progress goes to stderr.`;

const { values: options } = parseArgs({
  options: {
    models: { type: 'string', default: Object.keys(JOBS).join() },
    ours: { type: 'string', default: OURS.join() },
    peers: { type: 'string' },
    full: { type: 'boolean', default: false },
    pixels: { type: 'boolean', default: false },
    training: { type: 'boolean', default: false },
    batches: { type: 'string' },
    seconds: { type: 'string', default: '0.4' },
    steps: { type: 'boolean', default: false },
    python: { type: 'string' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
    measure: { type: 'string' }, // internal: a job in this process
  },
});

const IN_FLIGHT = 8;

async function measureOurs({ model: name, engine, side, batches, variance, seconds, steps, pixels }) {
  const senet = require('../..');
  const [dtype, tf32] = engine.split('-');
  senet.manualSeed(0);
  const model = senet.createModel(name, { numClasses: 1000 }).eval();
  for (const [key, tensor] of model.stateDict()) {
    if (key.endsWith('running_var'))
      senet.noGrad(() => tensor.copy_(senet.rand(tensor.shape).add(0.5).mul(variance)));
  }
  model.to('cuda');
  const started = performance.now();
  const compiled = await model.compile({ dtype, allowTF32: tf32 !== undefined });
  const compileMs = performance.now() - started;
  const results = [];
  let first;
  for (const size of batches) {
    senet.manualSeed(1);
    const x = senet.randn([size, 3, side, side]).to('cuda');
    const begin = performance.now();
    const y = await compiled.forward(x);
    y.toTypedArray();
    first ??= performance.now() - begin;
    const firstMs = performance.now() - begin;
    const answers = [];
    for (const until = performance.now() + 500 * seconds; performance.now() < until || answers.length < 5;) {
      const start = performance.now();
      const output = await compiled.forward(x);
      output.toTypedArray();
      answers.push(performance.now() - start);
      output.dispose();
    }
    let runs = 0;
    const start = performance.now();
    const flying = [];
    let last;
    while (performance.now() - start < 1000 * seconds || runs < 16) {
      flying.push(compiled.forward(x));
      runs++;
      if (flying.length >= IN_FLIGHT) {
        last?.dispose();
        last = await flying.shift();
      }
    }
    for (const output of await Promise.all(flying)) {
      last?.dispose();
      last = output;
    }
    last.toTypedArray();
    const ms = (performance.now() - start) / runs;
    results.push({
      size,
      ms,
      answer: median(answers),
      firstMs,
      ...(pixels ? await pixelRate(senet, compiled, side, size, seconds) : {}),
      ...(await distances(senet, model, name, dtype, x, y)),
    });
    x.dispose();
  }
  const plan = compiled.explain([side, side]);
  const profile = steps ? await profileOf(senet, compiled, side, batches.at(-1)) : undefined;
  return { backend: plan.backend, compileMs, batches: results, profile };
}

// From uint8 pixels on the host, channels-last as decoders give them, to logits there: images a second, and how late the
// event loop was meanwhile.
async function pixelRate(senet, compiled, side, size, seconds) {
  const x = senet.rand([size, side, side, 3]).mul(255).to('uint8').permute([0, 3, 1, 2]);
  const options = { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };
  const delay = monitorEventLoopDelay({ resolution: 1 });
  const flying = [];
  for (let i = 0; i < IN_FLIGHT; i++) flying.push(compiled.forwardPixels(x, options));
  for (const logits of await Promise.all(flying)) logits.dispose();
  delay.enable();
  let runs = 0;
  const start = performance.now();
  const caller = async () => {
    while (performance.now() - start < 1000 * seconds) {
      (await compiled.forwardPixels(x, options)).dispose();
      runs++;
    }
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, caller));
  const rate = (1000 * runs * size) / (performance.now() - start);
  delay.disable();
  x.dispose();
  return { pixelRate: rate, delayP99: delay.percentile(99) / 1e6 };
}

// Of this output and of eager's in the same dtype to float64, relative in the L2 norm; of the first images.
async function distances(senet, model, name, dtype, x, y) {
  const images = Math.min(x.shape[0], 8);
  const part = x.slice(0, 0, images);
  const run = async (target, input) => {
    const copy = senet.createModel(name, { numClasses: 1000, initWeights: false }).eval();
    copy.loadStateDict(model.stateDict());
    copy.to(target);
    const output = (await copy.forward(input)).to('float64').to('cpu').toTypedArray();
    copy.dispose();
    return output;
  };
  const exact = await run({ device: 'cuda', dtype: 'float64' }, part.to('float64'));
  const eager = await run({ device: 'cuda', dtype, memoryFormat: 'channels_last' }, part.to(dtype));
  const ours = y.slice(0, 0, images).to('float64').to('cpu').toTypedArray();
  const distance = (values) => {
    let difference = 0;
    let norm = 0;
    for (let i = 0; i < exact.length; i++) {
      difference += (values[i] - exact[i]) ** 2;
      norm += exact[i] ** 2;
    }
    return Math.sqrt(difference / norm);
  };
  return { error: distance(ours), eagerError: distance(eager) };
}

async function profileOf(senet, compiled, side, size) {
  const x = senet.randn([size, 3, side, side]).to('cuda');
  const { milliseconds, steps } = await compiled.profile(x, { runs: 20 });
  return { size, milliseconds, steps };
}

function report(title, job, result) {
  if (options.json) {
    console.log(JSON.stringify({ title, ...job, ...result }));
    return;
  }
  for (const batch of result.batches) {
    const columns = [
      job.model.padEnd(16),
      title.padEnd(28),
      `b${batch.size}`.padStart(6),
      `${batch.ms.toFixed(3)} ms`.padStart(12),
      `${Math.round((1000 * batch.size) / batch.ms)} images/s`.padStart(18),
      `answer ${batch.answer.toFixed(3)}`.padStart(16),
      `first ${(batch.firstMs / 1000).toFixed(2)} s`.padStart(14),
    ];
    if (batch.pixelRate !== undefined) {
      columns.push(
        `  pixels ${Math.round(batch.pixelRate)} images/s, event loop p99 ${batch.delayP99.toFixed(1)} ms`,
      );
    }
    if (batch.error !== undefined) {
      columns.push(`  error ${batch.error.toExponential(1)}, eager's ${batch.eagerError.toExponential(1)}`);
    }
    console.log(columns.join(' '));
  }
  if (result.profile) printProfile(result.profile);
}

function trainAll(python, folder) {
  for (const [model, { side, size }] of Object.entries(TRAINING)) {
    const job = { model, side, size, seconds: 3 };
    const attempt = (title, run) => {
      console.error(`${model}: ${title}`);
      const head = `${model.padEnd(16)} ${title.padEnd(34)} b${size}`;
      try {
        const { ms, loss, memory } = run();
        if (options.json) console.log(JSON.stringify({ title, ...job, ms, loss, memory }));
        else
          console.log(
            `${head} ${ms.toFixed(2).padStart(8)} ms a step  loss ${loss.map((value) => value.toFixed(3)).join(' to ')}  ` +
              `${(memory / 2 ** 30).toFixed(1)} GiB`,
          );
      } catch (error) {
        console.log(`${head} failed: ${error.reason ?? error.message}`);
      }
    };
    const engine = (name) => path.join(__dirname, 'engines', name);
    for (const dtype of TRAINING_OURS) {
      const text = JSON.stringify({ ...job, engine: dtype });
      attempt(`training ${dtype}`, () => runJson(process.execPath, [engine('cuda-training.js'), text]));
    }
    for (const peer of python === null ? [] : TRAINING_PEERS) {
      const text = JSON.stringify({ ...job, engine: peer });
      attempt(`training PyTorch ${peer}`, () =>
        runJson(python.python, [engine('pytorch_cuda_training.py'), text], {
          TORCHINDUCTOR_CACHE_DIR: path.join(folder, 'inductor'),
        }),
      );
    }
  }
}

function printProfile({ size, milliseconds, steps }) {
  const sum = steps.reduce((all, step) => all + step.milliseconds, 0);
  console.log(
    `\nsteps at b${size}: ${sum.toFixed(3)} ms one by one, ${milliseconds.toFixed(3)} ms a profiled run`,
  );
  for (const step of steps) {
    const bytes = size * step.activationBytes + step.weightBytes;
    const operations = 2 * size * step.multiplyAdds;
    console.log(
      [
        step.milliseconds.toFixed(4).padStart(9),
        `${((100 * step.milliseconds) / sum).toFixed(1)} %`.padStart(7),
        `${(bytes / step.milliseconds / 1e9).toFixed(2)} TB/s`.padStart(10),
        `${(operations / step.milliseconds / 1e9).toFixed(0)} TFLOP/s`.padStart(13),
        ` ${step.operation} ${step.name} [${step.input}] -> [${step.output}] ${step.fused.join(', ')} (${step.kernel})`,
      ].join(' '),
    );
  }
}

function main() {
  if (options.help) {
    console.log(HELP);
    return;
  }
  const names = (text) => text.split(',').filter((name) => name !== '' && name !== 'none');
  const peers = names(options.peers ?? (options.full ? PEERS.join() : USUAL_PEERS));
  const python = peers.length > 0 ? findPython(options.python) : null;
  if (peers.length > 0 && python === null) {
    console.error('PyTorch is not there: give a Python that has it by --python, or --peers none');
  }
  const folder = mkdtempSync(path.join(tmpdir(), 'senet-bench-cuda-'));
  try {
    for (const model of names(options.models)) {
      const batches = options.batches ? names(options.batches).map(Number) : JOBS[model].batches;
      const { side, variance } = JOBS[model];
      const pixels = options.pixels || options.full;
      const job = { model, side, variance, batches, pixels, seconds: Number(options.seconds) };
      const attempt = (title, run) => {
        console.error(`${model}: ${title}`);
        try {
          report(title, job, run());
        } catch (error) {
          console.log(`${model.padEnd(16)} ${title.padEnd(28)} failed: ${error.reason ?? error.message}`);
        }
      };
      for (const engine of names(options.ours)) {
        const steps = options.steps && model === names(options.models)[0] && engine === 'float16';
        attempt(`compiled ${engine}`, () =>
          runJson(process.execPath, [__filename, '--measure', JSON.stringify({ ...job, engine, steps })]),
        );
      }
      for (const engine of python === null ? [] : peers) {
        attempt(`PyTorch ${engine}`, () =>
          runJson(
            python.python,
            [path.join(__dirname, 'engines', 'pytorch_cuda.py'), JSON.stringify({ ...job, engine })],
            {
              TORCHINDUCTOR_CACHE_DIR: path.join(folder, 'inductor'),
            },
          ),
        );
      }
    }
    if (options.training || options.full) trainAll(python, folder);
    if (options.full) {
      console.log('');
      const { build, PROGRAM } = require('./cuda-runner');
      const { binding } = require('../../dist/native');
      if (build()) spawnSync(PROGRAM, [binding.libtorchConfig().folder], { stdio: 'inherit' });
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

if (options.measure) {
  measureOurs(JSON.parse(options.measure)).then((result) => console.log(JSON.stringify(result)));
} else {
  main();
}
