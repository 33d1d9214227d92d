'use strict';
// Unpacks the wanted part of a zip archive. Names that leave the folder are refused (by yauzl and again here); checksums
// are verified, so a truncated or damaged archive is an error.
const { createWriteStream, mkdirSync } = require('node:fs');
const path = require('node:path');
const { pipeline } = require('node:stream/promises');
const { crc32 } = require('node:zlib');
const { Transform } = require('node:stream');
const yauzl = require('yauzl');

/** `wanted(name)` gives the path to write an entry to, below `folder`, or null. */
async function extractZip(file, folder, wanted) {
  const zip = await yauzl.openPromise(file, { lazyEntries: true, validateEntrySize: true });
  try {
    for await (const entry of zip.eachEntry()) {
      const name = wanted(entry.fileName);
      if (name === null || entry.fileName.endsWith('/')) continue;
      const target = path.join(folder, name);
      if (path.relative(folder, target).startsWith('..'))
        throw new Error(`${file}: the entry ${entry.fileName} leaves the folder`);
      mkdirSync(path.dirname(target), { recursive: true });
      let sum = 0;
      const summed = new Transform({
        transform(chunk, _encoding, done) {
          sum = crc32(chunk, sum);
          done(null, chunk);
        },
      });
      await pipeline(await zip.openReadStreamPromise(entry), summed, createWriteStream(target));
      if (sum !== entry.crc32) throw new Error(`${file}: the entry ${entry.fileName} is damaged (checksum)`);
    }
  } finally {
    zip.close();
  }
}

module.exports = { extractZip };
