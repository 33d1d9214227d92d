/**
 * int8 against onnxruntime's (`scripts/fixtures/make_int8.py`): networks whose weights are drawn by the rule of
 * `fixtures/zoo/README.md`, calibrated and compared with float32 on the same parts of a photograph.
 */
import { readFileSync } from 'node:fs';
import path from 'node:path';

import { expect } from 'chai';
import sharp from 'sharp';

import {
  createModel,
  manualSeed,
  ops,
  tensor,
  tidy,
  type Module,
  type ModelName,
  type Tensor,
} from '../../lib';
import { numbers, relativeError } from '../support/parity';
import { drawn } from '../support/zoo-weights';

const FIXTURES = path.join(__dirname, '..', 'fixtures');
const SIDE = 224;
const MEAN = [0.485, 0.456, 0.406];
const STD = [0.229, 0.224, 0.225];

interface Record {
  readonly calibration: [number, number];
  readonly test: [number, number];
  readonly cases: readonly {
    readonly model: ModelName;
    readonly seed: number;
    readonly onnxruntime: number;
    readonly logits: readonly number[];
  }[];
}

const record = JSON.parse(readFileSync(path.join(FIXTURES, 'int8.json'), 'utf8')) as Record;

/** The parts of the photograph from one number to another, as `make_int8.py` takes them. */
async function parts([first, end]: [number, number]): Promise<Tensor> {
  const { data, info } = await sharp(path.join(FIXTURES, 'images', 'photo.jpg'), { ignoreIcc: true })
    .raw()
    .toBuffer({ resolveWithObject: true });
  const input = new Float32Array((end - first) * 3 * SIDE * SIDE);
  let place = 0;
  for (let index = first; index < end; index++) {
    const top = (index * 23) % (info.height - SIDE + 1);
    const left = (index * 37) % (info.width - SIDE + 1);
    for (let channel = 0; channel < 3; channel++) {
      for (let y = 0; y < SIDE; y++) {
        for (let x = 0; x < SIDE; x++) {
          const column = left + (index % 2 === 1 ? SIDE - 1 - x : x);
          const value = data[((top + y) * info.width + column) * info.channels + channel] ?? 0;
          input[place++] = (value / 255 - (MEAN[channel] ?? 0)) / (STD[channel] ?? 1);
        }
      }
    }
  }
  return tensor(input, { shape: [end - first, 3, SIDE, SIDE] });
}

function drawInto(model: Module<unknown>, seed: number): void {
  [...model.stateDict()].forEach(([key, value], index) => {
    manualSeed(seed * 1000 + index);
    tidy(() => void ops.call('aten::copy_', value, drawn(key, [...value.shape])));
  });
}

describe('int8 beside onnxruntime', function () {
  this.timeout(120_000);
  for (const { model: name, seed, onnxruntime, logits } of record.cases) {
    it(`${name} is no further from float32`, async () => {
      const model = createModel(name, { initWeights: false }) as Module;
      model.eval();
      drawInto(model, seed);
      const test = await parts(record.test);
      const expected = numbers(await model.forward(test));
      expect(relativeError(expected.slice(0, logits.length), [...logits])).to.be.below(1e-4); // it is the same network
      const compiled = await model.compile({ dtype: 'int8', calibration: await parts(record.calibration) });
      const error = relativeError(numbers(await compiled.forward(test)), expected);
      expect(error).to.be.at.most(onnxruntime);
      compiled.dispose();
      model.dispose();
    });
  }
});
