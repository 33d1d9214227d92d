/** `senet-torch train` and `finetune` as a process, on real and on made images: what they print, write and refuse. */
import { spawn } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { expect } from 'chai';
import sharp from 'sharp';

import { load } from '../../lib/checkpoint/load';
import { readTrainingCheckpoint } from '../../lib/train/training-checkpoint';
import { ImageClassifier } from '../../lib/vision/image-classifier';
import { CLI } from '../support/built';
import { Temporary } from '../support/temporary';

const ROOT = path.join(__dirname, '..', '..');
const FIXTURES = path.join(__dirname, '..', 'fixtures');
const BUNDLED = path.join(ROOT, 'assets', 'weights', 'se_resnet20_fashion_mnist.safetensors');
const INTERRUPT = path.join(__dirname, '..', 'support', 'interrupt.js');

interface Outcome {
  code: number | null;
  out: string;
  err: string;
}

/** Runs the command; once it has written a line that matches, it gets a signal, at that very moment. */
function run(
  args: readonly string[],
  interruptAt?: RegExp,
  signal: 'SIGINT' | 'SIGTERM' = 'SIGINT',
): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const child = spawn(
      process.execPath,
      [...(interruptAt === undefined ? [] : ['--require', INTERRUPT]), CLI, ...args],
      {
        cwd: ROOT,
        env: { ...process.env, INTERRUPT_AT: interruptAt?.source ?? '', INTERRUPT_BY: signal },
      },
    );
    let [out, err] = ['', ''];
    child.stdout.on('data', (data: Buffer) => (out += data.toString()));
    child.stderr.on('data', (data: Buffer) => (err += data.toString()));
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, out, err }));
  });
}

