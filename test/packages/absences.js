'use strict';
// What `require` says where a package of the release is missing, for each way in which people come to that; and that it works
// once they have typed what the message tells them to.
const assert = require('node:assert');
const { cpSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } = require('node:fs');
const path = require('node:path');
const tar = require('tar');
const { consumerIn, MANAGERS } = require('./managers');
const { output } = require('./run');
const { Skip } = require('./skip');
const { pack } = require('../../scripts/checks/package');

const ROOT = path.join(__dirname, '..', '..');
const HERE = `${process.platform}-${process.arch}`;
const ADDON = `@senet-torch/${HERE}`;
const LIBTORCH = `@senet-torch/libtorch-${HERE}`;

function consumerOf({ folder, version }) {
  const consumer = consumerIn(path.join(folder, 'consumer'), version);
  cpSync(path.join(__dirname, 'consumer'), consumer, { recursive: true });
  return consumer;
}

function modulesOf(consumer, name) {
  return path.join(consumer, 'node_modules', name);
}

/** The code and message of the error that `require` ends with. @param as - what the process is to take itself for */
async function refusal({ tools, registry }, consumer, as = '') {
  const env = { ...tools.environment(consumer, registry.url), SENET_TEST_AS: as };
  return JSON.parse(await output(process.execPath, ['refused.cjs'], { cwd: consumer, env }));
}

