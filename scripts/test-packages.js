'use strict';
// `npm run test:packages`: a release as people install it. Packs one from the build of this clone (or takes the files of
// --release FOLDER), offers it in a registry of its own, and installs it in empty folders, without install scripts and
// without a compiler, by each package manager; uses it by `require`, `import` and TypeScript, moves the folder, and starts it in a
// root that has Node and glibc alone; on other Nodes, Bun and Deno; bundled; and where something is missing. What cannot be had
// here is skipped by name. Arguments name the cases to run.
const { spawnSync } = require('node:child_process');
const assert = require('node:assert');
const { mkdirSync, mkdtempSync, readdirSync, rmSync } = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { parseArgs } = require('node:util');
const { startRegistry } = require('../test/packages/registry');
const { Tools } = require('../test/packages/managers');
const { CASES } = require('../test/packages/cases');
const { Skip } = require('../test/packages/skip');
const { ROOT } = require('./release/packages');
const { version } = require('../package.json');

const { values, positionals: wanted } = parseArgs({
  options: { release: { type: 'string' }, keep: { type: 'boolean', default: false } },
  allowPositionals: true,
});

/** The files of a release: those of --release, or new ones. */
function releasedIn(work) {
  const folder = path.resolve(values.release ?? path.join(work, 'release'));
  if (values.release === undefined) {
    const script = path.join(__dirname, 'release', 'release.js');
    // 1: made, and not fit for a release; what is installed from it is to work all the same.
    const { status } = spawnSync(process.execPath, [script, '--out', folder], {
      cwd: ROOT,
      stdio: 'inherit',
    });
    assert.ok(status === 0 || status === 1, 'nothing could be packed');
  }
  const files = readdirSync(folder).filter((name) => name.endsWith(`-${version}.tgz`));
  assert.ok(files.length >= 3, `${folder} holds no release of version ${version}`);
  return files.map((name) => path.join(folder, name));
}

async function main() {
  const names = Object.keys(CASES).filter(
    (name) => wanted.length === 0 || wanted.some((part) => name.startsWith(part)),
  );
  const work = mkdtempSync(path.join(os.tmpdir(), 'senet-packages-'));
  const outcomes = [];
  let registry;
  try {
    registry = await startRegistry(releasedIn(work));
    const tools = new Tools(path.join(work, 'tools'));
    for (const [index, name] of names.entries()) {
      console.log(`== ${name}`);
      const folder = path.join(work, `case-${index}`);
      mkdirSync(folder);
      const started = Date.now();
      const seconds = () => `${((Date.now() - started) / 1000).toFixed(0)} s`;
      try {
        const said = await CASES[name]({ folder, registry, tools, version });
        outcomes.push([name, `passed (${seconds()})${said === undefined ? '' : `: ${said}`}`]);
      } catch (error) {
        if (!(error instanceof Skip)) console.error(error.stack);
        outcomes.push([name, error instanceof Skip ? `skipped: ${error.message}` : 'FAILED']);
      }
      if (!values.keep)
        for (const left of [folder, `${folder}-home`]) rmSync(left, { recursive: true, force: true });
    }
  } finally {
    await registry?.close();
    if (values.keep) console.log(`kept ${work}`);
    else rmSync(work, { recursive: true, force: true });
  }
  for (const [name, outcome] of outcomes) console.log(`${name.padEnd(32)}${outcome}`);
  process.exitCode = outcomes.some(([, outcome]) => outcome === 'FAILED') ? 1 : 0;
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
