'use strict';
// `npm run test:runtimes`: the checks of test/runtimes, with the packed package and this clone's build, under Jest (node
// and jsdom), vitest (vm pools), node:test, Bun and Deno; and the whole suite on other Nodes. They come from the npm registry
// into a temporary folder; what cannot be had is skipped by name. Arguments name the runtimes to run, and files of the suite
// (test/...) if not all.
const { spawnSync } = require('node:child_process');
const { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { pack } = require('./checks/package');

const ROOT = path.join(__dirname, '..');
const JEST = ['jest@30.5.2', 'jest-environment-jsdom@30.5.2'];
const VITEST = ['vitest@3.2.4'];

/** Name -> what npm installs for it, and how it is run in the folder. */
const RUNTIMES = {
  'node:test': { packages: [], command: [process.execPath, '--test', 'node.test.js'] },
  'jest (node)': { packages: JEST, command: bin('jest', 'jest.test.js', '--env', 'node') },
  'jest (jsdom)': { packages: JEST, command: bin('jest', 'jest.test.js', '--env', 'jsdom') },
  'vitest (vmThreads)': {
    packages: VITEST,
    command: bin('vitest', 'run', 'vitest.test.mjs', '--pool', 'vmThreads'),
  },
  'vitest (vmForks)': {
    packages: VITEST,
    command: bin('vitest', 'run', 'vitest.test.mjs', '--pool', 'vmForks'),
  },
  bun: { packages: ['bun@1.4.5'], scripts: true, command: bin('bun', 'plain.cjs') },
  deno: { packages: ['deno@2.9.6'], scripts: true, command: bin('deno', 'run', '-A', 'plain.cjs') },
};

const SUITE = [
  path.join(ROOT, 'node_modules', 'mocha', 'bin', 'mocha.js'),
  '--reporter',
  'scripts/reporter.js',
];
/** Other Nodes, on which the suite runs in this clone. */
for (const version of ['22.23.3', '24.21.0', '26.12.1'])
  RUNTIMES[`node ${version}`] = {
    packages: [`node-${process.platform}-${process.arch}@${version}`],
    suite: true,
  };

function bin(name, ...args) {
  return [path.join('node_modules', '.bin', name), ...args];
}

function install(folder, packages, scripts) {
  const flags = ['--no-audit', '--no-fund', '--prefer-offline', '--loglevel=error'];
  if (!scripts) flags.push('--ignore-scripts');
  return spawnSync('npm', ['install', ...flags, ...packages], { cwd: folder, encoding: 'utf8' });
}

/** A folder with the package, its build and the checks. */
function prepare(folder) {
  const { filename } = pack(folder);
  writeFileSync(path.join(folder, 'package.json'), '{ "name": "runtimes", "private": true }');
  const installed = install(folder, [`./${filename}`], false);
  if (installed.status !== 0) throw new Error(installed.stderr);
  const release = path.join(folder, 'node_modules', 'senet-torch', 'build', 'Release');
  mkdirSync(release, { recursive: true });
  for (const name of readdirSync(path.join(ROOT, 'build', 'Release')).filter((file) =>
    file.endsWith('.node'),
  ))
    cpSync(path.join(ROOT, 'build', 'Release', name), path.join(release, name));
  cpSync(path.join(ROOT, 'assets'), path.join(folder, 'assets'), { recursive: true });
  cpSync(path.join(ROOT, 'test', 'runtimes'), folder, { recursive: true });
  cpSync(path.join(__dirname, 'checks', 'pages.js'), path.join(folder, 'pages.js'));
}

/** The suite, or these files of it, on the Node that was installed in `folder`; gives the exit status. */
function runSuite(folder, name, files) {
  const programs = path.join(folder, 'node_modules', name, 'bin');
  const node = path.join(programs, 'node');
  const options = { cwd: ROOT, stdio: 'inherit', env: { ...process.env } };
  options.env.PATH = `${programs}${path.delimiter}${process.env.PATH}`;
  // Once, and not by each of the processes that run tests.
  spawnSync(node, ['-e', "require('./scripts/bootstrap').compile()"], options);
  const which = files.length === 0 ? ['--parallel', '--jobs', '2', 'test/**/*.test.ts'] : files;
  return spawnSync(node, [...SUITE, ...which], options).status;
}

const given = process.argv.slice(2);
const files = given.filter((argument) => argument.startsWith('test/'));
const wanted = given.filter((argument) => !argument.startsWith('test/'));
const names = Object.keys(RUNTIMES).filter(
  (name) => wanted.length === 0 || wanted.some((part) => name.startsWith(part)),
);
const folder = mkdtempSync(path.join(os.tmpdir(), 'senet-runtimes-'));
const outcomes = [];
try {
  prepare(folder);
  for (const name of names) {
    const { packages, scripts = false, suite = false, command } = RUNTIMES[name];
    console.log(`== ${name} ${packages.join(' ')}`);
    if (packages.length > 0 && install(folder, packages, scripts).status !== 0) {
      outcomes.push([name, 'skipped: not to be had from the npm registry']);
      continue;
    }
    const [program, ...args] = command ?? [];
    const status = suite
      ? runSuite(folder, packages[0].split('@')[0], files)
      : spawnSync(program, args, { cwd: folder, stdio: 'inherit' }).status;
    outcomes.push([name, status === 0 ? 'passed' : 'FAILED']);
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
for (const [name, outcome] of outcomes) console.log(`${name.padEnd(20)}${outcome}`);
process.exitCode = outcomes.some(([, outcome]) => outcome === 'FAILED') ? 1 : 0;
