'use strict';
// What every runtime must do, as [name, function] pairs: each adapter beside this file gives them to its test runner.
// Run by scripts/test-runtimes.js in a folder where the package is installed.
const assert = require('node:assert');
const { readFileSync } = require('node:fs');
const os = require('node:os');
const path = require('node:path');

const senet = require('senet-torch');

const { examplesOf } = require('./pages');

const ROOT = path.dirname(require.resolve('senet-torch/package.json'));
const WEIGHTS = path.join(ROOT, 'assets', 'weights', 'se_resnet20_fashion_mnist.safetensors');
const BOOT = path.join(ROOT, 'assets', 'images', '00-ankle-boot.png');

const smoke = [
  [
    'arrays of this realm become tensors, and come back',
    () => {
      assert.equal(senet.tensor(new Float32Array([1, 2])).dtype, 'float32');
      assert.equal(senet.tensor(Uint8Array.from([1])).dtype, 'uint8');
      assert.ok(senet.tensor([1, 2]).toTypedArray() instanceof Float32Array);
      assert.equal(
        String(senet.tensor([[1.5]])),
        'tensor([[1.5000]], shape: [1, 1], dtype: float32, device: cpu)',
      );
    },
  ],
  [
    'errors are errors of this realm, with codes',
    async () => {
      assert.throws(
        () => senet.tensor('x'),
        (error) => error instanceof TypeError && senet.isSenetError(error),
      );
      await assert.rejects(senet.load('/nowhere.pt'), { code: 'ERR_SENET_FILE_NOT_FOUND' });
    },
  ],
  [
    'load by path and from bytes',
    async () => {
      assert.equal((await senet.load(WEIGHTS)).size, 146);
      assert.equal((await senet.load(readFileSync(WEIGHTS))).size, 146);
      assert.equal((await senet.load(new Uint8Array(readFileSync(WEIGHTS)))).size, 146);
    },
  ],
  [
    'classify a path, a Buffer and a Uint8Array',
    async () => {
      const classifier = await senet.ImageClassifier.load('se_resnet20', { weights: 'fashion_mnist' });
      const bytes = readFileSync(BOOT);
      for (const image of [BOOT, bytes, new Uint8Array(bytes)])
        assert.equal((await classifier.classify(image))[0].label, 'Ankle boot');
      await classifier.dispose();
    },
  ],
  [
    'a training step, saved and loaded',
    async () => {
      const model = senet.se_resnet20({ reduction: 4 });
      const optimizer = new senet.SGD(model.parameters(), { lr: 0.1 });
      const output = await model.forward(senet.rand([2, 3, 32, 32]));
      const loss = await new senet.CrossEntropyLoss().forward(output, senet.tensor([1n, 2n]));
      await loss.backward();
      await optimizer.step();
      const file = path.join(os.tmpdir(), `senet-runtimes-${process.pid}.pt`);
      await senet.save(model, file);
      model.loadStateDict(new Map(await senet.load(file)));
    },
  ],
  [
    'a signal of this realm aborts',
    async () => {
      const controller = new AbortController();
      const running = new senet.SELayer(16, 4).forward(senet.rand([1, 16, 2, 2]), {
        signal: controller.signal,
      });
      controller.abort();
      await assert.rejects(running, { name: 'AbortError', code: 'ERR_SENET_ABORTED' });
    },
  ],
];

// The programs of the documentation; that of the service listens until it is ended (test/integration/package.test.ts
// uses it).
const examples = examplesOf(ROOT)
  .filter(({ code }) => !code.includes('createServer'))
  .map(({ page, code }, index) => [
    `example ${index + 1}, of ${page}`,
    () => new Function('require', code.replace(/^main\(\);$/m, 'return main();'))(require),
  ]);

module.exports = { smoke, all: [...smoke, ...examples] };
