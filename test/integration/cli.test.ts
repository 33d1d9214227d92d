/** The command line as a process: output, exit codes, errors in a line, Ctrl-C, closed pipes, no build. */
import { spawn } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { expect } from 'chai';
import sharp from 'sharp';

import {
  createModel,
  modelRecord,
  save,
  saveCheckpoint,
  se_resnet20,
  type CompiledPlan,
  type CompiledProfile,
  type TrainedRun,
} from '../../lib';
import { readIdx } from '../../lib/data/idx';
import { CLI, DIST } from '../support/built';
import { startHub } from '../support/hub-server';
import { HAS_FLOAT16 } from '../support/processor';
import { Temporary } from '../support/temporary';

const ROOT = path.join(__dirname, '..', '..');
const FIXTURES = path.join(__dirname, '..', 'fixtures');
const IMAGES = path.join(FIXTURES, 'fashion-mnist-500-images-idx3-ubyte.gz');
const LABELS = path.join(FIXTURES, 'fashion-mnist-500-labels-idx1-ubyte.gz');
const SANDAL = path.join(ROOT, 'assets', 'images', '08-sandal.png');
const recorded = JSON.parse(
  readFileSync(path.join(FIXTURES, 'se_resnet20_fashion_mnist-bundled.json'), 'utf8'),
) as {
  predictions: number[];
};

interface Outcome {
  code: number | null;
  signal: string | null;
  out: string;
  err: string;
}

interface Settings {
  root?: string;
  environment?: Record<string, string>;
  /** Closes the reading end at once. */
  closed?: boolean;
}

function run(args: readonly string[], settings: Settings = {}): Promise<Outcome> {
  const main = settings.root === undefined ? CLI : path.join(settings.root, 'dist', 'cli', 'main.js');
  return runNode([main, ...args], settings);
}

function runNode(
  args: readonly string[],
  { environment = {}, closed = false }: Settings = {},
): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, args, {
      cwd: ROOT,
      env: { ...process.env, ...environment },
    });
    let out = '';
    let err = '';
    if (closed) child.stdout.destroy();
    else child.stdout.on('data', (data: Buffer) => (out += data.toString()));
    child.stderr.on('data', (data: Buffer) => (err += data.toString()));
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({ code, signal, out, err }));
  });
}

async function expectUsageErrors(cases: readonly [string[], RegExp][]): Promise<void> {
  for (const [args, words] of cases) {
    const { code, out, err } = await run(args);
    expect(err).to.match(words);
    expect([code, out], args.join(' ')).to.deep.equal([2, '']);
    expect(err.trimEnd().split('\n').length).to.be.at.most(2);
  }
}

