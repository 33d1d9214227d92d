/** Forward hooks: when they run, what they may do, and where they are refused. */
import { expect } from 'chai';

import { se_resnet20 } from '../../lib/models/cifar-se-resnet';
import { ModuleList, Sequential } from '../../lib/nn/containers';
import { Linear, ReLU } from '../../lib/nn/layers';
import { Module } from '../../lib/nn/module';
import { SELayer } from '../../lib/nn/se-layer';
import { full, ones, rand, zeros } from '../../lib/tensor/factories';
import type { Tensor } from '../../lib/tensor/tensor';
import { expectRejection, expectThrow } from '../support/errors';
import { numbers } from '../support/parity';

const wrong = (value: unknown): never => value as never;

class Net extends Module {
  first = new Linear(2, 3);
  relu = new ReLU();
  override async forward(x: Tensor): Promise<Tensor> {
    return this.relu.forward(await this.first.forward(x));
  }
}

describe('forward hooks', function () {
  this.timeout(10_000);

  it('see the module, the arguments and the output, on native and TypeScript modules', async () => {
    const net = new Net();
    const seen: unknown[] = [];
    net.registerForwardHook((module, inputs, output) => {
      seen.push([module, inputs, output]);
    });
    net.first.registerForwardHook((module, inputs, output) => {
      seen.push([module, inputs, output]);
    });
    const x = rand([1, 2]);
    const options = { grad: false };
    const output = await (net as Module).forward(x, options);
    const [inner, outer] = seen as [unknown[], unknown[]];
    expect(inner[0]).to.equal(net.first);
    expect(inner[1]).to.deep.equal([x, undefined]);
    expect((inner[2] as Tensor).shape).to.deep.equal([1, 3]);
    expect(outer).to.deep.equal([net, [x, options], output]);
    expect((outer[1] as unknown[])[1]).to.equal(options);
  });

  it('replace the output, in the order of their registration; undefined and null keep it', async () => {
    const layer = new ReLU();
    const handles = [
      layer.registerForwardHook((_module, _inputs, output) => output.add(1)),
      layer.registerForwardHook(() => undefined),
      layer.registerForwardHook(() => null),
      layer.registerForwardHook(async (_module, _inputs, output) => Promise.resolve(output.mul(10))),
    ];
    expect((await layer.forward(full([1], 2))).item()).to.equal(30);
    handles[0]?.remove();
    handles[0]?.remove();
    expect((await layer.forward(full([1], 2))).item()).to.equal(20);
    for (const handle of handles) handle.remove();
    expect((await layer.forward(full([1], 2))).item()).to.equal(2);
    // In a network the next layer gets what the hook gave.
    const net = new Net();
    net.first.registerForwardHook(() => full([1, 3], -5));
    expect(numbers(await net.forward(ones([1, 2])))).to.deep.equal([0, 0, 0]);
  });

  it('what a hook throws, or rejects with, rejects the forward, and nothing stays busy', async () => {
    const net = new Net();
    const reasons = [new RangeError('thrown'), new TypeError('rejected')] as const;
    const hooks = [
      () => {
        throw reasons[0];
      },
      () => Promise.reject(reasons[1]),
    ];
    for (const on of [net, net.relu]) {
      for (const [index, hook] of hooks.entries()) {
        const handle = (on as Module).registerForwardHook(hook);
        let caught: unknown;
        await net.forward(ones([1, 2])).catch((reason: unknown) => (caught = reason));
        expect(caught).to.equal(reasons[index]);
        handle.remove();
      }
    }
    expect((await net.forward(ones([1, 2]))).shape).to.deep.equal([1, 3]);
    net.to('float64');
  });

  it('may call the module again, and register and remove hooks while a call is under way', async () => {
    const layer = new ReLU();
    const order: string[] = [];
    let depth = 0;
    const again = layer.registerForwardHook(async (module, [x]) => {
      order.push(`again ${depth}`);
      if (depth++ === 0) await module.forward(x as Tensor);
    });
    await layer.forward(zeros([1]));
    expect(order).to.deep.equal(['again 0', 'again 1']);
    again.remove();
    order.length = 0;

    const first = layer.registerForwardHook(() => {
      order.push('first');
      second.remove();
      layer.registerForwardHook(() => void order.push('late'));
    });
    const second = layer.registerForwardHook(() => void order.push('second'));
    await layer.forward(zeros([1]));
    // A removed hook is not called any more, a new one only by the next call.
    expect(order).to.deep.equal(['first']);
    first.remove();
    await layer.forward(zeros([1]));
    expect(order).to.deep.equal(['first', 'late']);
    // A forward that was begun before the hook was there.
    const bare = new ReLU();
    const running = bare.forward(zeros([1]));
    bare.registerForwardHook(() => void order.push('too late'));
    await running;
    expect(order).to.deep.equal(['first', 'late']);
  });

  it('fire once where a subclass calls the native forward', async () => {
    class Doubled extends SELayer {
      override async forward(x: Tensor): Promise<Tensor> {
        return (await super.forward(x)).mul(2);
      }
    }
    const module = new Doubled(4, 2);
    let calls = 0;
    module.registerForwardHook(() => {
      calls++;
    });
    await module.forward(ones([1, 4, 2, 2]));
    expect(calls).to.equal(1);
  });

  it('a part of a native module has none, since C++ calls it', async () => {
    const model = se_resnet20({ initWeights: false });
    const sequence = new Sequential(new Linear(2, 2), new ReLU());
    for (const part of [model.layer1, model.fc, model.getSubmodule('layer1.0.se.fc.1'), sequence.at(0)]) {
      expectThrow(
        () => part.registerForwardHook(() => undefined),
        'ERR_SENET_NATIVE_FORWARD',
        /native forward/,
      );
    }
    expectThrow(() => model.fc.registerForwardHook(() => undefined), 'ERR_SENET_NATIVE_FORWARD', /'fc'/);
    // Replaced, it is a root, and can have one.
    const old = model.fc;
    model.fc = new Linear(64, 2);
    let calls = 0;
    old.registerForwardHook(() => {
      calls++;
    });
    await old.forward(rand([1, 64]));
    expect(calls).to.equal(1);
    model.registerForwardHook(() => {
      calls++;
    });
    await model.eval().forward(rand([1, 3, 32, 32]));
    expect(calls).to.equal(2);
  });

  it('a module with hooks does not vanish into a native one', async () => {
    let calls = 0;
    const hooked = new Linear(2, 2);
    const handle = hooked.registerForwardHook(() => {
      calls++;
    });
    expectThrow(() => hooked.forwardSync(ones([1, 2])), 'ERR_SENET_TS_FORWARD', /has forward hooks/);
    await expectRejection(hooked.compile(), 'ERR_SENET_TS_FORWARD', /has forward hooks/);
    // A Sequential calls it in TypeScript then.
    const sequence = new Sequential(hooked, new ReLU());
    await sequence.forward(ones([1, 2]));
    expect(calls).to.equal(1);
    const model = se_resnet20({ initWeights: false });
    const head = new Linear(64, 2);
    const watched = head.registerForwardHook(() => undefined);
    expectThrow(() => (model.fc = head), 'ERR_SENET_TS_FORWARD', /'fc'.*has forward hooks/);
    watched.remove();
    model.fc = head;
    handle.remove();
    expect(hooked.forwardSync(ones([1, 2])).shape).to.deep.equal([1, 2]);
  });

  it('arguments of the wrong type', () => {
    const layer = new ReLU();
    for (const hook of [undefined, null, {}, 'hook'])
      expectThrow(() => layer.registerForwardHook(wrong(hook)), 'ERR_SENET_ARG_TYPE', /function/);
    const list = new ModuleList([layer]);
    list.dispose();
    expectThrow(() => layer.registerForwardHook(() => undefined), 'ERR_SENET_DISPOSED');
  });
});
