/** What training steps came to, read a step late as on a device. */
import { expect } from 'chai';

import { makeError } from '../../lib/errors';
import { tensor } from '../../lib/tensor/factories';
import { tidy } from '../../lib/tensor/scope';
import { StepReadings } from '../../lib/train/readings';
import { expectRejection, expectThrow } from '../support/errors';

function add(readings: StepReadings, loss: number, right: number, images: number): void {
  const check = (value: number): void => {
    if (!Number.isFinite(value)) throw makeError('ERR_SENET_NAN_LOSS', String(value));
  };
  // The tensors go with the step.
  tidy(() => readings.add(tensor(loss), tensor(right), { images, check }));
}

describe('readings of training steps', () => {
  it('at once: sums since they were last taken', async () => {
    const readings = new StepReadings(0);
    add(readings, 0.5, 3, 4);
    add(readings, 2, 1, 2);
    expect(readings.outstanding).to.equal(0);
    expect(await readings.take(false)).to.deep.equal({ loss: 6, right: 4, images: 6 });
    expect(await readings.take(true)).to.deep.equal({ loss: 0, right: 0, images: 0 });
    expectThrow(() => add(readings, NaN, 0, 1), 'ERR_SENET_NAN_LOSS');
  });

  it('a step late: the last one is left out until all are wanted', async () => {
    const readings = new StepReadings(1);
    add(readings, 0.5, 3, 4);
    expect(await readings.take(false)).to.deep.equal({ loss: 0, right: 0, images: 0 });
    expect(readings.outstanding).to.equal(1);
    add(readings, 2, 1, 2);
    expect(await readings.take(false)).to.deep.equal({ loss: 2, right: 3, images: 4 });
    add(readings, 1, 1, 1);
    expect(await readings.take(true)).to.deep.equal({ loss: 5, right: 2, images: 3 });
    expect(readings.outstanding).to.equal(0);
  });

  it('a step late: a loss that ends the run does so when it is read', async () => {
    const readings = new StepReadings(1);
    add(readings, Infinity, 0, 1);
    await readings.take(false);
    add(readings, 1, 1, 1);
    await expectRejection(readings.take(false), 'ERR_SENET_NAN_LOSS');
  });
});