describe('senet-torch', () => {
  const temporary = new Temporary();
  after(() => temporary.cleanUp());

  describe('classify', () => {
    it('names what is on the bundled images, a line for each', async () => {
      const { code, out, err } = await run(['classify']);
      expect([code, err]).to.deep.equal([0, '']);
      const lines = out.trimEnd().split('\n');
      expect(lines).to.have.lengthOf(20);
      expect(lines[8]).to.match(/^08-sandal\.png +Sandal +9\d\.\d\d % +\S/);
    });

    it('prints the labels of one image below each other, best first', async () => {
      const { code, out } = await run(['classify', SANDAL, '--top-k', '2']);
      expect(code).to.equal(0);
      expect(out.split('\n')[0]).to.equal(SANDAL);
      expect(out.split('\n')[1]).to.match(/^ {2}Sandal +9\d\.\d\d %$/);
      expect(out.trimEnd().split('\n')).to.have.lengthOf(3);
    });

    it('goes on after a bad image, says what is wrong with it, and fails', async () => {
      const text = temporary.path('text.png');
      writeFileSync(text, 'text');
      const { code, out, err } = await run(['classify', '--json', '--top-k', '1', text, SANDAL]);
      expect([code, err]).to.deep.equal([1, '']);
      const [bad, good] = JSON.parse(out) as {
        error?: { code: string };
        labels?: { label: string; index: number; score: number }[];
      }[];
      expect(bad?.error?.code).to.equal('ERR_SENET_IMAGE');
      expect(good?.labels?.[0]).to.deep.include({ label: 'Sandal', index: 5 });
      const shown = await run(['classify', text, SANDAL]);
      expect(shown.code).to.equal(1);
      expect(shown.out).to.match(/Sandal/);
      expect(shown.err).to.match(/^error: .*text\.png.* \[ERR_SENET_IMAGE\]\n$/);
    });

    it('takes the model from the weights, and labels and preprocessing from the options', async () => {
      const weights = path.join(ROOT, 'assets', 'weights', 'se_resnet20_fashion_mnist.safetensors');
      const labels = temporary.path('labels.json');
      writeFileSync(labels, JSON.stringify(Array.from({ length: 10 }, (_, index) => `kind ${index}`)));
      const brought = await run(['classify', '--weights', weights, '--labels', labels, SANDAL]);
      expect([brought.code, brought.err]).to.deep.equal([0, '']);
      expect(brought.out).to.match(/^ {2}kind 5 +9[56]\./m);
      const legacy = path.join(FIXTURES, 'se_resnet20_fashion_mnist-ec67461cf95ad.pkl');
      const record =
        '{"channels": "grey-repeated", "size": [28, 28], "pad": 2, "mean": [0.286], "std": [0.353]}';
      const given = await run([
        'classify',
        '--model',
        'se_resnet20',
        '--weights',
        legacy,
        '--preprocessing',
        record,
        SANDAL,
      ]);
      expect([given.code, given.err]).to.deep.equal([0, '']);
      expect(given.out).to.match(/^ {2}5 +95/m);
    });

    it('writes rows of many, of folders, globs and lists, and says by its exit code whether all are good', async () => {
      const folder = temporary.path('many');
      mkdirSync(path.join(folder, 'sub'), { recursive: true });
      for (const name of ['b.png', 'a.png', 'sub/c.png']) cpSync(SANDAL, path.join(folder, name));
      const output = temporary.path('many.jsonl');
      const first = await run(['classify', '-r', folder, '-o', output, '--top-k', '1']);
      expect([first.code, first.err]).to.deep.equal([0, '']);
      expect(first.out).to.match(/many\.jsonl: 3 rows, none with an error\n3 images in .* images\/s/);
      const rows = readFileSync(output, 'utf8').trimEnd().split('\n');
      expect(rows.map((row) => (JSON.parse(row) as { file: string }).file)).to.deep.equal(
        ['a.png', 'b.png', 'sub/c.png'].map((name) => path.join(folder, name)),
      );
      writeFileSync(path.join(folder, 'sub', 'd.png'), 'damaged');
      const again = await run(['classify', '-r', folder, '-o', output, '--top-k', '1', '--json']);
      expect(again.code).to.equal(1);
      expect(JSON.parse(again.out)).to.deep.include({ rows: 4, earlier: 3, failed: { ERR_SENET_IMAGE: 1 } });
      const allowed = await run([
        'classify',
        '-r',
        folder,
        '-o',
        output,
        '--top-k',
        '1',
        '--allow-bad-images',
      ]);
      expect([allowed.code, allowed.err]).to.deep.equal([0, '']);
      expect(allowed.out).to.match(/4 rows, 1 with an error \(ERR_SENET_IMAGE 1\)/);
      const shards = await Promise.all(
        [
          ['2/3', ''],
          ['/3', '0'],
        ].map(async ([shard = '', JOB_COMPLETION_INDEX = '']) => {
          const part = temporary.path(`part${JOB_COMPLETION_INDEX}.csv`);
          const environment = { JOB_COMPLETION_INDEX };
          const told = await run(['classify', '-r', folder, '-o', part, '--shard', shard], { environment });
          const indices = readFileSync(part, 'utf8').trimEnd().split('\n').slice(1);
          return [told.code, indices.map((row) => Number(row.split(',')[0]))];
        }),
      );
      expect(shards).to.deep.equal([
        [0, [1]],
        [1, [0, 3]], // the damaged one is its
      ]);
      const other = await run(['classify', '-r', folder, '-o', output, '--top-k', '2']);
      expect([other.code, other.out]).to.deep.equal([1, '']);
      expect(other.err).to.match(/--top-k 1, .* 2; --overwrite throws/);
      const lines = await run(['classify', '--json', path.join(folder, '*.png')]);
      expect(
        lines.out
          .trimEnd()
          .split('\n')
          .map((line) => (JSON.parse(line) as { index: number }).index),
      ).to.deep.equal([0, 1]);
      await expectUsageErrors([
        [['classify', '-r', '-o', output], /a folder, a glob/],
        [['classify', '-r', folder, '--shard', '1/2'], /--shard needs --output/],
        [['classify', '-r', folder, '-o', output, '--shard', '3/2'], /--shard.*from 1 to 2/],
        [['classify', '-r', folder, '-o', 'rows.xls'], /\.parquet/],
      ]);
    });

    it('bad images of few are allowed as those of many are, and batches are as large as was typed', async () => {
      const bad = temporary.path('bad.png');
      writeFileSync(bad, 'no image');
      const [told, allowed] = await Promise.all([
        run(['classify', SANDAL, bad]),
        run(['classify', SANDAL, bad, '--allow-bad-images', '--batch-size', '1']),
      ]);
      expect([told.code, allowed.code]).to.deep.equal([1, 0]);
      expect(allowed.err).to.match(/bad\.png.*ERR_SENET_IMAGE/);
      const wrong = await run(['classify', SANDAL, '--batch-size', '2000']);
      expect([wrong.code, wrong.err]).to.deep.equal([2, wrong.err]);
      expect(wrong.err).to.match(/maxBatch: expected an integer from 1 to 1024/);
    });

    it('says where to put published weights when there is no network', async () => {
      const environment = { SENET_OFFLINE: '1', TORCH_HOME: temporary.path('torch-home') };
      const { code, out, err } = await run(['classify', '--model', 'se_resnet50', '--pretrained', SANDAL], {
        environment,
      });
      expect([code, out]).to.deep.equal([1, '']);
      expect(err).to.match(/ERR_SENET_OFFLINE/);
      expect(err).to.include('https://github.com/moskomule/senet.pytorch/');
      expect(err).to.include(
        temporary.path('torch-home', 'hub', 'checkpoints', 'seresnet50-60a8950a85b2b.pkl'),
      );
    });
  });

  describe('evaluate', () => {
    it('gives exactly the recorded predictions', async () => {
      const { code, out, err } = await run(['evaluate', IMAGES, LABELS, '--json']);
      expect([code, err]).to.deep.equal([0, '']);
      const { total, correct, accuracy, predictions } = JSON.parse(out) as Record<string, unknown>;
      expect(predictions).to.deep.equal(recorded.predictions.slice(0, 500));
      const { data: labels } = await readIdx(LABELS);
      const right = recorded.predictions
        .slice(0, 500)
        .filter((prediction, index) => prediction === labels[index]).length;
      expect([total, correct, accuracy]).to.deep.equal([500, right, right / 500]);
    });

    it('prints accuracy for people, of the first N images of a folder', async () => {
      const folder = temporary.path('idx');
      mkdirSync(folder);
      cpSync(IMAGES, path.join(folder, 't10k-images-idx3-ubyte.gz'));
      cpSync(LABELS, path.join(folder, 't10k-labels-idx1-ubyte.gz'));
      const { code, out, err } = await run(['evaluate', folder, '--limit', '20', '--batch-size', '7']);
      const [images, labels] = ['t10k-images-idx3-ubyte.gz', 't10k-labels-idx1-ubyte.gz'].map((name) =>
        path.join(folder, name),
      ) as [string, string];
      expect([code, err]).to.deep.equal([0, `Evaluating ${images} with the labels ${labels}\n`]);
      expect(out).to.match(/^20 of 20 images right \(100\.00 %\)/);
      expect(out).to.match(/^Ankle boot +1 of 1 +100\.00 %$/m);
    });

    it('takes an archive of CIFAR, whose classes the labels must have', async () => {
      const archive = path.join(FIXTURES, 'data', 'cifar-10-python.tar.gz');
      const weights = path.join(ROOT, 'assets', 'weights', 'se_resnet20_fashion_mnist.safetensors');
      const labels = temporary.path('cifar.txt');
      const names = 'airplane automobile bird cat deer dog frog horse ship truck'.split(' ');
      writeFileSync(labels, names.join('\n'));
      const report = temporary.path('cifar.html');
      const told = ['evaluate', archive, '--weights', weights, '--labels', labels, '--limit', '12'];
      // What was measured is there though the page cannot be written.
      const unwritten = await run([...told, '--json', '--report', temporary.path('none', 'cifar.html')]);
      expect([unwritten.code, JSON.parse(unwritten.out)]).to.have.deep.nested.property('[1].total', 12);
      expect([unwritten.code, unwritten.err]).to.deep.equal([1, unwritten.err]);
      expect(unwritten.err).to.match(/cifar\.html could not be written.*ERR_SENET_FILE_NOT_FOUND/);
      const [json, other] = await Promise.all([
        run([...told, '--json', '--report', report]),
        run(['evaluate', archive, '--weights', weights, '--limit', '12']),
      ]);
      expect([json.code, json.err]).to.deep.equal([0, `Evaluating the test images of ${archive}\n`]);
      const { total, correct, predictions, confusion, calibration } = JSON.parse(json.out) as {
        total: number;
        correct: number;
        predictions: number[];
        confusion: number[][];
        calibration: { ece: number };
      };
      // Its labels are 0 to 9, 0, 1; what a network of clothes says of noise is anyone's guess.
      const right = predictions.filter((prediction, index) => prediction === index % 10).length;
      expect([total, predictions.length, correct]).to.deep.equal([12, 12, right]);
      const counts = confusion.map((row) => row.reduce((sum, count) => sum + count, 0));
      expect(counts).to.deep.equal([2, 2, 1, 1, 1, 1, 1, 1, 1, 1]);
      expect(calibration.ece).to.be.within(0, 1);
      expect(readFileSync(report, 'utf8')).to.contain('automobile').and.to.contain('<svg');
      expect([other.code, other.out]).to.deep.equal([1, '']);
      expect(other.err).to.match(/no label for 10 of the 10 classes.*--labels.*ERR_SENET_LABELS/);
    });

    it('writes a page about class folders', async () => {
      const folder = temporary.path('classes');
      for (const name of ['sandal', 'Ankle_Boot']) mkdirSync(path.join(folder, name), { recursive: true });
      cpSync(SANDAL, path.join(folder, 'sandal', '1.png'));
      cpSync(
        path.join(ROOT, 'assets', 'images', '00-ankle-boot.png'),
        path.join(folder, 'Ankle_Boot', '1.png'),
      );
      const report = temporary.path('report.html');
      const { code, out } = await run(['evaluate', folder, '--report', report]);
      expect(code).to.equal(0);
      expect(out)
        .to.match(/^2 of 2 images right/)
        .and.match(/expected calibration error/);
      expect(readFileSync(report, 'utf8')).to.include('se_resnet20 on classes').and.include('reliability');
    });

    it('says what is wrong with the data', async () => {
      const swapped = await run(['evaluate', LABELS, IMAGES]);
      expect([swapped.code, swapped.out]).to.deep.equal([1, '']);
      expect(swapped.err).to.match(/^error: .*expected images.* \[ERR_SENET_DATA_FORMAT\]\n$/);
      const alone = await run(['evaluate', IMAGES]);
      expect([alone.code, alone.err]).to.deep.equal([
        2,
        'error: evaluate: give the file of labels too, or a folder with both [ERR_SENET_ARG_MISSING]\n',
      ]);
    });

    it('stops at Ctrl-C with the exit code 130 and no stack', async () => {
      const images = Buffer.alloc(16 + 50_000 * 784);
      images.set([0, 0, 8, 3]);
      [50_000, 28, 28].forEach((size, axis) => images.writeUInt32BE(size, 4 + 4 * axis));
      const labels = Buffer.alloc(8 + 50_000);
      labels.set([0, 0, 8, 1]);
      labels.writeUInt32BE(50_000, 4);
      writeFileSync(temporary.path('images'), images);
      writeFileSync(temporary.path('labels'), labels);
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
         void main(${JSON.stringify(['evaluate', temporary.path('images'), temporary.path('labels')])}).finally(() => clearInterval(timer));`,
      );
      const { code, signal, out, err } = await runNode([script]);
      expect([code, signal, out]).to.deep.equal([130, null, '']);
      expect(err).to.match(/^error: .*aborted.* \[ERR_SENET_ABORTED\]\n$/);
    });
  });

  describe('profile', () => {
    const table = (out: string): string[][] =>
      out
        .split('\n')
        .slice(2, out.split('\n').indexOf('', 2))
        .map((line) => line.split(/ {2,}/));

    it('prints the plan of a compiled model, and runs nothing', async () => {
      const { code, out, err } = await run(['profile', 'se_resnet20', '--explain']);
      expect([code, err]).to.deep.equal([0, '']);
      expect(out.split('\n')[0]).to.equal('se_resnet20, compiled, at 32 x 32');
      const [header, ...rows] = table(out);
      expect(header).to.deep.equal(['STEP', 'OPERATION', 'FUSED', 'INPUT', 'OUTPUT', 'WEIGHTS', 'MMACS']);
      expect(rows.every((row) => row.length === 7)).to.equal(true);
      const first = rows.find(([name]) => name === 'layer1.0.conv1') ?? [];
      // Winograd's convolutions, where the processor has our kernels, have sixteen numbers for each nine.
      const winograd = first[2] === 'relu, winograd';
      expect(first).to.deep.equal([
        'layer1.0.conv1',
        'convolution',
        winograd ? 'relu, winograd' : 'relu',
        '16 x 32 x 32',
        '16 x 32 x 32',
        winograd ? '16.4 kB' : '9.3 kB',
        '2.359',
      ]);
      expect(out).to.match(
        /^total: \d+ steps, 1\.\d MB of weights, 4\d\.\d million multiply-adds an image; \w+, float32$/m,
      );
      const { out: json } = await run(['profile', 'se_resnet20', '--explain', '--json', '--size', '64x48']);
      const plan = JSON.parse(json) as CompiledPlan;
      expect(plan.inputSize).to.deep.equal([64, 48]);
      expect(plan.steps.map(({ name }) => name)).to.deep.equal(rows.map(([name]) => name));
    });

    it('times each step, and sums up', async () => {
      const args = ['profile', 'se_resnet20', '--batch', '3', '--size', '40x24', '--runs', '2'];
      const { code, out, err } = await run([...args, '--threads', '1', '--dtype', 'float32']);
      expect([code, err]).to.deep.equal([0, '']);
      const [header, ...rows] = table(out);
      expect(header?.slice(7)).to.deep.equal(['MS', 'SHARE', 'GFLOP/S', 'CUMULATIVE']);
      const column = (index: number): number[] => rows.map((row) => parseFloat(row[index] ?? ''));
      expect(Math.min(...column(7))).to.be.at.least(0);
      expect(column(8).reduce((sum, share) => sum + share, 0)).to.be.closeTo(100, 1);
      expect(column(10).at(-1)).to.equal(100);
      expect([...column(10)].sort((left, right) => left - right)).to.deep.equal(column(10));
      const convolution = rows.find(([name]) => name === 'layer2.1.conv1') ?? [];
      const [multiplyAdds = NaN, milliseconds = NaN, , rate = NaN] = convolution.slice(6).map(parseFloat);
      // From rounded milliseconds.
      expect((rate * milliseconds) / (2 * multiplyAdds * 3)).to.be.closeTo(1, 0.1);
      expect(out).to.match(
        /^total: \d+\.\d\d ms a batch of 3, \d+\.\d images\/s, \d+\.\d GFLOP\/s; \w+, float32, 1 thread, median of 2 runs$/m,
      );
    });

    it('prints JSON, of a network with weights too', async () => {
      const weights = path.join(ROOT, 'assets', 'weights', 'se_resnet20_fashion_mnist.safetensors');
      for (const given of ['fashion_mnist', weights]) {
        const { code, out, err } = await run([
          'profile',
          'se_resnet20',
          '--weights',
          given,
          '--runs',
          '1',
          '--threads',
          '1',
          '--json',
        ]);
        expect([code, err]).to.deep.equal([0, '']);
        const profile = JSON.parse(out) as CompiledProfile & Record<'threads' | 'imagesPerSecond', number>;
        expect(profile).to.include({ model: 'CifarSEResNet', batch: 1, runs: 1, threads: 1 });
        // The bundled network has a reduction of 4.
        expect(
          profile.steps.find(({ name }) => name.startsWith('layer3.2.se.fc.0'))?.output ?? [16],
        ).to.include(16);
        expect(profile.imagesPerSecond).to.be.closeTo(1000 / profile.milliseconds, 0.01);
      }
    });

    it('takes --in-channels, --key and --prefix', async () => {
      const { code, out, err } = await run(['profile', 'se_resnet20', '--explain', '--in-channels', '5']);
      expect([code, err]).to.deep.equal([0, '']);
      expect(table(out)[1]?.[3]).to.equal('5 x 32 x 32');
      const timed = ['profile', 'se_resnet20', '--in-channels', '1', '--runs', '1', '--json'];
      const measured = JSON.parse((await run(timed)).out) as CompiledProfile;
      expect(measured.steps[0]?.input).to.deep.equal([1, 32, 32]);

      // Two networks in one file.
      const file = temporary.path('wrapped.pt');
      const grey = se_resnet20({ inChannels: 1 });
      const colour = se_resnet20();
      const named = [...colour.stateDict()].map(([name, tensor]) => [`net.${name}`, tensor] as const);
      await saveCheckpoint({ grey: grey.stateDict(), colour: new Map(named) }, file);
      grey.dispose();
      colour.dispose();
      const weights = ['profile', 'se_resnet20', '--explain', '--json', '--weights', file];
      for (const [place, channels] of [
        [['--key', 'grey'], 1],
        [['--key', 'colour', '--prefix', 'net.'], 3],
      ] as const) {
        const { out: json } = await run([...weights, ...place]);
        expect((JSON.parse(json) as CompiledPlan).steps[0]?.input[0], place.join(' ')).to.equal(channels);
      }
      const other = await run([...weights, '--key', 'grey', '--in-channels', '3']);
      expect([other.code, other.err]).to.satisfy(
        ([failed, words]: [number, string]) =>
          failed === 1 && /conv1\.weight.*ERR_SENET_STATE_DICT/.test(words),
        other.err,
      );
      expect((await run(['profile', '--help'])).out).to.match(/--in-channels <n>/);
    });

    it('takes what names a network elsewhere: a tag, a folder, a file', async () => {
      const folder = temporary.path('network');
      mkdirSync(folder);
      const file = path.join(folder, 'model.safetensors');
      await save(se_resnet20({ inChannels: 1 }), file);
      for (const [name, channels] of [
        ['legacy_seresnet18.in1k', 3],
        [`local-dir:${folder}`, 1],
        [file, 1],
      ] as const) {
        const { out, err } = await run(['profile', name, '--explain', '--json']);
        expect((JSON.parse(out) as CompiledPlan).steps[0]?.input[0], err).to.equal(channels);
      }
      const both = await run(['profile', file, '--weights', file]);
      expect([both.code, both.err]).to.satisfy(
        ([failed, words]: [number, string]) => failed === 2 && /says the weights already/.test(words),
        both.err,
      );
    });

    it('with --top, only the slowest, and draws them', async () => {
      const file = temporary.path('profile.svg');
      writeFileSync(file, 'an older picture');
      const { code, out, err } = await run([
        'profile',
        'se_resnet20',
        '--batch',
        '8',
        '--runs',
        '3',
        '--top',
        '5',
        '--svg',
        file,
      ]);
      expect([code, err]).to.deep.equal([0, '']);
      const [, ...rows] = table(out);
      expect(rows).to.have.lengthOf(5);
      const times = rows.map((row) => parseFloat(row[7] ?? ''));
      expect([...times].sort((left, right) => right - left)).to.deep.equal(times);
      const picture = readFileSync(file, 'utf8');
      for (const row of rows) expect(picture).to.include(row[0]).and.to.include(`${row[7]} ms`);
      expect(picture).to.match(/the 5 slowest of \d+ steps/);
      const { format, width } = await sharp(file).metadata();
      expect([format, width]).to.deep.equal(['svg', 960]);
      expect(readdirSync(temporary.folder).filter((name) => name.includes('profile.svg'))).to.deep.equal([
        'profile.svg',
      ]);
    });

    it('says what is wrong, and where a picture cannot be written', async () => {
      const quick = ['profile', 'se_resnet20', '--runs', '1', '--top', '1', '--svg'];
      const cases: [string[], RegExp][] = [
        [
          [...quick, temporary.path('no', 'such', 'folder.svg')],
          /folder\.svg could not be written.*ERR_SENET_FILE_NOT_FOUND/,
        ],
        [[...quick, temporary.folder], /could not be written.*ERR_SENET_FILE\]/],
        [
          ['profile', 'se_inception_v3', '--explain', '--size', '224'],
          /size must be \(299, 299\).*ERR_SENET_SHAPE/,
        ],
        [['profile', 'se_resnet20', '--weights', 'none.pt'], /none\.pt.*ERR_SENET_FILE_NOT_FOUND/],
      ];
      if (!HAS_FLOAT16)
        cases.push([['profile', 'se_resnet20', '--dtype', 'float16'], /float16.*ERR_SENET_DTYPE/]);
      for (const [args, words] of cases) {
        const { code, err } = await run(args);
        expect(err).to.match(words);
        expect([code, err.trimEnd().split('\n').length], args.join(' ')).to.deep.equal([1, 1]);
      }
    });

    it('exits with 2 for wrong usage', () =>
      expectUsageErrors([
        [['profile'], /missing required argument/],
        [['profile', 'se_resnet5'], /did you mean 'se_resnet50'.*ERR_SENET_UNKNOWN_MODEL/],
        [['profile', 'se_resnet20', '--size', '0x32'], /HEIGHTxWIDTH/],
        [['profile', 'se_resnet20', '--size', '32x'], /HEIGHTxWIDTH/],
        [['profile', 'se_resnet20', '--dtype', 'float64'], /float32, bfloat16, float16/],
        [['profile', 'se_resnet20', '--runs', '0'], /an integer of at least 1/],
        [['profile', 'se_resnet20', '--in-channels', '0'], /an integer of at least 1/],
        [['profile', 'se_resnet20', '--runs', '10001', '--top', '1'], /runs.*10000.*ERR_SENET_ARG_RANGE/],
        [
          ['profile', 'se_resnet20', '--explain', '--svg', 'x.svg'],
          /exclude each other.*ERR_SENET_ARG_RANGE/,
        ],
        [['profile', 'se_resnet20', '--weights', 'imagenet'], /of se_resnet50.*ERR_SENET_ARG_RANGE/],
      ]));

    it('stops at Ctrl-C', async () => {
      const script = temporary.path('interrupted-profile.js');
      writeFileSync(
        script,
        `const { main } = require(${JSON.stringify(CLI)});
         const { memory } = require(${JSON.stringify(DIST)});
         const timer = setInterval(() => {
           if (memory().jobs.running === 0 || process.listenerCount('SIGINT') === 0) return;
           clearInterval(timer);
           process.kill(process.pid, 'SIGINT');
         }, 1);
         void main(['profile', 'se_resnet20', '--batch', '64', '--runs', '1000']).finally(() => clearInterval(timer));`,
      );
      const { code, signal, out, err } = await runNode([script]);
      expect([code, signal, out]).to.deep.equal([130, null, '']);
      expect(err).to.match(/^error: .*aborted.* \[ERR_SENET_ABORTED\]\n$/);
    });
  });

  describe('inspect', () => {
    it('lists keys, shapes, dtypes and metadata of every container', async () => {
      const files = ['se_resnet20-zip.pt', 'se_resnet20-legacy.pkl', 'se_resnet20.safetensors'];
      const results = await Promise.all(files.map((file) => run(['inspect', path.join(FIXTURES, file)])));
      for (const { code, out } of results) {
        expect(code).to.equal(0);
        expect(out).to.match(/layer3\.2\.conv2\.weight +float32 +\[64, 64, 3, 3\]/);
      }
      const { out } = await run([
        'inspect',
        '--json',
        path.join(FIXTURES, 'se_resnet20-trainer-checkpoint.pt'),
      ]);
      const report = JSON.parse(out) as { tensors: { key: string }[]; stateDictAt: string[] };
      expect(report.tensors[0]?.key).to.equal('state_dict.conv1.weight');
      expect(report.stateDictAt).to.deep.equal(['state_dict']);
    });

    it('tells where the state dict is, what its names share, and what is of unknown classes', async () => {
      const objects = await run(['inspect', path.join(FIXTURES, 'checkpoints', 'objects-protocol5.pt')]);
      expect(objects.out)
        .to.match(/state dict +under state_dict/)
        .and.match(/args +argparse\.Namespace/);
      const file = path.join(FIXTURES, 'se_resnet20-dataparallel-old.pkl');
      expect((await run(['inspect', file])).out).to.match(/all names begin with module\./);
      expect((await run(['inspect', file, '--prefix', 'module.'])).out).to.match(
        /prefix +module\. \(taken away\)/,
      );
      const { code, err } = await run(['inspect', file, '--key', 'ema']);
      expect(code).to.equal(2);
      expect(err).to.match(/'ema'; there are some at the whole file .*\[ERR_SENET_ARG_RANGE\]/);
    });

    it('labels and names of files reach a terminal printable, in JSON with their value', async () => {
      const weights = readFileSync(
        path.join(ROOT, 'assets', 'weights', 'se_resnet20_fashion_mnist.safetensors'),
      );
      const end = 8 + Number(weights.readBigUInt64LE(0));
      const header = JSON.parse(weights.subarray(8, end).toString()) as {
        __metadata__: { labels: string };
      };
      const evil = '\u001b[31mfake\u001b]0;title\u0007\u009b2K\nline';
      const labels = (JSON.parse(header.__metadata__.labels) as string[]).map((label) => label + evil);
      header.__metadata__.labels = JSON.stringify(labels);
      const bytes = Buffer.from(JSON.stringify(header));
      const length = Buffer.alloc(8);
      length.writeBigUInt64LE(BigInt(bytes.length));
      const file = temporary.path('labels.safetensors');
      writeFileSync(file, Buffer.concat([length, bytes, weights.subarray(end)]));
      const image = temporary.path(`sandal${evil.replaceAll('/', '')}.png`);
      writeFileSync(image, readFileSync(SANDAL));
      const raw = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/;
      const args = ['classify', '--weights', file, image, `${image}.missing`];
      const shown = await run(args);
      expect(shown.out).to.include('Sandal\\u{1b}[31mfake');
      expect(shown.out + shown.err).not.to.match(raw);
      const json = await run([...args, '--json']);
      expect(json.out).not.to.match(raw);
      const [first] = JSON.parse(json.out) as { file: string; labels: { label: string }[] }[];
      expect([first?.file, first?.labels[0]?.label]).to.deep.equal([image, `Sandal${evil}`]);
    });

    it('executes nothing of a hostile file, names what it asked for, and prints no control characters', async () => {
      const { code, out, err } = await run(['inspect', path.join(FIXTURES, 'evil-legacy.pkl')]);
      expect([code, out]).to.deep.equal([1, '']);
      expect(err).to.match(/system.* \[ERR_SENET_CHECKPOINT_UNSAFE\]\n$/);
      const header = JSON.stringify({
        'a\u001b[31mb': { dtype: 'U8', shape: [1], data_offsets: [0, 1] },
        __metadata__: { x: '\u0007' },
      });
      const length = Buffer.alloc(8);
      length.writeBigUInt64LE(BigInt(header.length));
      writeFileSync(
        temporary.path('escape.safetensors'),
        Buffer.concat([length, Buffer.from(header), Buffer.from([0])]),
      );
      const shown = await run(['inspect', temporary.path('escape.safetensors')]);
      expect(shown.code).to.equal(0);
      expect(shown.out).to.include('a\\u{1b}[31mb');

      expect(shown.out).not.to.match(/[\u0000-\u0009\u000b-\u001f]/);
    });

    it('does not mind that its reader leaves', async () => {
      const { code, err } = await run(['inspect', path.join(FIXTURES, 'se_resnet20-zip.pt')], {
        closed: true,
      });
      expect([code, err]).to.deep.equal([0, '']);
    });
  });

  it('fine-tunes a published network, as docs/models.md has it', async () => {
    const hub = await startHub();
    const [network, tag] = ['seresnext50_32x4d', 'racm_in1k'] as const;
    const repository = `timm/${network}.${tag}`;
    const model = createModel(network, { initWeights: false });
    await save(model, temporary.path('published.safetensors'));
    model.dispose();
    hub.files.set(`${repository}/model.safetensors`, readFileSync(temporary.path('published.safetensors')));
    hub.files.set(`${repository}/config.json`, Buffer.from(JSON.stringify({ architecture: network })));
    const photos = temporary.path('photos');
    for (const name of ['bag', 'shoe']) {
      mkdirSync(path.join(photos, name), { recursive: true });
      cpSync(SANDAL, path.join(photos, name, '0.png'));
    }
    const page = readFileSync(path.join(ROOT, 'docs', 'models.md'), 'utf8');
    const [, command = ''] = /npx senet-torch (finetune photos .*)/.exec(page) ?? [];
    const output = temporary.path('fine-tuned');
    const short = ['--epochs', '1', '--image-size', '32', '--validation', 'none', '--output', output];
    const { code, out, err } = await run(
      [...command.split(' ').map((word) => (word === 'photos' ? photos : word)), ...short, '--json'],
      { environment: { HF_ENDPOINT: hub.url, HF_HOME: temporary.path('hub') } },
    );
    await hub.close();
    expect(code, err).to.equal(0);
    const { settings } = JSON.parse(out) as TrainedRun;
    expect(settings).to.deep.include({ model: network, weights: tag, classes: ['bag', 'shoe'] });
    expect(settings.freeze).to.include('layer4').and.not.include('fc');
    expect(readdirSync(output)).to.include('last.safetensors');
  });

  it('a folder stands where a network or a file does', async () => {
    const folder = temporary.path('folder');
    mkdirSync(folder);
    await save(se_resnet20(), path.join(folder, 'model.safetensors'));
    writeFileSync(path.join(folder, 'config.json'), JSON.stringify({ architecture: 'se_resnet20' }));
    const name = `local-dir:${folder}`;
    expect((await run(['models', name])).out).to.match(/^network +se_resnet20$/m);
    expect((await run(['inspect', name])).out).to.match(/^network +se_resnet20$/m);
    const converted = await run(['convert', name, temporary.path('converted.safetensors')]);
    expect(converted.out).to.contain('se_resnet20, ');
  });

  it('lists the models', async () => {
    const { code, out } = await run(['models', '--json']);
    expect(code).to.equal(0);
    const models = JSON.parse(out) as {
      name: string;
      weights: string[];
      bytes: number;
      tags: { name: string; top1: number | null; bytes: number; numClasses?: number }[];
    }[];
    for (const { name, tags } of models)
      for (const { name: tag, top1, bytes, numClasses } of tags) {
        expect(bytes, `${name}.${tag}`).to.be.above(1e6);
        expect(top1 === null, `${name}.${tag}`).to.equal(numClasses !== undefined); // of other classes than ImageNet's
      }
    expect(models.find(({ name }) => name === 'legacy_seresnet50')).to.deep.include({
      ...{ bytes: 112_565_000, inChannels: 3, classifier: 'last_linear' },
      preprocessing: modelRecord('legacy_seresnet50').preprocessing,
    });
    expect(models.find(({ name }) => name === 'se_resnet50')?.weights).to.deep.equal(['imagenet']);
    const tags = models.flatMap(({ weights }) => weights.slice(1)).length;
    const { out: table } = await run(['models']);
    expect(table.trimEnd().split('\n')).to.have.lengthOf(models.length + tags + 1);
    expect(table).to.match(/^seresnet50 +1000 +224 x 224 +a1_in1k +80\.012 % at 224 +113 MB +Apache-2\.0$/m);
    const { out: one } = await run(['models', 'seresnet50']);
    expect(one).to.contain('hf-hub:timm/seresnet50.a1_in1k').and.contain('288 bicubic, centre 288 x 288');
    const { out: record } = await run(['models', 'seresnet50', '--json']);
    expect(JSON.parse(record)).to.deep.equal(models.find(({ name }) => name === 'seresnet50'));
    expect((await run(['models', 'seresnextaa201d_32x8d'])).out).to.match(/^ +top-1 +- \(other classes\)$/m);
    expect((await run(['models', 'gluon_senet154'])).out).to.match(/^network +senet154$/m);
    expect((await run(['models', 'seresnet5'])).err).to.contain('ERR_SENET_UNKNOWN_MODEL');
  });

  it('has help with an example for every command', async () => {
    const { out } = await run(['--help']);
    for (const command of [
      'classify',
      'evaluate',
      'explain',
      'excitations',
      'train',
      'finetune',
      'models',
      'profile',
      'doctor',
      'setup',
      'inspect',
      'worker',
      'enqueue',
      'export',
    ])
      expect(out).to.match(new RegExp(`^ {2}${command} `, 'm'));
    const helps = await Promise.all(
      [
        'classify',
        'evaluate',
        'explain',
        'excitations',
        'models',
        'profile',
        'inspect',
        'worker',
        'enqueue',
        'export',
      ].map((command) => run([command, '--help'])),
    );
    for (const help of helps) {
      expect(help.code).to.equal(0);
      expect(help.out).to.match(/Usage: senet-torch/);
      expect(help.out).to.match(/Examples?:\n {2}\$ senet-torch/);
    }
    const scripts = await Promise.all(['setup', 'doctor'].map((command) => run([command, '--help'])));
    for (const { code, out: text } of scripts) {
      expect(code).to.equal(0);
      expect(text).to.match(/usage: senet-torch/i);
    }
  });

  it('exits with 2 for wrong usage, in a line or two', async () => {
    const cases: [string[], RegExp][] = [
      [['clasify'], /unknown command 'clasify'[^]*classify/],
      [['classify', '--top', '3'], /unknown option '--top'/],
      [['classify', '--top-k', '0'], /an integer of at least 1/],
      [['classify', '--model', 'se_resnet5'], /did you mean 'se_resnet50'.*ERR_SENET_UNKNOWN_MODEL/],
      [['classify', '--model', 'se_resnet18', '--pretrained'], /no published weights/],
      [['classify', '--model', 'se_resnet20'], /weights: expected a path or a name, or --pretrained/],
      [['classify', '--pretrained'], /--model/],
      [['classify', '--weights', path.join(FIXTURES, 'se_resnet20-zip.pt')], /--preprocessing: .*give size/],
      [['classify', '--weights', 'seresnet50.a9_in1k'], /published are a1_in1k/],
      [['classify', '--weights', 'ra2_in1k'], /they are of seresnet50, .*NETWORK\.NAME/],
      [['classify', '--device', 'tpu'], /ERR_SENET_ARG_RANGE/],
      [['evaluate'], /missing required argument/],
      [['inspect'], /missing required argument/],
      [['doctor', '--jsn'], /Unknown option '--jsn'/],
      [['setup', '--from'], /--from/],
    ];
    await expectUsageErrors(cases);
  });

  it('says that the output has no room, and works on where nobody reads its words', async () => {
    const full = await new Promise<[number | null, string]>((resolve) => {
      const child = spawn('sh', ['-c', `"${process.execPath}" "${CLI}" models --json > /dev/full`]);
      let err = '';
      child.stderr.on('data', (data: Buffer) => (err += data.toString()));
      child.on('close', (code) => resolve([code, err]));
    });
    expect(full[0]).to.equal(1);
    expect(full[1]).to.match(/^error: standard output: .*ENOSPC.*\[ERR_SENET_FILE\]\n$/);
    const child = spawn(process.execPath, [CLI, 'classify', 'none-1.png', SANDAL, 'none-2.png'], {
      cwd: ROOT,
    });
    child.stderr.destroy();
    let out = '';
    child.stdout.on('data', (data: Buffer) => (out += data.toString()));
    const code = await new Promise((resolve) => child.on('close', resolve));
    expect([code, out.split('\n').length]).to.deep.equal([1, 2]);
  });

  it('prints the stack when SENET_DEBUG asks for it', async () => {
    const { err } = await run(['inspect', 'none.pt'], { environment: { SENET_DEBUG: '1' } });
    expect(err).to.match(/no such file[^]*\n {4}at /);
  });

  it('helps and inspects without a native build, and says what to type', async () => {
    const root = temporary.path('unbuilt');
    mkdirSync(root);
    for (const name of ['dist', 'assets', 'scripts', 'package.json', 'tsconfig.json', 'CMakeLists.txt']) {
      cpSync(path.join(ROOT, name), path.join(root, name), { recursive: true });
    }
    symlinkSync(path.join(ROOT, 'node_modules'), path.join(root, 'node_modules'));
    expect(readdirSync(root)).not.to.include('build');
    expect((await run(['--help'], { root })).code).to.equal(0);
    const inspected = await run(['inspect', path.join(FIXTURES, 'se_resnet20.safetensors')], { root });
    expect([inspected.code, inspected.err]).to.deep.equal([0, '']);
    const { code, out, err } = await run(['classify'], { root });
    expect([code, out]).to.deep.equal([1, '']);
    expect(err).to.match(/^error: No native build .*setup.* \[ERR_SENET_NO_BUILD\]\n$/);
    const doctor = await run(['doctor'], { root });
    expect(doctor.code).to.equal(1);
    expect(doctor.out + doctor.err).to.contain('Not ready: No native build');
  });
});