describe('senet-torch train', function () {
  this.timeout(180_000);
  const temporary = new Temporary();
  after(() => temporary.cleanUp());

  const data = temporary.path('fashion-mnist');
  const small = ['--limit', '120', '--epochs', '3', '--batch-size', '24', '--threads', '1'];

  before(async () => {
    // 500 test images stand for both parts.
    mkdirSync(data);
    for (const [name, kind] of [
      ['images', 'idx3'],
      ['labels', 'idx1'],
    ] as const) {
      const from = path.join(FIXTURES, `fashion-mnist-500-${name}-${kind}-ubyte.gz`);
      for (const part of ['train', 't10k']) cpSync(from, path.join(data, `${part}-${name}-${kind}-ubyte.gz`));
    }
    // Red and blue pictures of several sizes.
    for (const [name, colour] of [
      ['blue', { r: 20, g: 30, b: 200 }],
      ['red', { r: 210, g: 30, b: 20 }],
    ] as const) {
      mkdirSync(temporary.path('photos', name), { recursive: true });
      for (let index = 0; index < 12; index++) {
        const [width, height] = [40 + 3 * index, 60 - 2 * index];
        const background = { ...colour, g: colour.g + 5 * index };
        await sharp({ create: { width, height, channels: 3, background } })
          .png()
          .toFile(temporary.path('photos', name, `${index}.png`));
      }
    }
  });

  describe('from start to end', () => {
    const output = temporary.path('run');
    let outcome: Outcome;

    before(async () => {
      outcome = await run(['train', data, '--reduction', '4', ...small, '--output', output]);
    });

    it('prints what it does and what it made', () => {
      expect(outcome.code, outcome.err).to.equal(0);
      expect(outcome.out).to.match(
        /^se_resnet20 \(280,538 parameters\) on fashion-mnist: 120 training images, 120 for validation, 10 classes\ntraining images +\S*images\S*\nvalidation images +\S*images\S*\n/,
      );
      const lines = outcome.err.trimEnd().split('\n');
      expect(lines).to.have.lengthOf(3);
      for (const line of lines)
        expect(line).to.match(
          /^epoch \d\/3  loss \d\.\d+  accuracy +\d+\.\d\d %  validation: loss \d\.\d+  accuracy +\d+\.\d\d %  [\d,]+ images\/s/,
        );
      expect(outcome.out).to.match(/best: \d+\.\d\d % of the validation images right \(epoch \d\)/);
      expect(outcome.out).to.include('$ senet-torch classify --weights ');
    });

    it('writes weights that classify needs nothing else for', async () => {
      const best = await load(path.join(output, 'best.safetensors'));
      expect(best.get('layer1.0.se.fc.0.weight')?.shape).to.deep.equal([4, 16]);
      const metadata = Object.fromEntries(best.fileMetadata);
      expect(metadata.model).to.equal('se_resnet20');
      expect(JSON.parse(metadata.labels ?? '')).to.include('Ankle boot');
      const { mean, std, ...rest } = JSON.parse(metadata.preprocessing ?? '') as {
        mean: number[];
        std: number[];
      };
      expect(rest).to.deep.include({ channels: 'grey-repeated', size: [28, 28], pad: 2, crop: null });
      // Measured on 120 images; Fashion-MNIST's are 0.2860 and 0.3530.
      expect(mean[0]).to.be.closeTo(0.286, 0.03);
      expect(std[0]).to.be.closeTo(0.353, 0.03);
      const sandal = path.join(ROOT, 'assets', 'images', '08-sandal.png');
      const shown = await run([
        'classify',
        '--weights',
        path.join(output, 'last.safetensors'),
        sandal,
        '--json',
      ]);
      expect(shown.code, shown.err).to.equal(0);
      const [{ labels = [] } = {}] = JSON.parse(shown.out) as { labels?: { label: string }[] }[];
      expect(labels).to.have.lengthOf(5);
      const classifier = await ImageClassifier.load('se_resnet20', {
        weights: path.join(output, 'best.safetensors'),
      });
      expect(classifier.labels[9]).to.equal('Ankle boot');
      await classifier.dispose();
    });

    it('writes a report that holds all it shows', () => {
      const page = readFileSync(path.join(output, 'report.html'), 'utf8');
      expect(page).not.to.match(/https?:|<script|<link|url\(|@import|src="(?!data:)/);
      expect(page).to.include('<h1>se_resnet20 on fashion-mnist</h1>');
      expect(page.match(/<svg /g)).to.have.lengthOf(3);
      expect(page.match(/<img src="data:image\/png;base64,/g)?.length).to.be.within(1, 24);
      expect(page).to.include('Ankle boot');
      expect(page).not.to.include(temporary.folder);
    });

    it('writes a log that programs read', () => {
      const events = readFileSync(path.join(output, 'log.jsonl'), 'utf8')
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line) as { event: string; validation?: { accuracy: number } });
      expect(
        events.filter(({ event }) => event === 'epoch').map(({ validation }) => typeof validation?.accuracy),
      ).to.deep.equal(['number', 'number', 'number']);
      expect(events[0]).to.deep.include({ event: 'start', step: 0 });
    });

    it('does not write over a run', async () => {
      const again = await run(['train', data, ...small, '--output', output]);
      expect([again.code, again.out]).to.deep.equal([2, '']);
      expect(again.err).to.match(/holds a run already.*--resume.*--overwrite/);
    });

    it('without --overwrite, files that are no run stay until they are replaced', async () => {
      const place = temporary.path('others');
      mkdirSync(place);
      writeFileSync(path.join(place, 'last.safetensors'), 'mine');
      const { code, err } = await run(['train', data, ...small, '--output', place], /^epoch 1\/3/m);
      expect(code, err).to.equal(130);
      expect(readFileSync(path.join(place, 'last.safetensors'), 'utf8')).to.equal('mine');
    });

    it('--overwrite leaves nothing of the old run, even if the new one is stopped at once', async () => {
      const place = temporary.path('overwritten');
      cpSync(output, place, { recursive: true });
      const { code, err } = await run(
        ['train', data, ...small, '--epochs', '1', '--output', place, '--overwrite'],
        /^epoch 1\/1/m,
        'SIGTERM',
      );
      expect([0, 130], err).to.include(code);
      const { identity } = await readTrainingCheckpoint(path.join(place, 'checkpoint.pt'));
      expect(identity.epochs).to.equal(1);
      if (code === 130) expect(existsSync(path.join(place, 'last.safetensors'))).to.equal(false);
    });

    it('a run whose data has gone says so, with a code', async () => {
      const moved = temporary.path('moved');
      cpSync(data, moved, { recursive: true });
      const place = temporary.path('without-data');
      const made = await run(['train', moved, ...small, '--epochs', '1', '--output', place]);
      expect(made.code, made.err).to.equal(0);
      rmSync(moved, { recursive: true });
      const { code, err } = await run(['train', '--resume', path.join(place, 'checkpoint.pt')]);
      expect(code).to.equal(1);
      expect(err).to.match(/not at .*moved any more.*train DATA --resume.*\[ERR_SENET_FILE_NOT_FOUND\]/);
    });

    it('Ctrl-C saves and says how to go on, which ends with the same weights, bit for bit', async () => {
      const place = temporary.path('interrupted');
      const first = await run(
        ['train', data, '--reduction', '4', ...small, '--output', place],
        /^epoch 1\/3/m,
      );
      expect([first.code, first.err.match(/error/)]).to.deep.equal([130, null]);
      const checkpoint = path.join(place, 'checkpoint.pt');
      expect(first.err).to.match(
        /interrupted: the run is saved in .*checkpoint\.pt\. To go on:\n {2}senet-torch train --resume /,
      );
      expect((await readTrainingCheckpoint(checkpoint)).position.step).to.be.within(5, 15);

      const other = await run(['train', '--resume', checkpoint, '--lr', '0.5', '--threads', '1']);
      expect([other.code, other.out]).to.deep.equal([1, '']);
      expect(other.err).to.match(/started with --lr 0\.0375, not 0\.5.*ERR_SENET_RESUME/);

      // What stops a container does the same.
      const resume = ['train', '--resume', checkpoint, '--epochs', '3', '--threads', '1'];
      const stopped = await run(resume, /^epoch 2\/3/m, 'SIGTERM');
      expect(stopped.code, stopped.err).to.equal(130);
      expect(stopped.err).to.match(/interrupted: the run is saved in /);

      const second = await run(resume);
      expect(second.code, second.err).to.equal(0);
      expect(second.out).to.match(/resumed at step \d+, in epoch [23] of 3/);
      for (const name of ['last', 'best']) {
        const [resumed, whole] = [place, output].map((folder) =>
          readFileSync(path.join(folder, `${name}.safetensors`)),
        );
        expect(resumed?.equals(whole as Buffer), name).to.equal(true);
      }
    });
  });

  it('trains on folders, prints JSON, and keeps a part for validation', async () => {
    const output = temporary.path('photos-run');
    const { code, out, err } = await run([
      ...['train', temporary.path('photos'), '--model', 'se_resnet20', '--epochs', '4', '--batch-size', '8'],
      ...[
        '--validation',
        '0.25',
        '--optimizer',
        'adamw',
        '--schedule',
        'cosine',
        '--lr',
        '0.01',
        '--mixup',
        '0.2',
      ],
      ...['--augment', 'resized-crop,flip,jitter,erase', '--precision', 'bfloat16', '--clip-grad-norm', '5'],
      ...['--ema', '0.5', '--threads', '1', '--json', '--output', output],
    ]);
    expect(code, err).to.equal(0);
    const result = JSON.parse(out) as {
      best: { validation: { accuracy: number } };
      epochs: unknown[];
      settings: { imageSize: number; classes: string[]; augment: string[] };
      steps: number;
    };
    expect(result.steps).to.equal(4 * 3); // 18 images in batches of 8
    expect(result.settings.classes).to.deep.equal(['blue', 'red']);
    expect(result.best.validation.accuracy).to.be.within(0, 1);
    // Both are the averages that were validated, not what the optimiser left.
    const checkpoint = await readTrainingCheckpoint(path.join(output, 'checkpoint.pt'));
    const last = await load(path.join(output, 'last.safetensors'));
    for (const [name, tensor] of checkpoint.average ?? [])
      expect(last.get(name)?.toTypedArray(), name).to.deep.equal(tensor.toTypedArray());
    expect(last.get('conv1.weight')?.toTypedArray()).not.to.deep.equal(
      checkpoint.model.get('conv1.weight')?.toTypedArray(),
    );
    const metadata = (await load(path.join(output, 'best.safetensors'))).fileMetadata;
    expect(JSON.parse(metadata.get('preprocessing') ?? '')).to.deep.include({ size: 37, crop: [32, 32] });
  });

  describe('--in-channels 1', () => {
    const output = temporary.path('grey');
    const best = path.join(output, 'best.safetensors');
    const checkpoint = path.join(output, 'checkpoint.pt');

    it('trains on grey images, which the weights say, and goes on with them', async () => {
      const args = [
        'train',
        temporary.path('photos'),
        '--in-channels',
        '1',
        '--epochs',
        '2',
        '--batch-size',
        '8',
      ];
      const begun = await run([...args, '--threads', '1', '--output', output], /^epoch 1\/2/m);
      expect(begun.code, begun.err).to.equal(130);
      const other = await run(['train', '--resume', checkpoint, '--in-channels', '3']);
      expect([other.code, other.err]).to.satisfy(
        ([code, err]: [number, string]) =>
          code === 1 && /started with --in-channels 1, not 3.*ERR_SENET_RESUME/.test(err),
        other.err,
      );
      const resumed = await run(['train', '--resume', checkpoint, '--in-channels', '1', '--threads', '1']);
      expect(resumed.code, resumed.err).to.equal(0);
      const state = await load(best);
      expect(state.get('conv1.weight')?.shape).to.deep.equal([16, 1, 3, 3]);
      expect(state.fileMetadata.get('inChannels')).to.equal('1');
      expect(JSON.parse(state.fileMetadata.get('preprocessing') ?? '')).to.deep.include({
        channels: 'grey',
        mean: [0.459],
        std: [0.2256],
      });
      expect(readFileSync(path.join(output, 'report.html'), 'utf8')).to.include('se_resnet20, inChannels 1');
    });

    it('classify and profile know it', async () => {
      const photo = temporary.path('photos', 'red', '3.png');
      const shown = await run(['classify', '--weights', best, photo, '--json']);
      expect(shown.code, shown.err).to.equal(0);
      const [{ labels = [] } = {}] = JSON.parse(shown.out) as { labels?: { label: string }[] }[];
      expect(labels.map(({ label }) => label).sort()).to.deep.equal(['blue', 'red']);
      const plan = await run(['profile', 'se_resnet20', '--weights', best, '--runs', '1', '--json']);
      expect(plan.code, plan.err).to.equal(0);
      const { steps } = JSON.parse(plan.out) as { steps: { input: number[] }[] };
      expect(steps[0]?.input).to.deep.equal([1, 32, 32]);
    });

    it('finetune and evaluate go by the weights, on grey data as it is', async () => {
      const tuned = temporary.path('grey-tuned');
      const { code, out, err } = await run([
        ...['finetune', data, '--weights', best, '--limit', '48', '--epochs', '1', '--batch-size', '24'],
        ...['--threads', '1', '--json', '--output', tuned],
      ]);
      expect(code, err).to.equal(0);
      const { settings } = JSON.parse(out) as { settings: { modelOptions: object; mean: number[] } };
      expect(settings.modelOptions).to.deep.equal({ inChannels: 1 });
      expect(settings.mean).to.deep.equal([0.459]); // what the weights were trained with
      const last = path.join(tuned, 'last.safetensors');
      expect((await load(last)).get('conv1.weight')?.shape).to.deep.equal([16, 1, 3, 3]);
      const evaluated = await run(['evaluate', data, '--weights', last, '--limit', '20', '--json']);
      expect(evaluated.code, evaluated.err).to.equal(0);
      expect((JSON.parse(evaluated.out) as { total: number }).total).to.equal(20);
    });

    it('images have 1 or 3 channels', async () => {
      const { code, err } = await run(['train', data, '--in-channels', '2']);
      expect(code).to.equal(2);
      expect(err).to.match(/--in-channels.*1 \(grey images\) or 3/);
    });
  });

  it('finetune puts a new head on weights and can freeze the rest', async () => {
    const output = temporary.path('finetuned');
    const { code, out, err } = await run([
      ...[
        'finetune',
        temporary.path('photos'),
        '--weights',
        BUNDLED,
        '--freeze',
        'backbone',
        '--epochs',
        '6',
      ],
      ...['--batch-size', '6', '--lr', '0.5', '--augment', 'none', '--threads', '1', '--output', output],
    ]);
    expect(code, err).to.equal(0);
    expect(out).to.match(/best: 100\.00 %/);
    const [before, after] = await Promise.all([load(BUNDLED), load(path.join(output, 'last.safetensors'))]);
    expect(after.get('fc.weight')?.shape).to.deep.equal([2, 64]);
    expect([...after.keys()].sort()).to.deep.equal([...before.keys()].sort());
    for (const [name, tensor] of before)
      if (!name.startsWith('fc.'))
        expect(after.get(name)?.toTypedArray(), name).to.deep.equal(tensor.toTypedArray());
  });

  describe('says what is wrong', () => {
    const cases: [name: string, code: number, words: RegExp, args: () => string[]][] = [
      ['no data', 2, /give the data, or --resume/, () => ['train']],
      [
        'data that is not there',
        1,
        /none: no such file.*ERR_SENET_FILE_NOT_FOUND/,
        () => ['train', temporary.path('none')],
      ],
      [
        'an empty folder',
        1,
        /expected a folder of images for each class.*found nothing.*ERR_SENET_DATASET/,
        () => {
          mkdirSync(temporary.path('empty'));
          return ['train', temporary.path('empty')];
        },
      ],
      [
        'one class',
        1,
        /two classes.*only 'red'.*ERR_SENET_DATASET/,
        () => {
          cpSync(temporary.path('photos', 'red'), temporary.path('one', 'red'), { recursive: true });
          return ['train', temporary.path('one')];
        },
      ],
      [
        'a data set that is truncated',
        1,
        /train-images.*truncated.*ERR_SENET_DATA_FORMAT/,
        () => {
          cpSync(data, temporary.path('cut'), { recursive: true });
          const file = temporary.path('cut', 'train-images-idx3-ubyte.gz');
          writeFileSync(file, readFileSync(file).subarray(0, 100_000));
          return ['train', temporary.path('cut')];
        },
      ],
      [
        'an image that is damaged',
        1,
        /damaged\.png.*ERR_SENET_IMAGE/,
        () => {
          cpSync(temporary.path('photos'), temporary.path('damaged'), { recursive: true });
          writeFileSync(temporary.path('damaged', 'red', 'damaged.png'), 'text');
          return ['train', temporary.path('damaged'), '--validation', 'none', '--batch-size', '8'];
        },
      ],
      [
        'a model that is none',
        2,
        /did you mean 'se_resnet20'.*ERR_SENET_UNKNOWN_MODEL/,
        () => ['train', data, '--model', 'se_resnet2'],
      ],
      [
        'a share above 1',
        2,
        /--validation.*ERR_SENET_ARG_RANGE/,
        () => ['train', data, '--validation', '1.5'],
      ],
      ['an augmentation that is none', 2, /crop, flip/, () => ['train', data, '--augment', 'rotate']],
      [
        'weights of another kind to resume',
        1,
        /ERR_SENET_RESUME/,
        () => ['train', '--resume', path.join(FIXTURES, 'se_resnet20-zip.pt')],
      ],
      ['no weights to finetune', 2, /--weights FILE or --pretrained/, () => ['finetune', data]],
      [
        'a part that cannot be frozen',
        2,
        /no part 'layer9'; it has conv1, /,
        () => ['finetune', data, '--weights', BUNDLED, '--freeze', 'layer9'],
      ],
      [
        'everything frozen',
        2,
        /nothing would be left/,
        () => ['finetune', data, '--weights', BUNDLED, '--freeze', 'conv1,bn1,layer1,layer2,layer3,fc'],
      ],
    ];
    for (const [name, code, words, args] of cases) {
      it(name, async () => {
        const output = temporary.path('refused');
        const outcome = await run([...args(), '--output', output]);
        expect(outcome.err).to.match(words);
        expect([outcome.code, outcome.err.trimEnd().split('\n').length]).to.deep.equal([code, 1]);
        expect(existsSync(path.join(output, 'checkpoint.pt'))).to.equal(false);
        rmSync(output, { recursive: true, force: true });
      });
    }

    it('leaves damaged images out when asked, and lists them', async () => {
      const output = temporary.path('skipped');
      const folder = temporary.path('damaged-2');
      cpSync(temporary.path('photos'), folder, { recursive: true });
      writeFileSync(path.join(folder, 'red', 'damaged.png'), 'text');
      const { code, out, err } = await run([
        ...['train', folder, '--skip-corrupt', '--validation', 'none', '--epochs', '1', '--batch-size', '8'],
        ...['--threads', '1', '--output', output],
      ]);
      expect(code, err).to.equal(0);
      expect(out).to.match(/1 image left out:\n {2}.*damaged\.png/);
    });
  });
});
