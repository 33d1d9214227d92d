/** `senet-torch explain` and `senet-torch excitations` as processes: what they print and write, wrong usage, Ctrl-C. */
import { spawn } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { expect } from 'chai';

import type { ExplanationJson } from '../../lib';
import type { ClassExcitationsJson } from '../../lib/serve/page-data';
import { CLI, DIST } from '../support/built';
import { Temporary } from '../support/temporary';

const ROOT = path.join(__dirname, '..', '..');
const IMAGES = path.join(ROOT, 'assets', 'images');
const BOOT = path.join(IMAGES, '00-ankle-boot.png');

interface Outcome {
  code: number | null;
  out: string;
  err: string;
}

function run(args: readonly string[]): Promise<Outcome> {
  return runNode([CLI, ...args]);
}

function runNode(args: readonly string[]): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, args, { cwd: ROOT });
    const outcome: Outcome = { code: null, out: '', err: '' };
    child.stdout.on('data', (chunk: Buffer) => (outcome.out += chunk.toString()));
    child.stderr.on('data', (chunk: Buffer) => (outcome.err += chunk.toString()));
    child.on('error', reject);
    child.on('close', (code) => resolve({ ...outcome, code }));
  });
}

describe('senet-torch explain', function () {
  this.timeout(120_000);
  const temporary = new Temporary();
  after(() => temporary.cleanUp());

  it('prints labels, a sketch of the map and the SE layers', async () => {
    const { code, out, err } = await run([
      'explain',
      BOOT,
      '--cam',
      'layercam',
      '--layer',
      'layer2.2',
      '-k',
      '2',
    ]);
    expect(err).to.equal('');
    expect(code).to.equal(0);
    const lines = out.split('\n');
    expect(lines[0]).to.equal(BOOT);
    expect(lines[1]).to.match(/^ +95\.\d+ % {2}Ankle boot$/);
    expect(out).to.match(/Where it looked for Ankle boot: layercam of layer2\.2/);
    expect(lines.filter((line) => line.includes('@'))).to.not.be.empty;
    expect(out).to.match(/^ {2}layer3\.2\.se +64( +0\.\d{3}){3} +\d+$/m);
  });

  it('prints JSON of several, for a class by its label', async () => {
    const bag = path.join(IMAGES, '18-bag.png');
    const { code, out } = await run(['explain', BOOT, bag, '--json', '--target', 'Bag']);
    expect(code).to.equal(0);
    const all = JSON.parse(out) as (ExplanationJson & { file: string })[];
    expect(all.map(({ file }) => file)).to.deep.equal([BOOT, bag]);
    for (const { target, layer, map, excitations } of all) {
      expect(target).to.include({ label: 'Bag', index: 8 });
      expect(layer).to.equal('layer3.2');
      expect(map).to.include({ width: 32, height: 32, channels: 1 });
      expect(excitations).to.have.length(9);
    }
  });

  it('says what is wrong, and writes nothing', async () => {
    const output = temporary.path('page.html');
    const figure = temporary.path('figure.json');
    writeFileSync(figure, '{}');
    const cases: [string[], number, RegExp][] = [
      [['explain', BOOT, '--target', 'Hat'], 2, /--target: no label is 'Hat'.*ERR_SENET_ARG_RANGE/],
      [['explain', BOOT, '--layer', 'layer9', '-o', output], 2, /--layer: there is no module at 'layer9'/],
      [['explain', 'nowhere.png', '-o', output], 1, /nowhere\.png.*ERR_SENET_FILE_NOT_FOUND/],
      [['explain', BOOT, '--figure', figure], 1, /expected what senet-torch excitations --json prints/],
      [['explain', '--cam', 'cam'], 2, /Allowed choices/],
    ];
    for (const [args, code, words] of cases) {
      const outcome = await run(args);
      expect(outcome.err, args.join(' ')).to.match(words);
      expect(outcome.code, args.join(' ')).to.equal(code);
    }
    expect(readdirSync(temporary.folder)).to.deep.equal(['figure.json']);
  });
});

describe('senet-torch excitations', function () {
  this.timeout(120_000);
  const temporary = new Temporary();
  const folder = temporary.path('classes');
  before(() => {
    for (const [label, files] of [
      ['boot', ['00-ankle-boot.png']],
      ['trouser', ['02-trouser.png', '03-trouser.png', '05-trouser.png']],
      ['coat', ['06-coat.png', '10-coat.png']],
    ] as const) {
      mkdirSync(path.join(folder, label), { recursive: true });
      for (const file of files) cpSync(path.join(IMAGES, file), path.join(folder, label, file));
    }
  });
  after(() => temporary.cleanUp());

  it('measures the classes that are asked for', async () => {
    const { code, out } = await run([
      'excitations',
      folder,
      '--classes',
      'trouser',
      'boot',
      '-n',
      '2',
      '--json',
    ]);
    expect(code).to.equal(0);
    const { classes, layers, ablation } = JSON.parse(out) as ClassExcitationsJson;
    expect(classes).to.deep.equal([
      { label: 'trouser', images: 2 },
      { label: 'boot', images: 1 },
    ]);
    expect(layers.map(({ path: place, channels }) => [place, channels]).at(-1)).to.deep.equal([
      'layer3.2.se',
      64,
    ]);
    for (const { channels, all, classes: each, selectivity } of layers) {
      for (const { mean, deviation } of [all, ...each])
        expect([mean.length, deviation.length]).to.deep.equal([channels, channels]);
      expect(Math.min(...selectivity)).to.be.at.least(0);
    }
    expect(ablation).to.deep.equal([]);
  });

  it('says what is wrong before it works', async () => {
    for (const [args, code, words] of [
      [['excitations', folder, '-o', 'figure.txt'], 2, /expected \.json, \.csv or \.html/],
      [['excitations', folder, '--classes', 'hat'], 1, /no folder 'hat'/],
      [['excitations', temporary.path('nowhere')], 1, /ERR_SENET_FILE_NOT_FOUND/],
    ] as const) {
      const outcome = await run(args);
      expect(outcome.err, args.join(' ')).to.match(words);
      expect(outcome.code, args.join(' ')).to.equal(code);
    }
  });

  it('ends with 130 when it is interrupted, and leaves no file', async () => {
    const output = temporary.path('out.json');
    const args = [
      'excitations',
      folder,
      '--ablate',
      'layer1.0.se',
      'layer2.0.se',
      'last',
      '--output',
      output,
    ];
    const script = temporary.path('interrupted.js');
    writeFileSync(
      script,
      `const { main } = require(${JSON.stringify(CLI)});
       const { memory } = require(${JSON.stringify(DIST)});
       const timer = setInterval(() => {
         if (memory().jobs.running === 0 || process.listenerCount('SIGINT') === 0) return;
         clearInterval(timer);
         process.kill(process.pid, 'SIGINT');
       }, 1);
       void main(${JSON.stringify(args)}).finally(() => clearInterval(timer));`,
    );
    const { code, out, err } = await runNode([script]);
    expect([code, out]).to.deep.equal([130, '']);
    expect(err).to.match(/^error: .*aborted.* \[ERR_SENET_ABORTED\]\n$/);
    expect(existsSync(output)).to.equal(false);
  });
});
