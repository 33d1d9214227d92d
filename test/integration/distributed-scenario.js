'use strict';
// What one process of a group does: `node distributed-scenario.js NAME ARGUMENT...`, with the environment variables of
// torchrun. Prints its result as a line of JSON. Runs on dist.
const {
  allGather,
  allReduce,
  barrier,
  BatchNorm2d,
  broadcast,
  configure,
  Conv2d,
  CrossEntropyLoss,
  AdaptiveAvgPool2d,
  destroyProcessGroup,
  DistributedDataParallel,
  Flatten,
  getRank,
  initProcessGroup,
  Linear,
  manualSeed,
  Module,
  ones,
  randn,
  ReLU,
  SELayer,
  Sequential,
  SGD,
  SyncBatchNorm,
  tensor,
  tidy,
} = require('../../dist');

const say = (line) => process.stdout.write(`${line}\n`);
const print = (value) => say(JSON.stringify(value));
const numbers = (one) => Array.from(one.toTypedArray(), Number);
const named = (pairs) => Object.fromEntries(pairs.map(([name, one]) => [name, numbers(one)]));
const never = () => new Promise((resolve) => setTimeout(resolve, 60_000));

/** The network of scripts/fixtures/make_distributed.py. */
function withBatchNorm() {
  manualSeed(0);
  return new Sequential(
    new Conv2d(3, 8, 3, { padding: 1, bias: false }),
    new BatchNorm2d(8),
    new ReLU(),
    new Conv2d(8, 6, 3, { padding: 1 }),
    new ReLU(),
    new AdaptiveAvgPool2d(1),
    new Flatten(),
    new Linear(6, 5),
  ).to('float64');
}

/** In TypeScript, as a user's: native parts, and no BatchNorm. */
class Plain extends Module {
  conv = new Conv2d(3, 8, 3, { padding: 1 });
  se = new SELayer(8, 2);
  head = new Sequential(new AdaptiveAvgPool2d(1), new Flatten(), new Linear(8, 5));
  async forward(x) {
    return this.head.forward(await this.se.forward((await this.conv.forward(x)).relu()));
  }
}

function plain() {
  manualSeed(0);
  return new Plain().to('float64');
}

const NETWORKS = {
  plain,
  norm: withBatchNorm,
  sync: () => SyncBatchNorm.convertSyncBatchnorm(withBatchNorm()),
};

/** Three steps on this process's share of batches of eight, each in so many parts. */
async function train(model, { rank, worldSize, parts = 1 }) {
  const parallel = worldSize === 1 ? null : new DistributedDataParallel(model);
  manualSeed(1);
  const images = randn([3, 8, 3, 6, 6]).to('float64');
  const labels = tensor([0, 1, 2, 3, 4, 0, 1, 2], { dtype: 'int64' });
  const optimizer = new SGD(model.parameters(), { lr: 0.1, momentum: 0.9 });
  const criterion = new CrossEntropyLoss();
  const size = 8 / worldSize / parts;
  const losses = [];
  let gradients = null;
  for (let step = 0; step < 3; step++) {
    optimizer.zeroGrad();
    let sum = 0;
    for (let part = 0; part < parts; part++) {
      const from = rank * (8 / worldSize) + part * size;
      const learn = () =>
        tidy(async () => {
          const output = await (parallel ?? model).forward(
            images.select(0, step).slice(0, from, from + size),
          );
          const loss = (await criterion.forward(output, labels.slice(0, from, from + size))).div(parts);
          await loss.backward();
          sum += loss.item();
        });
      await (parallel !== null && part < parts - 1 ? parallel.noSync(learn) : learn());
    }
    gradients ??= named(model.namedParameters().map(([name, one]) => [name, one.grad]));
    await optimizer.step();
    losses.push(sum);
  }
  return {
    losses,
    gradients,
    parameters: named(model.namedParameters()),
    buffers: named(model.namedBuffers()),
  };
}

