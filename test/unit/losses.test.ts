/** Losses: options, shapes and labels that are refused before a kernel runs. Their values are in test/parity. */
import { expect } from 'chai';

import {
  BCEWithLogitsLoss,
  CrossEntropyLoss,
  L1Loss,
  MSELoss,
  NLLLoss,
  type CrossEntropyLossOptions,
} from '../../lib/nn/losses';
import { ones, rand, tensor, zeros } from '../../lib/tensor/factories';
import { noGrad } from '../../lib/tensor/scope';
import { expectRejection, expectThrow } from '../support/errors';

const labels = (...values: number[]): ReturnType<typeof tensor> => tensor(BigInt64Array.from(values, BigInt));

describe('losses', () => {
  it('refuse options that do not exist or cannot be', () => {
    const make = (options: unknown) => () => new CrossEntropyLoss(options as CrossEntropyLossOptions);
    expectThrow(make({ label_smoothing: 0.1 }), 'ERR_SENET_UNKNOWN_OPTION', /labelSmoothing/);
    expectThrow(make({ labelSmoothing: 1.5 }), 'ERR_SENET_ARG_RANGE', /0 to 1, got 1.5/);
    expectThrow(make({ labelSmoothing: NaN }), 'ERR_SENET_ARG_RANGE', /NaN/);
    expectThrow(make({ labelSmoothing: '0' }), 'ERR_SENET_ARG_TYPE');
    expectThrow(make({ reduction: 'average' }), 'ERR_SENET_ARG_RANGE', /'mean', 'sum', 'none'/);
    expectThrow(make({ weight: [1, 2] }), 'ERR_SENET_ARG_TYPE', /weight/);
    expectThrow(make({ weight: labels(1, 2) }), 'ERR_SENET_DTYPE', /int64/);
    expectThrow(make({ ignoreIndex: 0.5 }), 'ERR_SENET_ARG_RANGE');
    expectThrow(() => new L1Loss({ weight: 1 } as object), 'ERR_SENET_UNKNOWN_OPTION', /L1Loss/);
    expectThrow(() => new MSELoss({ reduction: 'toString' as 'mean' }), 'ERR_SENET_ARG_RANGE');
    expectThrow(
      () => new BCEWithLogitsLoss({ pos_weight: ones([1]) } as object),
      'ERR_SENET_UNKNOWN_OPTION',
      /posWeight/,
    );
  });

  it('name a label that is no class, and where it stands', async () => {
    for (const Loss of [CrossEntropyLoss, NLLLoss]) {
      const criterion = new Loss();
      const x = rand([3, 4]);
      await expectRejection(
        criterion.forward(x, labels(0, 4, 1)),
        'ERR_SENET_LABELS',
        /label 4 at position 1 .* 4 classes/,
      );
      await expectRejection(
        criterion.forward(x, labels(0, 1, -1)),
        'ERR_SENET_LABELS',
        /label -1 at position 2/,
      );
      // PyTorch's own mark for 'counts for nothing'.
      expect((await criterion.forward(x, labels(0, 1, -100))).item()).to.be.a('number');
      expect((await new Loss({ ignoreIndex: 7 }).forward(x, labels(0, 7, 1))).item()).to.be.a('number');
    }
  });

  it('refuse shapes and dtypes that do not fit', async () => {
    const criterion = new CrossEntropyLoss();
    const x = rand([2, 3]);
    await expectRejection(criterion.forward(x, labels(0)), 'ERR_SENET_SHAPE', /\[2, 3\] and \[1\]/);
    await expectRejection(criterion.forward(rand([]), labels(0)), 'ERR_SENET_SHAPE');
    await expectRejection(criterion.forward(x, rand([2, 4])), 'ERR_SENET_SHAPE', /same shape/);
    await expectRejection(
      criterion.forward(x, tensor(Int32Array.of(0, 1))),
      'ERR_SENET_DTYPE',
      /int64.*int32/,
    );
    await expectRejection(criterion.forward(x, undefined as never), 'ERR_SENET_ARG_TYPE', /target/);
    const weighted = new CrossEntropyLoss({ weight: ones([4]) });
    await expectRejection(
      weighted.forward(x, labels(0, 1)),
      'ERR_SENET_SHAPE',
      /each of the 3 classes, got the shape \[4\]/,
    );
    await expectRejection(weighted.forward(x, rand([2, 3])), 'ERR_SENET_SHAPE', /weight/);
    await expectRejection(new NLLLoss().forward(x, rand([2, 3])), 'ERR_SENET_DTYPE');
    await expectRejection(new BCEWithLogitsLoss().forward(x, labels(1, 0).view([2, 1])), 'ERR_SENET_SHAPE');
    await expectRejection(new MSELoss().forward(x, zeros([2, 1])), 'ERR_SENET_SHAPE', /MSELoss/);
  });

  it('take one sample without a batch, record gradients, and obey noGrad and signals', async () => {
    const x = rand([3], { requiresGrad: true });
    const criterion = new CrossEntropyLoss();
    const target = labels(1).squeeze();
    expect((await criterion.forward(x, target)).requiresGrad).to.equal(true);
    expect((await noGrad(() => criterion.forward(x, target))).requiresGrad).to.equal(false);
    const signal = AbortSignal.abort('enough');
    await expectRejection(criterion.forward(x, target, { signal }), 'ERR_SENET_ABORTED');
    await expectRejection(new L1Loss().forward(x, x, { signal: 1 as never }), 'ERR_SENET_ARG_TYPE', /signal/);
  });
});
