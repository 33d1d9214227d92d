#!/usr/bin/env node
'use strict';
// Many images from a folder to a file: generates small images, runs `senet-torch classify --recursive --output` over them
// as a process of its own, and prints its rate, its memory while it works, and how busy the network was; beside it the
// rate of the network alone, on pixels that are in memory.
const { spawn } = require('node:child_process');
const {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { performance } = require('node:perf_hooks');
const { parseArgs } = require('node:util');

const ROOT = path.join(__dirname, '..', '..');
const sharp = require('sharp');

const { values: options, positionals } = parseArgs({
  options: {
    keep: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  },
  allowPositionals: true,
});
const [count = '100000', ending = '.jsonl'] = positionals;
const IMAGES = Number(count);
const PER_FOLDER = 1000;
const [WIDTH, HEIGHT] = [64, 48];

/** Blobs of colour, each image another: what a small photograph costs to decode. */
async function generate(folder) {
  let seed = 1;
  const random = () => ((seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0) >>> 8) & 255;
  for (let start = 0; start < IMAGES; start += PER_FOLDER) {
    const place = path.join(folder, String(start / PER_FOLDER).padStart(4, '0'));
    if (existsSync(place)) continue;
    mkdirSync(`${place}.part`, { recursive: true });
    const size = Math.min(PER_FOLDER, IMAGES - start);
    for (let image = 0; image < size; image += 8) {
      await Promise.all(
        Array.from({ length: Math.min(8, size - image) }, async (_, nth) => {
          const pixels = Buffer.from(Array.from({ length: 8 * 6 * 3 }, random));
          const jpeg = await sharp(pixels, { raw: { width: 8, height: 6, channels: 3 } })
            .resize(WIDTH, HEIGHT)
            .jpeg({ quality: 90 })
            .toBuffer();
          writeFileSync(
            path.join(`${place}.part`, `${String(start + image + nth).padStart(7, '0')}.jpg`),
            jpeg,
          );
        }),
      );
    }
    renameSync(`${place}.part`, place);
  }
}

function megabytesOf(pid) {
  try {
    return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? NaN) / 1024;
  } catch {
    return NaN;
  }
}

function classify(folder, output) {
  return new Promise((resolve, reject) => {
    const cli = path.join(ROOT, 'dist', 'cli', 'main.js');
    const child = spawn(
      process.execPath,
      [cli, 'classify', '--recursive', folder, '--output', output, '--json'],
      {
        stdio: ['ignore', 'pipe', 'inherit'],
      },
    );
    let out = '';
    child.stdout.on('data', (data) => (out += data));
    const began = performance.now();
    const memory = [];
    const timer = setInterval(() => {
      const megabytes = megabytesOf(child.pid);
      if (Number.isFinite(megabytes)) memory.push([(performance.now() - began) / 1000, megabytes]);
    }, 1000);
    child.on('error', reject);
    child.on('close', (code) => {
      clearInterval(timer);
      if (code !== 0) reject(new Error(`exit code ${code}`));
      else resolve({ report: JSON.parse(out), memory });
    });
  });
}

/** Images a second of the network alone, in batches as the classifier makes them. */
async function networkAlone() {
  const { ImageClassifier, zeros } = require(path.join(ROOT, 'dist'));
  const classifier = await ImageClassifier.load('se_resnet20', { weights: 'fashion_mnist' });
  const pixels = zeros([16, 1, 28, 28], { dtype: 'uint8' });
  const run = async (times) => {
    const began = performance.now();
    for (let time = 0; time < times; time++) await classifier.classifyBatch(pixels);
    return (16 * times) / ((performance.now() - began) / 1000);
  };
  await run(20);
  const rate = await run(200);
  await classifier.dispose();
  return rate;
}

async function main() {
  if (options.help) {
    console.log(
      'usage: node scripts/bench/bulk.js [IMAGES, default 100000] [ENDING, default .jsonl] [--keep]\n\n' +
        'SENET_BENCH_FOLDER: a folder of an earlier run, whose images are taken.',
    );
    return;
  }
  const own = process.env.SENET_BENCH_FOLDER;
  const place = own ?? mkdtempSync(path.join(os.tmpdir(), 'senet-bulk-'));
  const folder = path.join(place, 'images');
  await generate(folder);
  const output = path.join(place, `answers${ending}`);
  for (const file of [output, `${output}.run.json`]) rmSync(file, { recursive: true, force: true });
  const { report, memory } = await classify(folder, output);
  const alone = await networkAlone();
  console.log(`${os.cpus()[0].model.trim()}, ${os.availableParallelism()} cores, Node ${process.version}`);
  console.log(
    `${report.rows} JPEGs of ${WIDTH} x ${HEIGHT} to se_resnet20, rows in ${path.basename(output)}`,
  );
  console.log(`${report.seconds.toFixed(1)} s, ${report.imagesPerSecond.toFixed(0)} images/s`);
  console.log(`a batch in the network ${(100 * report.networkShare).toFixed(0)} % of the time`);
  console.log(
    `the network alone, with its preprocessing: ${alone.toFixed(0)} images/s, so ${((100 * report.imagesPerSecond) / alone).toFixed(0)} % of its rate`,
  );
  const at = (share) => memory[Math.min(memory.length - 1, Math.floor(share * memory.length))];
  const line = [0.05, 0.1, 0.25, 0.5, 0.75, 0.99].map((share) => {
    const [seconds, megabytes] = at(share) ?? [0, NaN];
    return `${megabytes.toFixed(0)} MB at ${seconds.toFixed(0)} s`;
  });
  console.log(
    `resident memory: ${line.join(', ')}; most ${Math.max(...memory.map(([, most]) => most)).toFixed(0)} MB`,
  );
  console.log(`output: ${(statSync(output).size / 1e6).toFixed(1)} MB`);
  if (!options.keep && own === undefined) rmSync(place, { recursive: true });
}

void main();