const scenarios = {
  async collectives() {
    await initProcessGroup();
    const rank = getRank();
    const reduced = {};
    for (const dtype of ['float32', 'float64', 'float16', 'bfloat16', 'int64', 'int32', 'int8', 'uint8']) {
      const one = tensor([rank + 1, 3], { dtype });
      await allReduce(one);
      reduced[dtype] = numbers(one.to('float64'));
    }
    for (const op of ['avg', 'product', 'min', 'max']) {
      const one = tensor([rank + 1, 3]);
      await allReduce(one, { op });
      reduced[op] = numbers(one);
    }
    const base = tensor(
      [
        [1, 2],
        [3, 4],
      ].map((row) => row.map((value) => value * (rank + 1))),
    );
    await allReduce(base.transpose(0, 1));
    const pair = [tensor([rank, rank]), tensor([[rank]])];
    await broadcast(pair, { src: 1 });
    const all = await allGather(tensor([[rank, rank + 10]]));
    // As many at once as are asked for, in the order of the calls.
    const many = Array.from({ length: 20 }, (_, index) => tensor([index + rank]));
    await Promise.all(many.map((one) => allReduce(one)));
    await barrier();
    const codes = [];
    for (const wrong of [
      () => allReduce(tensor([1], { dtype: 'int16' })),
      () => allReduce(tensor([true])),
      () => allReduce(tensor([1n]), { op: 'avg' }),
      () => allReduce('no tensor'),
      () => allReduce(tensor([1]), { op: 'sums' }),
      () => broadcast([tensor([1]), tensor([1n])]),
      () => broadcast(tensor([1]), { src: 2 }),
      () => initProcessGroup(),
    ])
      codes.push(
        await wrong().then(
          () => 'none',
          (error) => error.code,
        ),
      );
    // What does not fit together is an error on both, after which the group is as it was.
    const different = [];
    for (const wrong of [
      () => allReduce(ones([rank === 0 ? 1000 : 10])),
      () => allReduce(ones([4]), { op: rank === 0 ? 'sum' : 'max' }),
      () => allGather(ones([2]).to(rank === 0 ? 'float32' : 'int64')),
      () => broadcast(ones([2]), { src: rank }),
      () => (rank === 0 ? barrier() : allReduce(ones([3]))),
    ])
      different.push(
        await wrong().then(
          () => 'none',
          (error) => `${error.code}: ${error.message}`,
        ),
      );
    // Later ones wait in line behind it.
    const inLine = tensor([rank]);
    await Promise.all([allReduce(ones([rank + 1])).catch(() => undefined), allReduce(inLine), barrier()]);
    await destroyProcessGroup();
    codes.push(
      await allReduce(tensor([1])).then(
        () => 'none',
        (error) => error.code,
      ),
    );
    print({
      worldSize: 2,
      reduced,
      base: numbers(base),
      pair: pair.map(numbers),
      all: all.map(numbers),
      many: many.map((one) => one.item()),
      different,
      inLine: inLine.item(),
      codes,
    });
  },

  /** One half of a mixed group. */
  async mixed() {
    await initProcessGroup();
    const rank = getRank();
    const sum = tensor([rank + 1, 0.5], { dtype: 'float64' });
    await allReduce(sum);
    const given = tensor([rank, rank]);
    await broadcast(given, { src: 1 });
    const all = await allGather(tensor([rank + 7]));
    await barrier();
    const model = new DistributedDataParallel(NETWORKS.norm());
    await model.whenReady();
    await destroyProcessGroup();
    print({
      sum: numbers(sum),
      given: numbers(given),
      all: all.map(numbers),
      weight: numbers(model.parameters()[0]),
    });
  },

  /** Networks by name, those that end in '2' with batches in two parts; alone in a group of one. */
  async train(...networks) {
    const worldSize = Number(process.env.WORLD_SIZE);
    if (worldSize > 1) await initProcessGroup();
    const results = {};
    for (const network of networks) {
      const parts = network.endsWith('2') ? 2 : 1;
      const rank = Number(process.env.RANK);
      results[network] = await train(NETWORKS[network.replace('2', '')](), { rank, worldSize, parts });
    }
    if (worldSize > 1) await destroyProcessGroup();
    print(results);
  },

  /** Backward without the others: rank 1 does nothing until rank 0 has said that it has done it. */
  async noSync() {
    await initProcessGroup();
    const model = new DistributedDataParallel(plain());
    const x = randn([2, 3, 6, 6]).to('float64');
    await model.whenReady();
    const parts = getRank() === 0 ? 3 : 0;
    for (let part = 0; part < parts; part++)
      await model.noSync(async () => (await model.forward(x)).sum().backward());
    // Had one of them been sent anywhere, this would be another collective than rank 1's.
    const sum = tensor([parts]);
    await allReduce(sum);
    await destroyProcessGroup();
    print({ waited: sum.item() !== 3 });
  },

  /** Weights that differ become rank 0's; networks that differ are an error. */
  async different(kind) {
    await initProcessGroup();
    manualSeed(getRank());
    const model = new Linear(3, kind === 'shape' ? 2 + getRank() : 2);
    const parallel = new DistributedDataParallel(model);
    const code = await parallel.whenReady().then(
      () => 'none',
      (error) => `${error.code}: ${error.message}`,
    );
    print({ code, weight: numbers(model.weight), keys: [...parallel.stateDict().keys()] });
    process.exit(0);
  },

  /** Rank 1 ends in the middle; the others say why they end. */
  async lost(how) {
    await initProcessGroup();
    const one = tensor([1]);
    await allReduce(one);
    say('ready');
    if (getRank() === 1) {
      if (how === 'killed') process.kill(process.pid, 'SIGKILL');
      if (how === 'thrown') throw new Error('a bug of the program');
      await never();
    }
    const began = performance.now();
    const { code, message } = await allReduce(one).catch((error) => error);
    print({ code, message, seconds: (performance.now() - began) / 1000 });
  },

  /** As lost, where the others wait in backward and in SyncBatchNorm's forward. */
  async lostTraining(network) {
    await initProcessGroup();
    const model = new DistributedDataParallel(NETWORKS[network]());
    const x = randn([2, 3, 6, 6]).to('float64');
    await (await model.forward(x)).sum().backward();
    if (getRank() === 1) process.kill(process.pid, 'SIGKILL');
    const { code, message } = await model
      .forward(x)
      .then((output) => output.sum().backward())
      .catch((error) => error);
    print({ code, message });
  },

  async timeout() {
    await initProcessGroup({ timeout: 3000 });
    await barrier();
    if (getRank() === 1) await new Promise((resolve) => setTimeout(resolve, 15_000));
    else {
      const { code, message } = await barrier().catch((error) => error);
      print({ code, message });
    }
    process.exit(0);
  },

  /** What ends a process, or a wait, while it waits for the others. */
  async waiting(how) {
    await initProcessGroup();
    if (getRank() === 1) {
      await new Promise((resolve) => setTimeout(resolve, 4000));
      process.exit(0);
    }
    const waits = barrier().then(
      () => 'none',
      (error) => error.code,
    );
    await new Promise((resolve) => setTimeout(resolve, 100));
    const began = performance.now();
    if (how === 'exit') {
      process.on('exit', () => print({ seconds: (performance.now() - began) / 1000 }));
      process.exit(3);
    }
    if (how === 'throw')
      setImmediate(() => {
        throw new Error('uncaught');
      });
    if (how === 'destroy') await destroyProcessGroup();
    if (how === 'abort') {
      const code = await barrier({ signal: AbortSignal.timeout(50) }).catch((error) => error.code);
      // The library's own threads are free.
      const other = await new Linear(2, 2).forward(tensor([[1, 2]]));
      print({ code, shape: other.shape });
      process.exit(0);
    }
    print({ code: await waits, seconds: (performance.now() - began) / 1000 });
  },

  async connectAbort() {
    const began = performance.now();
    const { code } = await initProcessGroup({ signal: AbortSignal.timeout(300) }).catch((error) => error);
    const again = await initProcessGroup({ timeout: 1500 }).catch((error) => error);
    print({ code, again: `${again.code}: ${again.message}`, seconds: (performance.now() - began) / 1000 });
  },
};

const [name, ...args] = process.argv.slice(2);
configure({ threadsPerWorker: 1 });
scenarios[name](...args).catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
