/** loadStateDict: what PyTorch loads loads, and what the error says where keys do not fit. */
import { expect } from 'chai';

import { Sequential } from '../../lib/nn/containers';
import { BatchNorm2d, Linear } from '../../lib/nn/layers';
import { Module } from '../../lib/nn/module';
import { full, ones, zeros } from '../../lib/tensor/factories';
import type { Tensor } from '../../lib/tensor/tensor';
import { expectThrow } from '../support/errors';

describe('loadStateDict', () => {
  for (const assign of [false, true]) {
    it(`entries without dimensions that are given one, as PyTorch 0.3 saved them${assign ? ', adopted' : ''}`, () => {
      for (const dtype of ['int64', 'int32', 'float32'] as const) {
        for (const shape of [[1], [3]]) {
          const layer = new BatchNorm2d(2);
          const state = new Map(layer.stateDict());
          state.set('num_batches_tracked', full(shape, 7, { dtype }));
          layer.loadStateDict(state, { assign });
          const loaded = new Map(layer.namedBuffers()).get('num_batches_tracked');
          expect(loaded?.shape).to.deep.equal([]);
          expect(Number(loaded?.item())).to.equal(7);
        }
      }
    });
  }
  it('a parameter without dimensions too, and no other shapes', () => {
    class Scale extends Module {
      readonly factor = this.registerParameter('factor', zeros([]));
      override forward(x: Tensor): Promise<Tensor> {
        return Promise.resolve(x.mul(this.factor));
      }
    }
    const scale = new Scale();
    scale.loadStateDict(new Map([['factor', full([1], 3)]]));
    expect(scale.factor.item()).to.equal(3);
    expectThrow(
      () => scale.loadStateDict(new Map([['factor', zeros([0])]])),
      'ERR_SENET_STATE_DICT',
      /shape/,
    );
    expectThrow(
      () => scale.loadStateDict(new Map([['factor', ones([1, 1])]])),
      'ERR_SENET_STATE_DICT',
      /expected \[\], got \[1, 1\]/,
    );
    expectThrow(
      () =>
        new Linear(1, 1).loadStateDict(
          new Map([
            ['weight', zeros([])],
            ['bias', zeros([1])],
          ]),
        ),
      'ERR_SENET_STATE_DICT',
      /shape of 'weight'/,
    );
  });

  it('says what the keys share, and how it is taken away', () => {
    const net = new Linear(2, 1);
    const state = (prefix: string): Map<string, Tensor> =>
      new Map([...net.stateDict()].map(([key, value]) => [prefix + key, value]));
    expectThrow(
      () => net.loadStateDict(state('encoder.')),
      'ERR_SENET_STATE_DICT',
      /all 2 keys begin with 'encoder\.', which .*'encoder\.'\) or load\(file, \{ prefix: 'encoder\.' \}\)/,
    );
    expectThrow(() => net.loadStateDict(state('a.b.')), 'ERR_SENET_STATE_DICT', /begin with 'a\.b\.', which/);
    const named = new Sequential(net);
    expectThrow(
      () => named.loadStateDict(net.stateDict()),
      'ERR_SENET_STATE_DICT',
      /all 2 keys of the module begin with '0\.', and those of the state dict do not/,
    );
    const other = new Map([
      ['x', zeros([1])],
      ['y', zeros([1])],
    ]);
    expect(String(expectThrow(() => net.loadStateDict(other), 'ERR_SENET_STATE_DICT'))).to.not.match(
      /begin with/,
    );
  });
});
