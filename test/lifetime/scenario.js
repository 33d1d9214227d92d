'use strict';
// One way for a process to end while jobs run: `node scenario.js MODE`. exit.test.ts looks at how it ended. Runs on dist,
// since loading TypeScript would take longer than the scenario.
const { isMainThread, parentPort, Worker, workerData } = require('node:worker_threads');
const { classActivationMap, excitations, memory, randn, se_resnet18, se_resnet50 } = require('../../dist');

const device = process.env.SENET_TEST_DEVICE ?? 'cpu';

/** Three forwards: one runs, two are queued. */
function startJobs() {
  const model = se_resnet50({ numClasses: 10, initWeights: false }).to(device);
  const x = randn([2, 3, 64, 64], { device });
  return [model.forward(x), model.forward(x), model.forward(x)];
}

/** Compiled forwards, a profile and one more compile: one runs, the others are queued. */
async function startCompiledJobs() {
  const model = se_resnet18({ numClasses: 10, initWeights: false }).to(device);
  const compiled = await model.compile();
  const x = randn([8, 3, 224, 224], { device });
  return [compiled.forward(x), compiled.forward(x), compiled.profile(x), model.compile()];
}

/** Forwards whose parts are looked at, and gradients of them. */
function startExplaining() {
  const model = se_resnet18({ numClasses: 10 }).to(device);
  const x = randn([2, 3, 64, 64], { device });
  const maps = ['gradcam', 'scorecam'].map((method) => classActivationMap(model, x, { method }));
  return [...maps, excitations(model, x)];
}

/** Products that a GPU works at when the calls have long returned. */
function startKernels() {
  const size = device === 'cpu' ? 64 : 4096;
  const w = randn([size, size], { device });
  let x = w;
  for (let i = 0; i < 50; i++) x = x.matmul(w);
}

/** Large pictures, of which each decoder has one. */
async function startImages() {
  const sharp = require('sharp');
  const { ImageClassifier } = require('../../dist');
  const create = { width: 4000, height: 3000, channels: 3, background: 'orange' };
  const [classifier, photograph] = await Promise.all([
    ImageClassifier.load('se_resnet20', { weights: 'fashion_mnist' }),
    sharp({ create }).jpeg().toBuffer(),
  ]);
  return Array.from({ length: 8 }, () => classifier.classify(photograph));
}

function startWorker(mode) {
  return new Worker(__filename, { workerData: mode });
}

/** As soon as a job runs, whatever the machine; or after many turns, should they all have ended. */
function midJob(work, turns = 10_000) {
  setImmediate(() => (memory().jobs.running > 0 || turns === 0 ? work() : midJob(work, turns - 1)));
}

