/** The library and its callers in different realms (node:vm, as under Jest and vitest), and loaded twice. */
import fs, { readFileSync } from 'node:fs';
import path from 'node:path';
import vm from 'node:vm';

import { expect } from 'chai';

import * as senet from '../../lib/index';
import { expectRejection, expectThrow } from '../support/errors';
import { loadInRealm, type Realm } from '../support/realm';
import { Temporary } from '../support/temporary';

const ASSETS = path.join(__dirname, '..', '..', 'assets');
const WEIGHTS = path.join(ASSETS, 'weights', 'se_resnet20_fashion_mnist.safetensors');
const BOOT = path.join(ASSETS, 'images', '00-ankle-boot.png');

describe('realms', () => {
  describe('values of another realm', () => {
    const foreign = <T>(program: string): T => vm.runInNewContext(program) as T;

    it('typed arrays of every kind, and none that shares or moved its bytes', () => {
      for (const [made, dtype] of [
        ['new Float32Array([1])', 'float32'],
        ['new Float64Array([1])', 'float64'],
        ['new BigInt64Array([1n])', 'int64'],
        ['new Int32Array([1])', 'int32'],
        ['new Int16Array([1])', 'int16'],
        ['new Int8Array([1])', 'int8'],
        ['new Uint8Array([1])', 'uint8'],
        ['new Uint8ClampedArray([1])', 'uint8'],
      ] as const)
        expect(senet.tensor(foreign<Float32Array>(made)).dtype, made).to.equal(dtype);
      const bits = foreign<Uint16Array>('new Uint16Array([0x3c00])');
      expect(senet.tensor(bits, { dtype: 'float16' }).item()).to.equal(1);
      expect(senet.tensor(foreign<Uint8Array>('new Uint8Array([1])'), { dtype: 'bool' }).dtype).to.equal(
        'bool',
      );
      const shared = foreign<Float32Array>('new Float32Array(new SharedArrayBuffer(4))');
      expectThrow(() => senet.tensor(shared), 'ERR_SENET_BUFFER', /shared/);
      const resizable = foreign<Uint8Array>('new Uint8Array(new ArrayBuffer(4, { maxByteLength: 8 }))');
      expectThrow(() => senet.tensor(resizable), 'ERR_SENET_BUFFER', /resizable/);
      expectThrow(() => senet.tensor(foreign('new DataView(new ArrayBuffer(4))')), 'ERR_SENET_ARG_TYPE');
    });

    it('arrays, options, Maps and Sets', () => {
      expect(senet.tensor(foreign<number[][]>('[[1, 2]]')).shape).to.deep.equal([1, 2]);
      expect(senet.zeros(foreign('[2]'), foreign('({ dtype: "int64" })')).dtype).to.equal('int64');
      const model = new senet.SELayer(4, 2);
      const entries = [...model.stateDict()];
      const state =
        foreign<(given: unknown) => Map<string, senet.Tensor>>('(given) => new Map(given)')(entries);
      model.loadStateDict(state);
      const [kept, alone] = senet.tidy(() => {
        const made = [senet.ones([1]), senet.ones([1])];
        return foreign<(a: unknown, b: unknown) => [Set<senet.Tensor>, { t: senet.Tensor }]>(
          '(a, b) => [new Set([a]), { t: b }]',
        )(...(made as [senet.Tensor, senet.Tensor]));
      });
      expect([...kept][0]?.item()).to.equal(1);
      expect(alone.t.item()).to.equal(1);
      const called = senet.ops.call(
        'aten::sum',
        senet.ones([2]),
        foreign('({ dtype: "float64" })'),
      ) as senet.Tensor;
      expect(called.dtype).to.equal('float64');
    });

    it('a promise of another realm keeps a tidy open', async () => {
      const later = foreign<(make: () => senet.Tensor) => Promise<senet.Tensor>>(
        '(make) => Promise.resolve().then(make)',
      );
      const made = await senet.tidy(() => later(() => senet.ones([3])));
      expect(made.shape).to.deep.equal([3]);
    });

    it('bytes of a checkpoint and of an image', async () => {
      const copy = foreign<(bytes: Uint8Array) => Uint8Array>('(bytes) => Uint8Array.from(bytes)');
      expect((await senet.load(copy(readFileSync(WEIGHTS)))).size).to.equal(146);
      const classifier = await senet.ImageClassifier.load('se_resnet20', { weights: 'fashion_mnist' });
      const [best] = await classifier.classify(copy(readFileSync(BOOT)));
      expect(best?.label).to.equal('Ankle boot');
      await classifier.dispose();
    });

    it('a signal that is none of Node’s', async () => {
      const listeners = new Set<() => void>();
      const signal = {
        aborted: false,
        reason: 'enough',
        addEventListener: (_type: string, listener: () => void) => listeners.add(listener),
        removeEventListener: (_type: string, listener: () => void) => listeners.delete(listener),
      };
      const running = new senet.SELayer(4, 2).forward(senet.ones([1, 4, 2, 2]), {
        signal: signal as unknown as AbortSignal,
      });
      signal.aborted = true;
      for (const listener of listeners) listener.call(signal);
      expect(await expectRejection(running, 'ERR_SENET_ABORTED')).to.have.property('cause', 'enough');
    });
  });

  describe('the library in another realm', () => {
    let realm: Realm;
    before(() => {
      realm = loadInRealm();
    });

    it('makes tensors, and gives arrays and errors of its own realm', () => {
      expect(
        realm.run('senet.tensor(new Float32Array([1, 2])).toTypedArray() instanceof Float32Array'),
      ).to.equal(true);
      expect(
        realm.run(
          `try { senet.tensor('x') } catch (e) { [e instanceof TypeError, senet.isSenetError(e)].join() }`,
        ),
      ).to.equal('true,true');
    });

    it('classifies, by path and by the bytes that this realm reads', async () => {
      const label = await realm.run<Promise<string>>(`(async () => {
        const classifier = await senet.ImageClassifier.load('se_resnet20', { weights: 'fashion_mnist' });
        const bytes = require('node:fs').readFileSync(${JSON.stringify(BOOT)});
        const found = [await classifier.classify(${JSON.stringify(BOOT)}), await classifier.classify(bytes)];
        await classifier.dispose();
        return found.map(([best]) => best.label).join();
      })()`);
      expect(label).to.equal('Ankle boot,Ankle boot');
    });

    it('loads, trains a step and saves', async () => {
      const temporary = new Temporary();
      const size = await realm.run<Promise<number>>(`(async () => {
        const model = senet.se_resnet20({ reduction: 4, initWeights: false });
        model.loadStateDict(await senet.load(${JSON.stringify(WEIGHTS)}));
        const optimizer = new senet.SGD(model.parameters(), { lr: 0.1 });
        const output = await model.forward(senet.rand([2, 3, 32, 32]));
        const loss = await new senet.CrossEntropyLoss().forward(output, senet.tensor([1n, 2n]));
        await loss.backward();
        await optimizer.step();
        await senet.save(model, ${JSON.stringify(temporary.path('saved.pt'))});
        return (await senet.loadCheckpoint(${JSON.stringify(temporary.path('saved.pt'))})).size;
      })()`);
      temporary.cleanUp();
      expect(size).to.equal(146);
    });
  });

  it('a runtime whose file times are rounded loads files, as Deno', async () => {
    const round = (stats: fs.Stats | fs.BigIntStats): void => {
      if ('mtimeNs' in stats) stats.mtimeNs = (stats.mtimeNs / 1_000_000n) * 1_000_000n;
    };
    const fstat = (fd: number, ...rest: unknown[]): void => {
      const done = rest.pop() as (error: Error | null, stats?: fs.Stats | fs.BigIntStats) => void;
      fs.fstat(fd, ...(rest as [{ bigint: true }]), (error, stats) => {
        if (error === null) round(stats);
        done(error, stats);
      });
    };
    const realm = loadInRealm({ 'node:fs': { ...fs, fstat } });
    expect((await realm.library.load(WEIGHTS)).size).to.equal(146);
  });

  describe('two copies of the library on one addon', () => {
    it('a tensor, module or optimiser of the other is a coded error that says so', () => {
      const { library: first } = loadInRealm();
      const { library: second } = loadInRealm();
      const words = /another copy of senet-torch.*loaded the package twice/;
      const failed = (run: () => unknown): unknown => {
        try {
          return run();
        } catch (error) {
          return error;
        }
      };
      const model = second.se_resnet20({ initWeights: false });
      for (const attempt of [
        () => first.ones([1]).add(second.ones([1])),
        () => new first.SGD([second.ones([1])], { lr: 1 }),
        () => new first.Sequential(model),
        () => new first.StepLR(new second.SGD(model.parameters(), { lr: 1 }), { stepSize: 1 }),
        () => new first.SELayer(4, 2).loadStateDict(second.ones([1]) as never),
      ]) {
        const error = failed(attempt);
        expect(first.isSenetError(error), String(error)).to.equal(true);
        expect((error as Error).message).to.match(words);
      }
    });

    it('the jobs of both settle, and errors are errors of this library for both', async () => {
      const { library: first } = loadInRealm();
      const layer = new first.SELayer(64, 4);
      const running = Array.from({ length: 20 }, () => layer.forward(first.ones([4, 64, 32, 32])));
      const { library: second } = loadInRealm();
      expect(await Promise.all(running)).to.have.length(20);
      const error = await layer.forward(first.ones([1, 3, 2, 2])).then(
        () => undefined,
        (reason: unknown) => reason,
      );
      expect(first.isSenetError(error)).to.equal(true);
      expect(second.isSenetError(error)).to.equal(true);
    });

    it('each throws and rejects with errors of its own realm and classes, whichever was loaded last', async () => {
      const realms = [loadInRealm(), loadInRealm()];
      for (const realm of realms) {
        const kinds = await realm.run<Promise<boolean[]>>(`(async () => {
          const kindOf = (e) => e.code === 'ERR_SENET_SHAPE' && e instanceof RangeError && e instanceof senet.SenetRangeError;
          const caught = (run) => { try { run() } catch (e) { return e } };
          const refused = caught(() => senet.ones([2]).view([3]));
          const layer = new senet.SELayer(4, 2);
          const wrong = senet.ones([1, 3, 2, 2]);
          return [
            refused.code === 'ERR_SENET_LIBTORCH' && refused instanceof Error && refused instanceof senet.SenetError,
            kindOf(caught(() => layer.forwardSync(wrong))),
            kindOf(await layer.forward(wrong).catch((e) => e)),
          ];
        })()`);
        expect(kinds).to.deep.equal([true, true, true]);
      }
      expectThrow(() => senet.ones([2]).view([3]), 'ERR_SENET_LIBTORCH');
      await expectRejection(new senet.SELayer(4, 2).forward(senet.ones([1, 3, 2, 2])), 'ERR_SENET_SHAPE');
    });

    it('ten of them leave one listener on the end of the process', () => {
      const before = process.listenerCount('exit');
      for (let i = 0; i < 3; i++) loadInRealm();
      expect(process.listenerCount('exit')).to.equal(before);
    });
  });
});
