/** GradScaler beside torch.amp.GradScaler: scales to the bit, parameters after each step, the state dict. */
import { readFileSync } from 'node:fs';
import path from 'node:path';

import { expect } from 'chai';

import { AdamW, clipGradNorm_, GradScaler, SGD, tensor, type GradScalerState } from '../../lib';

interface Recorded {
  readonly start: number[];
  readonly gradients: (number | string)[][];
  readonly options: {
    init_scale: number;
    growth_factor: number;
    backoff_factor: number;
    growth_interval: number;
  };
  readonly cases: {
    readonly optimizer: 'SGD' | 'AdamW';
    readonly maxNorm: number | null;
    readonly steps: { scale: number; x: number[] }[];
    readonly state: GradScalerState;
  }[];
}

const recorded = JSON.parse(
  readFileSync(path.join(__dirname, '..', 'fixtures', 'grad-scaler.json'), 'utf8'),
) as Recorded;

describe('parity: GradScaler', () => {
  for (const { optimizer: name, maxNorm, steps, state } of recorded.cases) {
    it(`${name}${maxNorm === null ? '' : ', clipped'}`, async () => {
      const x = tensor(recorded.start, { requiresGrad: true });
      const optimizer =
        name === 'SGD'
          ? new SGD([x], { lr: 0.1, momentum: 0.9, weightDecay: 0.01, nesterov: true })
          : new AdamW([x], { lr: 0.1, weightDecay: 0.01, amsgrad: true });
      const { init_scale, growth_factor, backoff_factor, growth_interval } = recorded.options;
      const scaler = new GradScaler({
        initScale: init_scale,
        growthFactor: growth_factor,
        backoffFactor: backoff_factor,
        growthInterval: growth_interval,
      });
      for (const [i, expected] of steps.entries()) {
        optimizer.zeroGrad();
        const loss = x.mul(tensor((recorded.gradients[i] as number[]).map(Number))).sum();
        await scaler.scale(loss).backward();
        if (maxNorm !== null) {
          await scaler.unscale_(optimizer);
          await clipGradNorm_([x], maxNorm);
        }
        await scaler.step(optimizer);
        scaler.update();
        expect(scaler.getScale(), `step ${i}`).to.equal(expected.scale);
        for (const [j, value] of (x.toArray() as number[]).entries())
          expect(value, `step ${i}, ${j}`).to.be.closeTo(expected.x[j] as number, 5e-7);
      }
      expect(scaler.stateDict()).to.deep.equal(state);
    });
  }
});