/** That it was refused as this, and loads when the command of the message was typed. */
async function mendedBy(manager, context, consumer, { code, message }, ...said) {
  assert.equal(code, 'ERR_SENET_NO_BUILD');
  for (const part of said) assert.ok(message.includes(part), `${part} is not said in: ${message}`);
  const [, removed, , ...typed] = /`rm -rf ([^&`]+) && (\S+) ([^`]+)`/.exec(message);
  for (const name of removed.split(' ')) rmSync(path.join(consumer, name), { recursive: true });
  const more = typed[0].split(' ').slice(1);
  await context.tools.install(manager, consumer, context.registry, more);
  assert.equal((await refusal(context, consumer)).message, 'it loads');
}

/** Changes the JSON file. */
function edit(file, change) {
  const value = JSON.parse(readFileSync(file, 'utf8'));
  change(value);
  writeFileSync(file, JSON.stringify(value, null, 2));
}

/** Optional dependencies were left out. */
async function leftOut(manager, context) {
  if (!(await context.tools.add(MANAGERS[manager].tools)))
    throw new Skip('not to be had from the npm registry');
  const consumer = consumerOf(context);
  const { without } = MANAGERS[manager];
  await context.tools.install(manager, consumer, context.registry, without);
  await mendedBy(manager, context, consumer, await refusal(context, consumer), ADDON, ...without);
}

/**
 * A lock file that npm made where another platform's packages lay in node_modules: it names no others. Today's `npm ci` refuses
 * it; older ones leave the packages out, as here.
 */
async function foreignLock(context) {
  const consumer = consumerOf(context);
  await context.tools.add(MANAGERS.npm.tools);
  await context.tools.install('npm', consumer, context.registry);
  edit(path.join(consumer, 'package-lock.json'), ({ packages }) => {
    for (const name of Object.keys(packages)) if (name.includes('@senet-torch/')) delete packages[name];
  });
  rmSync(modulesOf(consumer, '@senet-torch'), { recursive: true });
  const refused = await refusal(context, consumer);
  await mendedBy('npm', context, consumer, refused, ADDON, 'package-lock.json does not name it');
}

/** node_modules that npm made for another platform, as when a folder is copied to a server. */
async function foreignModules(context) {
  const { folder, registry, version } = context;
  const work = path.join(folder, 'republished');
  const packed = (from) => path.join(folder, pack(folder, from).filename);
  // A release that has a package for a second platform.
  const foreign = `@senet-torch/${HERE === 'darwin-arm64' ? 'linux-arm64' : 'darwin-arm64'}`;
  const [os, cpu] = foreign.split('/')[1].split('-');
  const second = path.join(work, 'second');
  mkdirSync(second, { recursive: true });
  writeFileSync(
    path.join(second, 'package.json'),
    JSON.stringify({ name: foreign, version, os: [os], cpu: [cpu] }),
  );
  registry.add(packed(second));
  tar.extract({ file: registry.fileOf('senet-torch'), cwd: work, sync: true });
  const again = `${version}-two.1`;
  edit(path.join(work, 'package', 'package.json'), (manifest) => {
    manifest.version = again;
    manifest.optionalDependencies[foreign] = version;
  });
  const released = registry.fileOf('senet-torch');
  registry.add(packed(path.join(work, 'package')));
  try {
    const consumer = consumerOf({ folder, version: again });
    await context.tools.add(MANAGERS.npm.tools);
    await context.tools.install('npm', consumer, registry, [`--os=${os}`, `--cpu=${cpu}`]);
    await mendedBy('npm', context, consumer, await refusal(context, consumer), ADDON, `${foreign} is, so`);
  } finally {
    registry.add(released);
  }
}

/** One installation by npm, damaged in one way after the other. */
async function damaged(context) {
  const consumer = consumerOf(context);
  await context.tools.add(MANAGERS.npm.tools);
  await context.tools.install('npm', consumer, context.registry);
  const told = (as) => refusal(context, consumer, as);
  assert.equal((await told()).message, 'it loads');

  const other = await told('darwin-x64');
  assert.equal(other.code, 'ERR_SENET_NO_BUILD');
  assert.match(
    other.message,
    /no package with a native build for darwin-x64, only for .*npx senet-torch setup/,
  );
  const foreign = await told('linux-riscv64');
  assert.equal(foreign.code, 'ERR_SENET_PLATFORM');

  // LibTorch's package alone.
  const libtorch = modulesOf(consumer, LIBTORCH);
  cpSync(path.join(libtorch, 'package.json'), path.join(consumer, 'libtorch.json'));
  edit(path.join(libtorch, 'package.json'), (manifest) => (manifest.version = '0.0.1'));
  rmSync(path.join(libtorch, 'lib'), { recursive: true });
  assert.match(
    (await told()).message,
    new RegExp(`${LIBTORCH} in .* is 0\\.0\\.1, and ${context.version} is needed`),
  );
  cpSync(path.join(consumer, 'libtorch.json'), path.join(libtorch, 'package.json'));
  assert.match((await told()).message, new RegExp(`${ADDON} in .* does not load: libtorch_cpu`));
  rmSync(libtorch, { recursive: true });
  await mendedBy(
    'npm',
    context,
    consumer,
    await told(),
    `${LIBTORCH} is not installed`,
    'package-lock.json names it',
  );

  const addon = modulesOf(consumer, ADDON);
  edit(path.join(addon, 'package.json'), (manifest) => (manifest.version = '0.0.1'));
  const older = await told();
  await mendedBy(
    'npm',
    context,
    consumer,
    older,
    `${ADDON} in `,
    `is 0.0.1, and ${context.version} is needed`,
  );

  writeFileSync(path.join(modulesOf(consumer, ADDON), 'senet_torch.node'), 'no addon');
  assert.match((await told()).message, new RegExp(`${ADDON} in .* does not load: .*npx senet-torch setup`));
}

/** As on Alpine. */
async function musl(context) {
  const consumer = consumerOf(context);
  await context.tools.add(MANAGERS.npm.tools);
  await context.tools.install('npm', consumer, context.registry, ['--libc=musl']);
  const { code, message } = await refusal(context, consumer, 'musl');
  assert.equal(code, 'ERR_SENET_PLATFORM');
  assert.match(message, /with musl\. .*bookworm-slim/);
}

/** What `setup` built comes before the package: with the LibTorch that it was built with. */
async function builtFirst(context) {
  if (!existsSync(path.join(ROOT, 'build', 'Release', 'senet_torch.node')))
    throw new Skip('there is no build here');
  const consumer = consumerOf(context);
  await context.tools.add(MANAGERS.npm.tools);
  await context.tools.install('npm', consumer, context.registry);
  const built = path.join(modulesOf(consumer, 'senet-torch'), 'build', 'Release');
  mkdirSync(built, { recursive: true });
  for (const name of ['senet_torch.node', 'senet_prelude.node'])
    cpSync(path.join(ROOT, 'build', 'Release', name), path.join(built, name));
  const env = context.tools.environment(consumer, context.registry.url);
  const { met } = JSON.parse(await output(process.execPath, ['required.cjs'], { cwd: consumer, env }));
  for (const file of met) assert.ok(!file.startsWith(consumer), file);
  writeFileSync(path.join(built, 'senet_torch.node'), 'no addon');
  const { code, message } = await refusal(context, consumer);
  assert.equal(code, 'ERR_SENET_NO_BUILD');
  assert.match(
    message,
    new RegExp(`native build at .*build.* does not load.*Or remove .*: ${ADDON} is installed`),
  );
}

/** Those that can be told apart by their name come first. */
const ABSENCES = {
  ...Object.fromEntries(
    Object.entries(MANAGERS)
      .filter(([, { without }]) => without !== undefined)
      .map(([name, { without }]) => [
        `absent: ${name} ${without.join(' ')}`,
        (context) => leftOut(name, context),
      ]),
  ),
  'absent: lock file': foreignLock,
  'absent: other platform': foreignModules,
  'absent: in parts': damaged,
  'absent: musl': musl,
  'a build comes first': builtFirst,
};

module.exports = { ABSENCES };
