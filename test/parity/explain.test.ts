/** Gates and class activation maps against PyTorch's (`scripts/fixtures/make_cam_parity.py`). */
import { expect } from 'chai';
import { readFileSync } from 'node:fs';
import path from 'node:path';

import { createModel, load, manualSeed, rand, tidy, type Module, type Tensor } from '../../lib';
import { CAM_METHODS, type CamMethod } from '../../lib/explain/cam-methods';
import { classActivationMap } from '../../lib/explain/class-activation-map';
import { excitations } from '../../lib/explain/excitations';
import { bundledImages } from '../../lib/vision/bundled-images';
import { loadParts } from '../../lib/vision/classifier-loading';
import { openImage } from '../../lib/vision/decode';
import { preprocess, toPixels } from '../../lib/vision/preprocessing';
import { drawn } from '../support/zoo-weights';

interface Case {
  name: 'se_resnet20' | 'legacy_seresnet18';
  target: number;
  logits: number[];
  gates: Record<string, { channels: number; mean: number; head: number[] }>;
  layers: Record<string, Record<CamMethod, number[]>>;
}

const ROOT = path.join(__dirname, '..', '..');
const { cases } = JSON.parse(
  readFileSync(path.join(ROOT, 'test', 'fixtures', 'cam-parity.json'), 'utf8'),
) as { cases: Case[] };

async function makeCase(name: Case['name']): Promise<{ model: Module<unknown>; x: Tensor }> {
  if (name === 'se_resnet20') {
    const model = createModel('se_resnet20', { numClasses: 10, reduction: 4, initWeights: false });
    const state = await load(path.join(ROOT, 'assets', 'weights', 'se_resnet20_fashion_mnist.safetensors'));
    model.loadStateDict(state);
    state.dispose();
    return { model, x: await boot() };
  }
  const model = createModel('legacy_seresnet18', { numClasses: 5 });
  const state = model.stateDict();
  [...state].forEach(([key, value], index) => {
    manualSeed(3 * 1000 + index);
    tidy(() => value.copy_(drawn(key, [...value.shape])));
  });
  manualSeed(11);
  return { model, x: rand([1, 3, 64, 64]) };
}

/** The first bundled image as the network sees it. */
async function boot(): Promise<Tensor> {
  const { predictor, preprocessing } = await loadParts('se_resnet20', { weights: 'fashion_mnist' });
  predictor.dispose();
  const [file] = await bundledImages();
  const pixels = await toPixels(await (await openImage(file as string)).decode());
  return preprocess(pixels, preprocessing);
}

for (const { name, target, logits, gates, layers } of cases) {
  for (const dtype of ['float32', 'float64'] as const) {
    describe(`parity: explain ${name}, ${dtype}`, () => {
      // Of float32, rounding; of float64, that of the fixture's seven digits.
      const tolerance = dtype === 'float32' ? 1e-5 : 1e-6;
      let model: Module<unknown>;
      let x: Tensor;
      before(async () => {
        const made = await makeCase(name);
        model = made.model.to(dtype); // in training mode: what is looked at is evaluation mode
        x = made.x.to(dtype);
      });
      after(() => {
        model.dispose();
        x.dispose();
      });

      it('gates', async () => {
        const found = await excitations(model, x);
        expect([...found.keys()]).to.deep.equal(Object.keys(gates));
        for (const [where, expected] of Object.entries(gates)) {
          const gate = found.get(where) as Tensor;
          expect(gate.shape, where).to.deep.equal([1, expected.channels]);
          const values = gate.flatten().toArray() as number[];
          expected.head.forEach((value, i) => expect(values[i], where).to.be.closeTo(value, 1e-6));
          const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
          expect(mean, where).to.be.closeTo(expected.mean, 1e-6);
          gate.dispose();
        }
      });

      for (const [layer, methods] of Object.entries(layers)) {
        for (const method of CAM_METHODS) {
          it(`${method} of ${layer}`, async () => {
            const found = await classActivationMap(model, x, { method, layer, target });
            const expected = methods[method];
            const values = found.map.flatten().toArray() as number[];
            expect(values).to.have.length(expected.length);
            const worst = Math.max(...values.map((value, i) => Math.abs(value - (expected[i] as number))));
            expect(worst).to.be.at.most(tolerance);
            expect(Math.max(...values)).to.be.closeTo(1, 1e-3);
            const scores = found.scores.flatten().toArray() as number[];
            logits.forEach((value, i) => expect(scores[i]).to.be.closeTo(value, 1e-4));
            expect(found).to.deep.include({ layer, targets: [target] });
            found.map.dispose();
            found.scores.dispose();
          });
        }
      }
    });
  }
}
