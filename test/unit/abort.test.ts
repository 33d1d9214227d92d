/** Signals of callers stay as they are, however much hangs on them; and what waits for a module that is busy. */
import { getEventListeners, getMaxListeners } from 'node:events';
import path from 'node:path';

import { expect } from 'chai';

import { DataLoader, ImageClassifier, load, Module, ones, SELayer } from '../../lib/index';
import { anySignal, onAbort } from '../../lib/tensor/abort';
import { expectThrow } from '../support/errors';

const ASSETS = path.join(__dirname, '..', '..', 'assets');

describe('abort', () => {
  let warnings: Error[];
  const warned = (warning: Error): void => void warnings.push(warning);
  beforeEach(() => {
    warnings = [];
    process.on('warning', warned);
  });
  afterEach(() => process.off('warning', warned));

  it('fifty jobs on one signal leave its limit and no listener, and nobody is warned', async () => {
    const { signal } = new AbortController();
    const limit = getMaxListeners(signal);
    const layer = new SELayer(4, 2);
    const classifier = await ImageClassifier.load('se_resnet20', { weights: 'fashion_mnist' });
    const image = path.join(ASSETS, 'images', '00-ankle-boot.png');
    const weights = path.join(ASSETS, 'weights', 'se_resnet20_fashion_mnist.safetensors');
    const pixels = ones([1, 1, 28, 28], { dtype: 'uint8' });
    const fifty = <T>(run: () => Promise<T>): Promise<T>[] => Array.from({ length: 50 }, run);
    const running = [
      ...fifty(() => layer.forward(ones([1, 4, 2, 2]), { signal })),
      ...fifty(() => classifier.classify(image, { signal })),
      ...fifty(() => classifier.classifyBatch(pixels, { signal })),
      ...fifty(() => load(weights, { signal })),
    ];
    expect(getEventListeners(signal, 'abort')).to.have.length(1);
    expect(getMaxListeners(signal)).to.equal(limit);
    await Promise.all(running);
    for await (const _batch of new DataLoader([1, 2, 3], {
      signal,
      collate: (items: unknown) => items,
    } as never));
    await classifier.dispose();
    expect(getEventListeners(signal, 'abort')).to.have.length(0);
    expect(getMaxListeners(signal)).to.equal(limit);
    await new Promise(setImmediate); // warnings come later
    expect(warnings.map(({ name }) => name)).not.to.include('MaxListenersExceededWarning');
  });

  it('calls each once, and none that has left', () => {
    const controller = new AbortController();
    const called: string[] = [];
    const say = (what: string) => () => void called.push(what);
    onAbort(controller.signal, say('stays'));
    onAbort(controller.signal, say('leaves'))();
    const again = say('twice');
    onAbort(controller.signal, again);
    onAbort(controller.signal, again)();
    controller.abort();
    expect(called).to.deep.equal(['stays', 'twice']);
  });

  it('any of several signals, until it is let go', () => {
    const [one, other] = [new AbortController(), new AbortController()];
    const any = anySignal([one.signal, undefined, other.signal]);
    other.abort('that');
    expect([any.signal.aborted, any.signal.reason]).to.deep.equal([true, 'that']);
    any.stop();
    expect(getEventListeners(one.signal, 'abort')).to.have.length(0);
    expect(anySignal([AbortSignal.abort('before')]).signal.reason).to.equal('before');
  });
});

describe('Module.whenIdle', () => {
  it('comes once the forwards that were queued have ended, native and TypeScript', async () => {
    class Twice extends Module {
      readonly layer = new SELayer(64, 4);
      override async forward(x: Parameters<SELayer['forward']>[0]): ReturnType<SELayer['forward']> {
        return this.layer.forward(await this.layer.forward(x));
      }
    }
    for (const module of [new SELayer(64, 4), new Twice()]) {
      const state = new Map(module.stateDict());
      const running = Array.from({ length: 5 }, () => module.forward(ones([8, 64, 64, 64])));
      expectThrow(() => module.loadStateDict(state), 'ERR_SENET_BUSY');
      for (let waits = 0; ; waits++) {
        // Each wait may end with one of the layers' forwards, of which Twice has two in each of its own.
        expect(waits).to.be.at.most(2 * running.length);
        await Module.whenIdle(module);
        try {
          module.loadStateDict(state);
          break;
        } catch {
          // another of the five
        }
      }
      await Promise.all(running);
    }
  });
});
