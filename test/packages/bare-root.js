'use strict';
// A root folder as a minimal container has it: Node, the libraries that Node is linked to, /proc, and an application. Nothing
// of the machine that built or installed it is there.
const { execFileSync, spawnSync } = require('node:child_process');
const { copyFileSync, cpSync, mkdirSync, realpathSync } = require('node:fs');
const path = require('node:path');

/** What belongs to glibc, and stands wherever it does. */
const GLIBC = ['libdl.so.2', 'libm.so.6', 'libpthread.so.0', 'libresolv.so.2', 'librt.so.1'];

/** Why none can be made here; undefined if it can. */
function noBareRoot() {
  if (process.platform !== 'linux') return 'only Linux has such';
  const tried = spawnSync('unshare', ['--mount', '--pid', '--fork', 'true'], { encoding: 'utf8' });
  return tried.status === 0 ? undefined : `unshare: ${tried.error?.message ?? tried.stderr.trim()}`;
}

/** Copies `application` to /app of a new root in `folder`. */
function makeBareRoot(folder, application) {
  const put = (file) => {
    mkdirSync(path.dirname(path.join(folder, file)), { recursive: true });
    copyFileSync(realpathSync(file), path.join(folder, file));
  };
  const linked = execFileSync('ldd', [process.execPath], { encoding: 'utf8' });
  for (const [file] of linked.matchAll(/\/\S+/g)) {
    put(file);
    if (path.basename(file) === 'libc.so.6')
      for (const name of GLIBC) put(path.join(path.dirname(file), name));
  }
  mkdirSync(path.join(folder, 'bin'), { recursive: true });
  copyFileSync(process.execPath, path.join(folder, 'bin', 'node'));
  for (const name of ['proc', 'tmp']) mkdirSync(path.join(folder, name));
  cpSync(application, path.join(folder, 'app'), { recursive: true, verbatimSymlinks: true });
}

/** Runs /bin/node in the root; gives { status, stdout, stderr }. */
function runInBareRoot(folder, args) {
  const script = 'mount -t proc proc "$1/proc" && root=$1 && shift && exec chroot "$root" /bin/node "$@"';
  return spawnSync('unshare', ['--mount', '--pid', '--fork', 'sh', '-c', script, 'sh', folder, ...args], {
    encoding: 'utf8',
    env: { PATH: process.env.PATH, HOME: '/tmp' },
  });
}

module.exports = { makeBareRoot, noBareRoot, runInBareRoot };
