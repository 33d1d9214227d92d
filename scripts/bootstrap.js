'use strict';
// The steps of a clone that need nothing but Node: dependencies and TypeScript. Each is skipped when its inputs have
// not changed since it last succeeded. What comes after them may use the dependencies (scripts/setup).
const { spawnSync } = require('node:child_process');
const {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} = require('node:fs');
const path = require('node:path');

const ROOT = path.join(__dirname, '..');

/** Names, sizes and times of change of everything below the given paths: cheap, and changes when they do. */
function fingerprint(...inputs) {
  const facts = [process.version];
  const visit = (file) => {
    const stats = statSync(file);
    if (stats.isDirectory()) for (const name of readdirSync(file).sort()) visit(path.join(file, name));
    else facts.push(`${path.relative(ROOT, file)} ${stats.size} ${stats.mtimeMs}`);
  };
  for (const input of inputs) if (existsSync(path.join(ROOT, input))) visit(path.join(ROOT, input));
  return facts.join('\n');
}

/** Runs `work` unless the stamp of an earlier success, or `doneElsewhere`, says that nothing has changed. */
function step(title, stampFile, inputs, outputs, work, doneElsewhere = () => false) {
  const stamp = path.join(ROOT, stampFile);
  const current = fingerprint(...inputs);
  const stamped = existsSync(stamp);
  const done = stamped ? readFileSync(stamp, 'utf8') === current : doneElsewhere();
  if (done && outputs.every((output) => existsSync(path.join(ROOT, output)))) {
    if (!stamped) writeFileSync(stamp, current);
    return;
  }
  console.error(title);
  const start = Date.now();
  rmSync(stamp, { force: true });
  work();
  mkdirSync(path.dirname(stamp), { recursive: true });
  writeFileSync(stamp, fingerprint(...inputs));
  console.error(`      done in ${((Date.now() - start) / 1000).toFixed(1)} s`);
}

function run(command, args, advice) {
  const result = spawnSync(command, args, { cwd: ROOT, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  if (result.status === 0) return;
  const output = `${result.stdout ?? ''}${result.stderr ?? ''}`.trimEnd().split('\n').slice(-30).join('\n');
  console.error(
    `${output}\n\n${command} ${args.join(' ')} failed${result.error ? `: ${result.error.message}` : ''}. ${advice}`,
  );
  process.exit(1);
}

/** npm writes a list of what it installed; one that is newer than the lock file is of this lock file. */
function installedByHand() {
  const changed = (file) => statSync(path.join(ROOT, file), { throwIfNoEntry: false })?.mtimeMs ?? NaN;
  return changed('node_modules/.package-lock.json') >= changed('package-lock.json');
}

function bootstrap() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major < 20 || (major === 20 && minor < 19)) {
    console.error(`senet-torch needs Node 20.19 or newer, this is ${process.version}.`);
    process.exit(1);
  }
  step(
    '[1/4] Installing dependencies (npm ci)',
    'node_modules/.senet-stamp',
    ['package-lock.json'],
    ['node_modules/typescript/package.json', 'node_modules/mocha/package.json'],
    () => run('npm', ['ci', '--no-audit', '--no-fund'], 'Is the npm registry within reach?'),
    installedByHand,
  );
  compile();
}

/** lib/ to dist/, where that is older. */
function compile() {
  step(
    '[2/4] Compiling TypeScript',
    'dist/.senet-stamp',
    ['lib', 'tsconfig.json', 'scripts/bundle.js'],
    ['dist/index.js', 'dist/library.js', 'dist/cli/main.js'],
    () => {
      const advice = 'Mend the errors above and run it again.';
      run(process.execPath, ['node_modules/typescript/bin/tsc', '-p', '.'], advice);
      run(process.execPath, ['scripts/bundle.js'], advice);
    },
  );
}

module.exports = { bootstrap, compile, ROOT };
