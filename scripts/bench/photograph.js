'use strict';
// A JPEG with the statistics of a photograph (detail at every scale, the coarser the stronger), made from seeded noise:
// decoding it costs what decoding a camera's picture costs, and nothing needs to be downloaded.
const sharp = require('sharp');

/** Uniform bytes of a linear congruential generator. */
function makeNoise(length, seed) {
  let state = seed;
  return Uint8Array.from({ length }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state >>> 24;
  });
}

/** The bytes of a JPEG (quality 90, 4:2:0); 12 megapixels, as of a telephone's camera, by default. */
async function makePhotograph(width = 4000, height = 3000) {
  const sums = new Float32Array(width * height * 3);
  let weight = 0.3;
  for (const scale of [1024, 256, 64, 16, 4, 1]) {
    const size = { width: Math.ceil(width / scale), height: Math.ceil(height / scale) };
    const noise = makeNoise(size.width * size.height * 3, size.width);
    const layer = await sharp(noise, { raw: { ...size, channels: 3 } })
      .resize(width, height, { fit: 'fill', kernel: 'cubic' })
      .raw()
      .toBuffer();
    for (let i = 0; i < sums.length; i++) sums[i] += weight * layer[i];
    weight *= 0.75;
  }
  const pixels = Uint8Array.from(sums);
  return sharp(pixels, { raw: { width, height, channels: 3 } })
    .jpeg({ quality: 90 })
    .toBuffer();
}

module.exports = { makePhotograph };
