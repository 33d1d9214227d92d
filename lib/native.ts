/**
 * Loads the native addon: the only file that knows where it lies. Its absence, a LibTorch that moved and an
 * unsupported platform each become one coded error that says what to type.
 */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { isMainThread } from 'node:worker_threads';

import type { NativeBinding } from './binding';
import { makeError } from './errors';

const PACKAGE_ROOT = path.join(__dirname, '..');
const RELEASE = path.join(PACKAGE_ROOT, 'build', 'Release');
const ADDON = path.join(RELEASE, 'senet_torch.node');
/** Makes loading LibTorch faster, see native/addon/prelude.cpp; nothing depends on it. */
const PRELUDE = path.join(RELEASE, 'senet_prelude.node');
const SET_UP = 'Run `npx senet-torch setup` (in a clone of the repository: `npm start`).';

function checkPlatform(): void {
  const { platform, arch } = process;
  const supported = (platform === 'linux' || platform === 'darwin') && (arch === 'x64' || arch === 'arm64');
  // glibc's version stands in the report's header; musl has none.
  const header =
    platform === 'linux'
      ? (process.report.getReport() as { header?: Record<string, unknown> }).header
      : undefined;
  const musl = header !== undefined && header.glibcVersionRuntime === undefined;
  if (supported && !musl) return;
  throw makeError(
    'ERR_SENET_PLATFORM',
    `senet-torch runs on Linux with glibc and on macOS (x64, arm64); this is ${platform} ${arch}${musl ? ' with musl' : ''}.`,
  );
}

/**
 * Requires the addon with OpenMP's threads told to wait patiently. By default a thread of libgomp spins for milliseconds
 * at a barrier; beside other busy threads (an image decoder, another process) that is time taken from the one it waits
 * for, and a forward takes several times as long. A thousand turns cost nothing measurable on an idle machine (see
 * CONTRIBUTING.md). libgomp reads the variable when it is loaded and never again; a user's own choice stands.
 */
function requirePatiently(file: string): NativeBinding {
  const chosen = process.env.OMP_WAIT_POLICY ?? process.env.GOMP_SPINCOUNT;
  if (chosen === undefined) process.env.GOMP_SPINCOUNT = '1000';
  try {
    /* eslint-disable @typescript-eslint/no-require-imports -- an addon can only be required */
    if (existsSync(PRELUDE)) require(PRELUDE);
    return require(file) as NativeBinding;
    /* eslint-enable @typescript-eslint/no-require-imports */
  } finally {
    if (chosen === undefined) delete process.env.GOMP_SPINCOUNT;
  }
}

function load(): NativeBinding {
  if (!existsSync(ADDON)) {
    checkPlatform();
    throw makeError('ERR_SENET_NO_BUILD', `No native build at ${ADDON}. ${SET_UP}`);
  }
  let loaded: NativeBinding;
  try {
    loaded = requirePatiently(ADDON);
  } catch (cause) {
    checkPlatform();
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw makeError(
      'ERR_SENET_NO_BUILD',
      `The native build at ${ADDON} does not load: ${reason}. ${SET_UP}`,
      { cause },
    );
  }
  if (loaded.libtorchVersion !== loaded.builtWithLibtorch) {
    throw makeError(
      'ERR_SENET_LIBTORCH_VERSION',
      `The addon was built with LibTorch ${loaded.builtWithLibtorch} and met ${loaded.libtorchVersion}. ${SET_UP}`,
    );
  }
  return loaded;
}

/** The addon's functions, typed. */
export const binding: NativeBinding = load();

// process.exit() and an uncaught throw run no environment clean-up hooks, and C++ statics are gone by the time atexit
// handlers could wait: jobs that still run are waited for here.
if (isMainThread) process.on('exit', (code) => binding.drain(code));
