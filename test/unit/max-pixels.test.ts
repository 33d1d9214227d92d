/** `maxPixels` of a classifier: how large an image file may say that it is, whatever decodes it. */
import { expect } from 'chai';
import sharp from 'sharp';

import { createInferenceHandler, ImageClassifier } from '../../lib';
import { expectRejection } from '../support/errors';
import { ask as request, loadBundled } from '../support/serving';

const SIDE = 40;
const picture = sharp({ create: { width: SIDE, height: SIDE, channels: 3, background: 'teal' } });
const ppm = Buffer.concat([Buffer.from(`P6 ${SIDE} ${SIDE} 255\n`), Buffer.alloc(3 * SIDE * SIDE)]);

describe('maxPixels', () => {
  let least: ImageClassifier;
  let enough: ImageClassifier;
  let files: Record<string, Buffer>;

  before(async () => {
    least = await loadBundled({ maxPixels: SIDE * SIDE - 1 });
    enough = await loadBundled({ maxPixels: SIDE * SIDE });
    files = {
      jpeg: await picture.clone().jpeg().toBuffer(),
      progressive: await picture.clone().jpeg({ progressive: true }).toBuffer(),
      png: await picture.clone().png().toBuffer(),
      interlaced: await picture.clone().png({ progressive: true }).toBuffer(),
      webp: await picture.clone().webp().toBuffer(),
      gif: await picture.clone().gif().toBuffer(),
      tiff: await picture.clone().tiff().toBuffer(),
      ppm,
    };
  });
  after(() => Promise.all([least.dispose(), enough.dispose()]));

  it('bounds every format, for labels and for explanations', async () => {
    for (const [format, bytes] of Object.entries(files)) {
      expect(await enough.classify(bytes), format).to.have.length(5);
      for (const ask of [() => least.classify(bytes), () => least.explain(bytes)])
        await expectRejection(ask(), 'ERR_SENET_IMAGE_SIZE', /at most 1599 pixels, the image has 40 x 40/);
    }
  });

  it('is 413 of a server', async () => {
    const handler = createInferenceHandler({ net: least });
    const { status, json } = await request(handler, 'POST', '/classify', {
      headers: { 'content-type': 'image/webp' },
      body: files.webp as Buffer,
    });
    expect([status, json.code]).to.deep.equal([413, 'ERR_SENET_IMAGE_SIZE']);
  });

  it('is a number of pixels, and never more than are decoded at all', async () => {
    const load = (maxPixels: unknown): Promise<unknown> => loadBundled({ maxPixels: maxPixels as number });
    for (const given of [0, -1, 1.5, NaN, 2 ** 53, 89_478_486])
      await expectRejection(load(given), 'ERR_SENET_ARG_RANGE', /maxPixels/);
    for (const given of ['100', null, true])
      await expectRejection(load(given), 'ERR_SENET_ARG_TYPE', /maxPixels/);
  });
});