const main = {
  'natural end': () => startJobs(),
  'natural end after an await': async () => {
    await startJobs()[0];
  },
  'process.exit mid-job': () => {
    startJobs();
    midJob(() => process.exit(3));
  },
  'process.exit at once': () => {
    startJobs();
    process.exit(3);
  },
  'explaining: process.exit mid-job': () => {
    startExplaining();
    midJob(() => process.exit(3));
  },
  'explaining: process.exit after the first': async () => {
    await startExplaining()[0];
    process.exit(3);
  },
  'process.exitCode': () => {
    startJobs();
    process.exitCode = 3;
  },
  'process.exit while kernels run': () => {
    startKernels();
    process.exit(3);
  },
  'natural end while kernels run': () => startKernels(),
  'SIGTERM mid-job': () => {
    startJobs();
    startKernels();
    midJob(() => process.kill(process.pid, 'SIGTERM'));
  },
  'SIGTERM mid-job, with a handler that exits': () => {
    process.on('SIGTERM', () => process.exit(3));
    startJobs();
    startKernels();
    midJob(() => process.kill(process.pid, 'SIGTERM'));
  },
  'worker.terminate while kernels run, then the main thread works on': () => {
    const worker = startWorker('kernels');
    worker.on('message', () => worker.terminate());
    worker.on('exit', () => void Promise.all(startJobs()).then(() => (process.exitCode = 3)));
  },
  'uncaught throw mid-job': () => {
    startJobs();
    midJob(() => {
      throw new Error('thrown on purpose');
    });
  },
  'unhandled rejection mid-job': () => {
    startJobs();
    midJob(() => Promise.reject(new Error('rejected on purpose')));
  },
  'worker ends by itself': () => startWorker('jobs'),
  'worker calls process.exit': () => startWorker('exit'),
  'worker throws': () => {
    const worker = startWorker('throw');
    worker.on('error', () => {
      process.exitCode = 3;
    });
  },
  'worker.terminate mid-job, then the main thread works on': () => {
    const worker = startWorker('jobs');
    worker.on('message', () => midJob(() => worker.terminate()));
    worker.on('exit', () => void Promise.all(startJobs()).then(() => (process.exitCode = 3)));
  },
  // The termination strikes inside a call of the addon, whose JavaScript exceptions then cannot be thrown any more.
  'worker.terminate in a synchronous loop': async () => {
    for (let delay = 5; delay < 45; delay += 5) {
      const worker = startWorker('loop');
      await new Promise((resolve) => worker.once('message', resolve));
      await new Promise((resolve) => setTimeout(resolve, delay));
      await worker.terminate();
    }
    process.exitCode = 3;
  },
  'worker.terminate while it loads the addon': async () => {
    for (let delay = 0; delay < 120; delay += 8) {
      const worker = startWorker('jobs');
      await new Promise((resolve) => setTimeout(resolve, delay));
      await worker.terminate();
    }
    process.exitCode = 3;
  },
  'two workers and the main thread': () => {
    startWorker('jobs');
    startWorker('jobs');
    startJobs();
  },
  'process.exit while a worker has jobs': () => {
    startWorker('jobs').on('message', () => midJob(() => process.exit(3)));
  },
  'compiled: natural end': async () => {
    await (
      await startCompiledJobs()
    )[0];
  },
  'compiled: process.exit mid-job': async () => {
    await startCompiledJobs();
    midJob(() => process.exit(3));
  },
  'compiled: process.exit at once': async () => {
    await startCompiledJobs();
    process.exit(3);
  },
  'compiled: process.exit while it compiles': () => {
    void se_resnet50({ initWeights: false }).to(device).compile();
    midJob(() => process.exit(3));
  },
  'compiled: uncaught throw mid-job': async () => {
    await startCompiledJobs();
    midJob(() => {
      throw new Error('thrown on purpose');
    });
  },
  'compiled: disposed mid-job': async () => {
    const compiled = await se_resnet18({ initWeights: false }).to(device).compile();
    const job = compiled.forward(randn([8, 3, 224, 224], { device }));
    midJob(async () => {
      compiled.dispose();
      await job;
      process.exitCode = 3;
    });
  },
  'compiled: worker.terminate mid-job, then the main thread works on': () => {
    const worker = startWorker('compiled');
    worker.on('message', () => midJob(() => worker.terminate()));
    worker.on('exit', async () => {
      const [forward, ...others] = await startCompiledJobs();
      await forward;
      await Promise.all(others);
      process.exitCode = 3;
    });
  },
  'images: natural end': () => startImages(),
  'images: process.exit while some are decoded': async () => {
    await startImages();
    midJob(() => process.exit(3));
  },
  'images: uncaught throw while some are decoded': async () => {
    await startImages();
    midJob(() => {
      throw new Error('thrown on purpose');
    });
  },
  'images: SIGTERM while some are decoded': async () => {
    await startImages();
    midJob(() => process.kill(process.pid, 'SIGTERM'));
  },
  'images: worker.terminate while some are decoded, then the main thread works on': () => {
    const worker = startWorker('images');
    worker.on('message', () => midJob(() => worker.terminate()));
    worker.on('exit', async () => {
      await Promise.all(await startImages());
      process.exitCode = 3;
    });
  },
  'forwardSync at exit is refused': () => {
    const { SELayer, zeros } = require('../../dist');
    const layer = new SELayer(16);
    process.on('exit', () => {
      try {
        layer.forwardSync(zeros([1, 16, 2, 2]));
      } catch (error) {
        process.exitCode = error.code === 'ERR_SENET_CLOSING' ? 3 : 4;
      }
    });
  },
  'module reset': async () => {
    // A test runner that resets its modules loads the addon a second time.
    const first = startJobs();
    for (const file of Object.keys(require.cache)) delete require.cache[file];
    const second = require('../../dist');
    await Promise.all([...first, new second.SELayer(16).forward(second.zeros([1, 16, 2, 2]))]);
    process.exitCode = 3;
  },
};

const inWorker = {
  loop: () => {
    parentPort.postMessage('started');
    const x = randn([8]);
    for (;;) {
      x.add(1).dispose();
      x.toTypedArray();
      try {
        x.view([3]);
      } catch {
        // of another shape
      }
    }
  },
  jobs: () => startJobs(),
  kernels: () => startKernels(),
  compiled: () => startCompiledJobs(),
  // Resolves when they have begun, not when they are answered.
  images: async () => void (await startImages()).forEach((answer) => answer.catch(() => undefined)),
  exit: () => {
    startJobs();
    midJob(() => process.exit(0));
  },
  throw: () => {
    startJobs();
    midJob(() => {
      throw new Error('thrown in a worker on purpose');
    });
  },
};

if (isMainThread) void main[process.argv[2]]();
else {
  void Promise.resolve(inWorker[workerData]()).then(() => parentPort.postMessage('started'));
}
