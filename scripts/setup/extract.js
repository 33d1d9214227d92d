'use strict';
// Unpacks the wanted part of a zip archive. Names that leave the folder are refused (by yauzl and again here), and so are
// symbolic links to anything but a name beside them; checksums are verified, so a truncated or damaged archive is an
// error.
const { createWriteStream, mkdirSync, symlinkSync } = require('node:fs');
const path = require('node:path');
const { text } = require('node:stream/consumers');
const { pipeline } = require('node:stream/promises');
const { crc32 } = require('node:zlib');
const { Transform } = require('node:stream');
const yauzl = require('yauzl');

/** `wanted(name)` gives the path to write an entry to, below `folder`, or null. */
async function extractZip(file, folder, wanted) {
  const zip = await yauzl.openPromise(file, { lazyEntries: true, validateEntrySizes: true });
  try {
    for await (const entry of zip.eachEntry()) {
      const name = wanted(entry.fileName);
      if (name === null || entry.fileName.endsWith('/')) continue;
      const target = path.join(folder, name);
      if (path.relative(folder, target).startsWith('..'))
        throw new Error(`${file}: the entry ${entry.fileName} leaves the folder`);
      mkdirSync(path.dirname(target), { recursive: true });
      const readable = await zip.openReadStreamPromise(entry);
      // The upper half of the external attributes is the Unix mode.
      if (((entry.externalFileAttributes >>> 16) & 0o170000) === 0o120000) {
        const link = await text(readable);
        if (link === '.' || link === '..' || /[/\0]/.test(link))
          throw new Error(`${file}: the entry ${entry.fileName} is a link to ${link}, outside its folder`);
        symlinkSync(link, target);
        continue;
      }
      let sum = 0;
      const summed = new Transform({
        transform(chunk, _encoding, done) {
          sum = crc32(chunk, sum);
          done(null, chunk);
        },
      });
      await pipeline(readable, summed, createWriteStream(target));
      if (sum !== entry.crc32) throw new Error(`${file}: the entry ${entry.fileName} is damaged (checksum)`);
    }
  } finally {
    zip.close();
  }
}

module.exports = { extractZip };
