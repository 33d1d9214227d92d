'use strict';
// Applications that are bundled, with senet-torch left out of the bundle and installed beside it, as docs/setup.md says.
const assert = require('node:assert');
const { spawn } = require('node:child_process');
const { mkdirSync, writeFileSync } = require('node:fs');
const { createServer } = require('node:net');
const path = require('node:path');
const { setTimeout: delay } = require('node:timers/promises');
const { output, run } = require('./run');
const { Skip } = require('./skip');

const ROOT = path.join(__dirname, '..', '..');

/** Adds packages to the consumer itself. */
async function add({ consumer, registry, tools }, packages) {
  const env = tools.environment(consumer, registry.url);
  const npm = tools.path('npm-11/bin/npm-cli.js');
  const flags = ['--no-audit', '--no-fund', '--loglevel=error', '--ignore-scripts'];
  const { status } = await run(process.execPath, [npm, 'install', ...flags, ...packages], {
    cwd: consumer,
    env,
  });
  if (status !== 0) throw new Skip('not to be had from the npm registry');
}

async function checkBundle({ consumer, registry, tools }, file) {
  const env = tools.environment(consumer, registry.url);
  const { label } = JSON.parse(await output(process.execPath, [file], { cwd: consumer, env }));
  assert.equal(label, 'Ankle boot');
}

async function esbuild(context) {
  const { build } = require(path.join(ROOT, 'node_modules', 'esbuild'));
  const { consumer } = context;
  await build({
    ...{ entryPoints: [path.join(consumer, 'required.cjs')], outfile: path.join(consumer, 'bundle.js') },
    ...{ bundle: true, minify: true, platform: 'node', external: ['senet-torch'] },
  });
  await checkBundle(context, 'bundle.js');
}

async function webpack(context) {
  const { consumer, registry, tools } = context;
  await add(context, ['webpack@5.113.0']);
  writeFileSync(
    path.join(consumer, 'build.cjs'),
    `require('webpack')({
      mode: 'production', target: 'node', context: __dirname, entry: './required.cjs',
      output: { path: __dirname, filename: 'packed.js' },
      // Of the resolved path of package.json, webpack would make a number.
      externals: [{ 'senet-torch': 'commonjs senet-torch', 'senet-torch/package.json': 'commonjs senet-torch/package.json' }],
    }, (error, stats) => { if (error || stats.hasErrors()) { console.error(error ?? stats.toString()); process.exit(1); } });`,
  );
  writeFileSync(path.join(consumer, 'required.cjs'), BUNDLED);
  const env = tools.environment(consumer, registry.url);
  await output(process.execPath, ['build.cjs'], { cwd: consumer, env });
  await checkBundle(context, 'packed.js');
}

/** Without `require.resolve`, which bundlers make something else of. */
const BUNDLED = `
const path = require('node:path');
const { ImageClassifier } = require('senet-torch');
ImageClassifier.load('se_resnet20', { weights: 'fashion_mnist' }).then(async (classifier) => {
  const image = path.join(process.cwd(), 'node_modules/senet-torch/assets/images/00-ankle-boot.png');
  console.log(JSON.stringify({ label: (await classifier.classify(image))[0].label }));
});`;

async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** A route of an application that Next.js built and serves. */
async function next(context) {
  const { consumer, registry, tools } = context;
  await add(context, ['next@16.4.6', 'react@19', 'react-dom@19']);
  mkdirSync(path.join(consumer, 'app', 'classify'), { recursive: true });
  const write = (file, text) => writeFileSync(path.join(consumer, file), text);
  write('next.config.mjs', "export default { serverExternalPackages: ['senet-torch'] };");
  write('app/layout.js', 'export default ({ children }) => <html lang="en"><body>{children}</body></html>;');
  write(
    'app/classify/route.js',
    `import { ImageClassifier } from 'senet-torch';
    let loading;
    export const dynamic = 'force-dynamic';
    export async function POST(request) {
      loading ??= ImageClassifier.load('se_resnet20', { weights: 'fashion_mnist' });
      const [{ label }] = await (await loading).classify(new Uint8Array(await request.arrayBuffer()));
      return Response.json({ label });
    }`,
  );
  const env = { ...tools.environment(consumer, registry.url), NEXT_TELEMETRY_DISABLED: '1' };
  const program = path.join(consumer, 'node_modules', 'next', 'dist', 'bin', 'next');
  await output(process.execPath, [program, 'build'], { cwd: consumer, env });
  const port = await freePort();
  const server = spawn(
    process.execPath,
    [program, 'start', '--port', String(port), '--hostname', '127.0.0.1'],
    {
      ...{ cwd: consumer, env, stdio: 'ignore' },
    },
  );
  try {
    const image = require('node:fs').readFileSync(path.join(ROOT, 'assets', 'images', '00-ankle-boot.png'));
    for (let attempt = 0; ; attempt++) {
      try {
        const answer = await fetch(`http://127.0.0.1:${port}/classify`, { method: 'POST', body: image });
        assert.deepEqual(await answer.json(), { label: 'Ankle boot' });
        return;
      } catch (error) {
        if (attempt === 100 || error instanceof assert.AssertionError) throw error;
        await delay(200);
      }
    }
  } finally {
    server.kill();
  }
}

const BUNDLERS = {
  esbuild,
  webpack,
  'Next.js': next,
  Electron: () => {
    throw new Skip('its program is not in the npm registry: its install script downloads it from elsewhere');
  },
};

module.exports = { BUNDLERS };
