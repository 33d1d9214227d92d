/**
 * The packed tarball as a user meets it: installed in an empty folder, used by `require`, by `import` and from
 * TypeScript, with and without a native build; and the JavaScript examples of the documentation, run.
 */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import { expect } from 'chai';

import { freePort } from '../support/free-port';
import { Temporary } from '../support/temporary';

const ROOT = path.join(__dirname, '..', '..');
const { pack } = require('../../scripts/checks/package') as {
  pack: (folder: string) => { filename: string };
};
const { examplesOf } = require('../../scripts/checks/pages') as {
  examplesOf: (root: string) => readonly { page: string; code: string }[];
};

describe('the packed package', function () {
  this.timeout(300_000);
  let temporary: Temporary;
  let consumer: string;

  before(() => {
    temporary = new Temporary();
    const { filename } = pack(temporary.folder);
    consumer = temporary.path('consumer');
    mkdirSync(consumer);
    writeFileSync(path.join(consumer, 'package.json'), '{ "name": "consumer", "private": true }');
    const tarball = temporary.path(filename);
    const flags = ['--prefer-offline', '--no-audit', '--no-fund', '--ignore-scripts', '--loglevel=error'];
    execFileSync('npm', ['install', ...flags, tarball], { cwd: consumer, stdio: 'pipe' });
  });
  after(() => temporary.cleanUp());

  function run(file: string, program: string): string {
    const target = path.join(consumer, file);
    writeFileSync(target, program);
    return execFileSync(process.execPath, [target], { cwd: consumer, encoding: 'utf8' }).trim();
  }

  it('without a build, require throws one coded error that says what to type', () => {
    const said = run(
      'no-build.js',
      "try { require('senet-torch') } catch (e) { console.log(e.code, e.message) }",
    );
    expect(said).to.match(/^ERR_SENET_NO_BUILD .*npx senet-torch setup/);
  });

  it('what it does not run on, and a LibTorch that it was not built with, are coded errors too', () => {
    const tryIt = "try { require('senet-torch') } catch (e) { console.log(e.code, e.message) }";
    const windows = "Object.defineProperty(process, 'platform', { value: 'win32' });";
    expect(run('windows.js', windows + tryIt)).to.match(/^ERR_SENET_PLATFORM .*this is win32/);
    const musl = 'process.report.getReport = () => ({ header: {} });';
    expect(run('musl.js', musl + tryIt)).to.match(/^ERR_SENET_PLATFORM .*with musl/);

    // An addon that reports what such a one would report; a real one needs a second LibTorch.
    const release = path.join(consumer, 'node_modules', 'senet-torch', 'build', 'Release');
    mkdirSync(release, { recursive: true });
    writeFileSync(path.join(release, 'senet_torch.node'), '');
    const versions = "{ libtorchVersion: '2.99.0', builtWithLibtorch: '2.13.0' }";
    const addon = `require.extensions['.node'] = (module) => { module.exports = ${versions}; };`;
    const said = run('other-libtorch.js', addon + tryIt);
    expect(said).to.match(/^ERR_SENET_LIBTORCH_VERSION .*2\.13\.0.*2\.99\.0.*npx senet-torch setup/);
    // A damaged build is no build, and the loader's own reason stays in the message.
    expect(run('damaged.js', tryIt)).to.match(
      /^ERR_SENET_NO_BUILD .*does not load: .*npx senet-torch setup/s,
    );
    rmSync(path.dirname(release), { recursive: true });
  });

  it('without a build, the command line has help, inspects files and says what is missing', () => {
    const cli = path.join(consumer, 'node_modules', '.bin', 'senet-torch');
    expect(execFileSync(cli, ['--help'], { encoding: 'utf8' })).to.contain('setup');
    expect(execFileSync(cli, ['setup', '--help'], { encoding: 'utf8' })).to.contain('--into-package');
    const inspected = execFileSync(
      cli,
      ['inspect', path.join(ROOT, 'test', 'fixtures', 'se_resnet20-zip.pt')],
      {
        encoding: 'utf8',
      },
    );
    expect(inspected).to.contain('conv1.weight');
    const classify = spawnSync(cli, ['classify'], { encoding: 'utf8' });
    expect(classify.status).to.equal(1);
    expect(classify.stderr).to.contain('ERR_SENET_NO_BUILD').and.contain('npx senet-torch setup');
    const doctor = spawnSync(cli, ['doctor'], { encoding: 'utf8' });
    expect(doctor.status).to.equal(1);
    expect(doctor.stdout).to.contain('Not ready');
  });

  describe('with a build', () => {
    before(() => {
      // The build of this repository: compiling it again would take minutes and show nothing new.
      const installed = path.join(consumer, 'node_modules', 'senet-torch', 'build');
      mkdirSync(path.join(installed, 'Release'), { recursive: true });
      for (const addon of ['senet_prelude.node', 'senet_torch.node'])
        cpSync(path.join(ROOT, 'build', 'Release', addon), path.join(installed, 'Release', addon));
    });

    it('require', () => {
      const program = `
        const { se_resnet20, zeros } = require('senet-torch');
        console.log(se_resnet20().eval().forwardSync(zeros([1, 3, 32, 32])).shape.join());`;
      expect(run('required.cjs', program)).to.equal('1,10');
    });

    it('works with a prelude that is damaged or absent, and leaves the environment as it was', () => {
      const prelude = path.join(
        consumer,
        ...['node_modules', 'senet-torch', 'build', 'Release', 'senet_prelude.node'],
      );
      const whole = readFileSync(prelude);
      const program = `
        const before = JSON.stringify(process.env);
        const { ones } = require('senet-torch');
        console.log(ones([2]).sum().item(), JSON.stringify(process.env) === before);`;
      expect(run('prelude.cjs', program)).to.equal('2 true');
      writeFileSync(prelude, 'no addon');
      expect(run('prelude.cjs', program)).to.equal('2 true');
      rmSync(prelude);
      expect(run('prelude.cjs', program)).to.equal('2 true');
      writeFileSync(prelude, whole);
    });

    it('import, by name and whole', () => {
      const program = `
        import { se_resnet20, zeros } from 'senet-torch';
        import * as all from 'senet-torch';
        const y = await se_resnet20().eval().forward(zeros([1, 3, 32, 32]));
        console.log(y.shape.join(), y instanceof all.Tensor);`;
      expect(run('imported.mjs', program)).to.equal('1,10 true');
    });

    it('exports what it is meant to, and no more', () => {
      const names = run('names.cjs', "console.log(Object.keys(require('senet-torch')).sort().join(' '))");
      const functions =
        'arange configure consumePrefixInStateDictIfPresent convertWeights createInferenceHandler createModel cuda empty exportWeights full httpStatusOf inspectCheckpoint isSenetError ' +
        'listModels load loadCheckpoint loadCompiled loadStateDictFromUrl manualSeed memory modelRecord noGrad ones ops quantizeWeights rand randint randn save ' +
        'se_inception_v3 se_preactresnet20 se_preactresnet32 se_preactresnet56 se_resnet101 se_resnet152 se_resnet18 ' +
        'se_resnet20 se_resnet32 se_resnet34 se_resnet50 se_resnet56 tensor tidy version zeros';
      const classes =
        'CifarSEBasicBlock CifarSEPreActResNet CifarSEResNet CompiledModel ERROR_CODES ImageClassifier L1Loss Module SEBasicBlock ' +
        'EcaModule NumpyArray OpaqueValue PytorchcvSEResNet ResNet SEBottleneck SEInception3 SELayer SEModule SENet SEResNet SenetError SenetRangeError SenetTypeError StateDict Tensor';
      const data =
        'CenterCrop Cifar10 Cifar100 ColorJitter Compose DataLoader Grayscale IdxDataset ImageFolder Mixup Normalize Pad ' +
        'PixelDataset Random RandomCrop RandomErasing RandomHorizontalFlip RandomResizedCrop randomSplit Resize Subset ToTensor ' +
        'WeightedRandomSampler ConcatDataset DistributedSampler kFold';
      const training =
        'Adam AdamW autocast BCEWithLogitsLoss clipGradNorm_ CosineAnnealingLR CrossEntropyLoss ExponentialLR ' +
        'ExponentialMovingAverage getRngState GradScaler LinearLR LRScheduler MSELoss MultiStepLR NLLLoss OneCycleLR Optimizer ' +
        'saveCheckpoint setRngState SGD StepLR Trainer readTrainingCheckpoint trainFromSettings createDatasets ' +
        'evaluateClassifier createLoaders createOptimizer createScheduler createTransform detectDataset ' +
        'ChainedScheduler CosineAnnealingWarmRestarts LambdaLR ReduceLROnPlateau SequentialLR ' +
        'Adagrad RMSprop';
      const layers =
        'AdaptiveAvgPool2d AvgPool2d BatchNorm2d Conv1d Conv2d Dropout Flatten Identity Linear MaxPool2d ModuleList ReLU ' +
        'Sequential Sigmoid';
      const distributed =
        'allGather allReduce barrier broadcast destroyProcessGroup DistributedDataParallel getRank getWorldSize initProcessGroup ' +
        'isInitialized SyncBatchNorm';
      const explaining =
        'ablateChannels classActivationMap classExcitations excitations gatedForward resizeMap';
      const bulk = 'classifyMany classifyToFile enqueueImages listImages startQueueWorker';
      expect(names.split(' ')).to.have.members(
        `${bulk} ${training} ${layers} ${classes} ${functions} ${data} ${explaining} ${distributed}`.split(
          ' ',
        ),
      );
    });

    it('TypeScript, as CommonJS and as a module, the declarations of the package checked', () => {
      const source = readFileSync(path.join(ROOT, 'test', 'types', 'surface.test-d.ts'), 'utf8');
      for (const extension of ['cts', 'mts'])
        writeFileSync(path.join(consumer, `surface.${extension}`), source);
      const tsc = path.join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc');
      const flags =
        '--noEmit --strict --module nodenext --target es2022 --lib es2022 --skipLibCheck false ' +
        '--exactOptionalPropertyTypes --esModuleInterop false --ignoreDeprecations 6.0';
      const types = ['--typeRoots', path.join(ROOT, 'node_modules', '@types'), '--types', 'node'];
      const result = spawnSync(
        process.execPath,
        [tsc, ...flags.split(' '), ...types, 'surface.cts', 'surface.mts'],
        {
          cwd: consumer,
          encoding: 'utf8',
        },
      );
      expect(result.stdout).to.equal('');
      expect(result.status).to.equal(0);
    });

    const examples = examplesOf(ROOT);
    it('the README and the pages have examples', () =>
      expect(examples.map(({ page }) => page)).to.include.members([
        'README.md',
        'docs/checkpoints.md',
        'docs/distributed.md',
        'docs/compiled-models.md',
        'docs/memory-and-threads.md',
        'docs/networks.md',
        'docs/serving.md',
        'docs/training.md',
      ]));
    examples.forEach(({ page, code }, index) => {
      const [title = ''] = code.split('\n').filter((line) => line.includes('require('));
      it(`example of ${page}: ${title.slice(0, 60)}`, async () => {
        const file = path.join(consumer, `example-${index}.js`);
        writeFileSync(file, code);
        if (!existsSync(path.join(consumer, 'assets'))) {
          cpSync(path.join(ROOT, 'assets'), path.join(consumer, 'assets'), { recursive: true });
        }
        if (code.includes('createServer')) await useService(file, code.includes('createInferenceHandler'));
        else execFileSync(process.execPath, [file], { cwd: consumer });
      });
    });
  });

  /** @param ours - a server of `createInferenceHandler`; else one that is written by hand */
  async function useService(file: string, ours: boolean): Promise<void> {
    const port = await freePort();
    const child = spawn(process.execPath, [file], {
      cwd: consumer,
      env: { ...process.env, PORT: String(port) },
    });
    try {
      const post = async (body: Uint8Array<ArrayBuffer>): Promise<Response> => {
        for (let attempt = 0; ; attempt++) {
          try {
            const url = `http://127.0.0.1:${port}/${ours ? 'classify?topK=3' : ''}`;
            return await fetch(url, { method: 'POST', body: new Blob([body]) });
          } catch (error) {
            if (attempt === 150) throw error;
            await delay(100);
          }
        }
      };
      const good = await post(readFileSync(path.join(ROOT, 'assets', 'images', '18-bag.png')));
      expect(good.status).to.equal(200);
      const said = (await good.json()) as { label: string }[] & { labels: { label: string }[] };
      const answer = ours ? said.labels : said;
      expect(answer).to.have.length(3);
      expect(answer[0]?.label).to.equal('Bag');
      const bad = await post(Buffer.from('no image'));
      expect(bad.status).to.equal(400);
    } finally {
      child.kill();
    }
  }
});
