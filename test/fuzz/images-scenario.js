'use strict';
// `node images-scenario.js SEED COUNT`: damaged JPEGs and PNGs, row by row and as whole pictures. Prints how many ended
// how, as JSON, and exits with 1 at the first that the two ways do not agree on. images.test.ts looks at how it ended.
// Runs on dist, since a crash must take no test with it.
require('../../dist');
const sharp = require('sharp');
const { isSenetError } = require('../../dist/errors');
const { openImage } = require('../../dist/vision/decode');
const { prepareByRows } = require('../../dist/vision/input-by-rows');
const { preprocess, toPixels } = require('../../dist/vision/preprocessing');

const [seed, count] = process.argv.slice(2).map(Number);
const RECORD = {
  ...{ channels: 'rgb', size: 20, crop: [16, 16], pad: 1, interpolation: 'bilinear' },
  ...{ mean: [0.5], std: [0.5] },
};

let state = seed >>> 0;
/** Below `end`. */
function draw(end) {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 2 ** 32) * end);
}

async function makeFiles() {
  const [width, height] = [83, 61];
  const noise = Uint8Array.from({ length: width * height * 3 }, (_, at) => (at % 200) + draw(50));
  const image = () => sharp(noise, { raw: { width, height, channels: 3 } });
  return Promise.all([
    image().jpeg().toBuffer(),
    image().jpeg({ progressive: true, chromaSubsampling: '4:4:4' }).toBuffer(),
    image().greyscale().withMetadata({ orientation: 6 }).jpeg().toBuffer(),
    image().jpeg({ optimiseScans: true }).toBuffer(),
    image().png().toBuffer(),
    image().png({ progressive: true }).toBuffer(),
    image().png({ palette: true, colours: 16 }).toBuffer(),
    image().ensureAlpha(0.5).png().toBuffer(),
  ]);
}

function damage(bytes) {
  const kind = draw(5);
  if (kind === 0) return bytes.subarray(0, draw(bytes.length));
  const copy = Buffer.from(bytes);
  // Headers count for more than their length.
  const place = () => draw(draw(2) === 0 ? Math.min(700, copy.length) : copy.length);
  if (kind === 1) return Buffer.concat([copy.subarray(0, place()), copy.subarray(place())]);
  if (kind === 2) copy.fill(draw(256), place(), place());
  else for (let changes = 1 + draw(kind === 3 ? 1 : 20); changes > 0; changes--) copy[place()] = draw(256);
  return copy;
}

async function outcomeOf(work) {
  try {
    const x = await work();
    if (x === undefined) return undefined;
    const bits = Buffer.from(x.contiguous().toTypedArray().buffer);
    x.dispose();
    return { bits };
  } catch (error) {
    if (!isSenetError(error)) throw error;
    return { code: error.code };
  }
}

async function main() {
  const files = await makeFiles();
  const ends = { direct: 0, whole: 0 };
  for (let run = 0; run < count; run++) {
    const bytes = damage(files[run % files.length]);
    const reserve = async () => {};
    const options = { record: RECORD, shrinkOnLoad: false, borrowed: run % 2 === 0, reserve };
    const shrinking = { ...options, shrinkOnLoad: true, record: { ...RECORD, size: 7, crop: null } };
    const [direct, whole] = await Promise.all([
      outcomeOf(() => prepareByRows(bytes, options)),
      outcomeOf(async () => preprocess(await toPixels(await (await openImage(bytes)).decode()), RECORD)),
      outcomeOf(() => prepareByRows(bytes, shrinking)),
    ]);
    if (direct === undefined) {
      const end = whole.code ?? 'whole';
      ends[end] = (ends[end] ?? 0) + 1;
    } else if (direct.bits !== undefined && whole.bits !== undefined && direct.bits.equals(whole.bits)) {
      ends.direct++;
    } else {
      const told = [direct, whole].map(({ code }) => code ?? 'bits');
      throw new Error(`run ${run}: ${told.join(' and ')} of ${bytes.toString('base64')}`);
    }
  }
  console.log(JSON.stringify(ends));
}

main().catch((error) => {
  console.error(error.stack);
  process.exit(1);
});
