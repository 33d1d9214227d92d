/**
 * Loads the native addon: the only file that knows where it lies. Its absence, a LibTorch that moved and an
 * unsupported platform each become one coded error that says what to type.
 */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { isMainThread } from 'node:worker_threads';

import { isError } from './brands';
import type { NativeBinding } from './binding';
import { makeError } from './errors';

const PACKAGE_ROOT = path.join(__dirname, '..');
const RELEASE = path.join(PACKAGE_ROOT, 'build', 'Release');
const ADDON = path.join(RELEASE, 'senet_torch.node');
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

/** Requires the addon, after the prelude (native/addon/prelude.cpp), on which nothing depends but speed. */
function requireAddon(): NativeBinding {
  /* eslint-disable @typescript-eslint/no-require-imports -- an addon can only be required */
  let prelude: { restoreEnvironment(): void } | undefined;
  try {
    prelude = require(PRELUDE) as typeof prelude;
  } catch {
    // absent, or of another build
  }
  try {
    return require(ADDON) as NativeBinding;
  } finally {
    prelude?.restoreEnvironment();
  }
  /* eslint-enable @typescript-eslint/no-require-imports */
}

function load(): NativeBinding {
  if (!existsSync(ADDON)) {
    checkPlatform();
    throw makeError('ERR_SENET_NO_BUILD', `No native build at ${ADDON}. ${SET_UP}`);
  }
  let loaded: NativeBinding;
  try {
    loaded = requireAddon();
  } catch (cause) {
    checkPlatform();
    const reason = isError(cause) ? cause.message : String(cause);
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
// Once, however often this library is loaded on one addon.
const DRAINS = Symbol.for('senet-torch.drains');
if (isMainThread && !(DRAINS in binding)) {
  Object.defineProperty(binding, DRAINS, { value: true });
  process.on('exit', (code) => binding.drain(code));
}
