#!/usr/bin/env node
'use strict';
// From the bytes of a 12-megapixel JPEG to the input of a network (decoding, resize to 256, crop to 224, normalisation),
// beside Pillow + torchvision on the same bytes in the same run: one image after the other, and 8 at a time. Every
// engine runs alone in a process of its own; the processes alternate.
//
// Target: at least 1.2 times as fast as Pillow + torchvision.
const { spawnSync } = require('node:child_process');
const { mkdtempSync, readFileSync, rmSync, writeFileSync } = require('node:fs');
const { availableParallelism, tmpdir } = require('node:os');
const path = require('node:path');
const { parseArgs } = require('node:util');
const { findPython, median, runJson, spread } = require('./peers');
const { makePhotograph } = require('./photograph');

const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    images: { type: 'string', default: '16' },
    threads: { type: 'string', default: String(availableParallelism()) },
    python: { type: 'string' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
    measure: { type: 'string' }, // internal: the file, to be measured in this process
    shrink: { type: 'boolean', default: false }, // internal: with shrinkOnLoad
  },
});

const TOGETHER = 8;
const TARGET = 1.2;

const PYTHON = `
import concurrent.futures, io, json, sys, time, torch
from PIL import Image
from torchvision import transforms
file, count, threads, together = sys.argv[1], *map(int, sys.argv[2:5])
torch.set_num_threads(threads)
transform = transforms.Compose([
    transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(),
    transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
])
with open(file, "rb") as opened:
    data = opened.read()
def prepare(_):
    return transform(Image.open(io.BytesIO(data)).convert("RGB")).unsqueeze(0)
checksum = float(prepare(0).double().mean())
def each(run, count):
    started = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - started) / count
single = sorted(each(lambda: prepare(0), 1) for _ in range(count))[count // 2]
with concurrent.futures.ThreadPoolExecutor(together) as pool:
    list(pool.map(prepare, range(together)))
    concurrent = each(lambda: list(pool.map(prepare, range(count))), count)
print(json.dumps({"single": single, "concurrent": concurrent, "checksum": checksum}))
`;

/** What `classify` does before the network, as it does it. */
async function measure(file) {
  const { configure } = require('../..');
  const { IMAGENET } = require('../../dist/models/preprocessing-record');
  const { MAX_PIXELS } = require('../../dist/vision/decode');
  const { ImageWork } = require('../../dist/vision/image-work');
  configure({ threadsPerWorker: Number(options.threads) });
  const bytes = readFileSync(file);
  const count = Number(options.images);
  const decoding = { shrinkOnLoad: options.shrink, maxPixels: MAX_PIXELS };
  const { signal } = new AbortController();
  const prepare = async () => {
    const work = new ImageWork(bytes, IMAGENET, decoding, 1, false);
    await work.decode(
      async () => {},
      () => {},
    );
    await work.preprocess(async () => {}, signal);
    return work;
  };
  const first = await prepare();
  const checksum = first.input.to('float64').mean().item();
  const times = [];
  for (let i = 0; i < count; i++) {
    const start = performance.now();
    (await prepare()).dispose();
    times.push(performance.now() - start);
  }
  let left = count;
  const caller = async () => {
    while (left-- > 0) (await prepare()).dispose();
  };
  const start = performance.now();
  await Promise.all(Array.from({ length: TOGETHER }, caller));
  const concurrent = (performance.now() - start) / count;
  console.log(JSON.stringify({ single: median(times), concurrent, checksum }));
}

async function main() {
  if (options.help) {
    console.log(
      'usage: node scripts/bench/image.js [--rounds 5] [--images 16] [--threads N] [--python PATH] [--json]\n\n' +
        'Python needs torch, torchvision and Pillow.',
    );
    return;
  }
  const python = findPython(options.python);
  const ready =
    python !== null &&
    spawnSync(python.python, ['-c', 'import PIL, torchvision'], { stdio: 'ignore' }).status === 0;
  const folder = mkdtempSync(path.join(tmpdir(), 'senet-bench-'));
  try {
    const file = path.join(folder, 'photograph.jpg');
    const bytes = await makePhotograph();
    writeFileSync(file, bytes);
    const { images, threads } = options;
    const own = [__filename, '--measure', file, '--images', images, '--threads', threads];
    const engines = {
      'senet-torch': () => runJson(process.execPath, own),
      'senet-torch, shrinkOnLoad': () => runJson(process.execPath, [...own, '--shrink']),
    };
    if (ready) {
      engines['Pillow + torchvision'] = () =>
        runJson(python.python, ['-c', PYTHON, file, images, threads, String(TOGETHER)]);
    }
    const runs = Object.fromEntries(Object.keys(engines).map((name) => [name, []]));
    for (let round = 0; round < Number(options.rounds); round++) {
      for (const [name, run] of Object.entries(engines)) runs[name].push(run());
    }
    report(bytes.length, runs, ready ? python.version : null);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function report(fileBytes, runs, torch) {
  const peer = runs['Pillow + torchvision'];
  const ratios = (name, fact) => peer?.map((run, round) => run[fact] / runs[name][round][fact]) ?? [];
  const verdict = peer && {
    single: median(ratios('senet-torch', 'single')) >= TARGET,
    concurrent: median(ratios('senet-torch', 'concurrent')) >= TARGET,
    // The same pixels up to rounding: means of normalised values.
    same: Math.abs(peer[0].checksum - runs['senet-torch'][0].checksum) < 0.01,
  };
  if (options.json) {
    console.log(JSON.stringify({ pytorch: torch, fileBytes, verdict, milliseconds: runs }, null, 2));
    return;
  }
  console.log(
    `a 12-megapixel JPEG of ${(fileBytes / 1e6).toFixed(1)} MB to 1 x 3 x 224 x 224; ms an image, median (range) of ${options.rounds} runs`,
  );
  console.log(`${''.padEnd(28)}${'one by one'.padEnd(30)}${TOGETHER} at a time`);
  for (const [name, all] of Object.entries(runs)) {
    const cells = ['single', 'concurrent'].map((fact) => {
      const ratio =
        name === 'Pillow + torchvision' || !peer ? '' : `  ${median(ratios(name, fact)).toFixed(2)}x`;
      return `${spread(all.map((run) => run[fact]))}${ratio}`.padEnd(30);
    });
    console.log(`${name.padEnd(28)}${cells.join('')}`.trimEnd());
  }
  if (!peer) {
    console.log(
      'Pillow + torchvision: absent (no Python with torch, torchvision and Pillow; name one with --python or SENET_BENCH_PYTHON)',
    );
    return;
  }
  const said = (holds) => (holds ? 'yes' : 'NO');
  console.log(
    `at least ${TARGET} x as fast: one by one ${said(verdict.single)}, ${TOGETHER} at a time ${said(verdict.concurrent)}; the same input: ${said(verdict.same)}`,
  );
}

(options.measure === undefined ? main() : measure(options.measure)).catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
