/**
 * Finds the native addon, and loads it when something of it is first wanted, and at the end of `require('senet-torch')`, so
 * that the prelude's thread (preload.ts) has all of that time. What `setup` built here comes first (it may be for CUDA, or for a LibTorch
 * of the user's), then the package of this platform. Its absence, a LibTorch that moved and an unsupported platform each become
 * one coded error that says what to type.
 */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { isMainThread } from 'node:worker_threads';

import { isError } from './brands';
import type { NativeBinding } from './binding';
import { makeError, ofThisCopy } from './errors';
import { PACKAGE_ROOT } from './package-root';
import {
  explainAbsence,
  explainFailure,
  findPlatformPackage,
  type PlatformPackage,
} from './platform-package';
import { ADDON, beginLoading, BUILT, isBuilt } from './preload';

// Of the realm that webpack makes.
declare const __webpack_require__: unknown;

const SET_UP = 'Run `npx senet-torch setup` (in a clone of the repository: `npm start`).';
const BUILD_INSTEAD = 'Or build it here: `npx senet-torch setup`.';

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
  const instead = musl ? ' Take an image with glibc, such as node:22-bookworm-slim.' : '';
  throw makeError(
    'ERR_SENET_PLATFORM',
    `senet-torch runs on Linux with glibc and on macOS (x64, arm64); this is ${platform} ${arch}${musl ? ' with musl' : ''}.${instead}`,
  );
}

/** Throws if this file is part of a bundle: the addon then lies elsewhere, and is no JavaScript to be bundled. */
function checkNotBundled(): void {
  try {
    const { name } = JSON.parse(readFileSync(path.join(PACKAGE_ROOT, 'package.json'), 'utf8')) as {
      name?: unknown;
    };
    if (name === 'senet-torch') return;
  } catch {
    // no package here
  }
  const [bundler, line] = bundlerOf();
  throw makeError(
    'ERR_SENET_NO_BUILD',
    `senet-torch was bundled by ${bundler}, and its native addon cannot be: leave the package out of the bundle (${line}) and install it beside the bundle.`,
  );
}

function bundlerOf(): readonly [name: string, line: string] {
  if (typeof __webpack_require__ !== 'undefined') {
    return process.env.NEXT_RUNTIME === undefined
      ? ['webpack', "externals: { 'senet-torch': 'commonjs senet-torch' }"]
      : ['Next.js', "serverExternalPackages: ['senet-torch'] in next.config"];
  }
  if (isEsbuilds(bundleText())) return ['esbuild', '--external:senet-torch'];
  return ['a bundler', "esbuild: --external:senet-torch; Rollup, Vite: external: ['senet-torch']"];
}

function bundleText(): string {
  try {
    return readFileSync(__filename, 'utf8');
  } catch {
    return '';
  }
}

/** By the helper that its bundles begin with, whatever minifying made of the names. */
function isEsbuilds(bundle: string): boolean {
  return /\(\(?(\w+)\s*=\s*\{\s*exports:\s*\{\s*\}\s*\}\)\.exports,\s*\1\),\s*\1\.exports/.test(bundle);
}

/** Requires the addon, once the prelude has loaded it. */
function requireAddon(folder: string): NativeBinding {
  beginLoading(folder)?.endLoading();
  // eslint-disable-next-line @typescript-eslint/no-require-imports -- an addon can only be required
  return require(path.join(folder, ADDON)) as NativeBinding;
}

/** The package of this platform; throws an error that says why it is not there. */
function installedPackage(): PlatformPackage {
  checkNotBundled();
  const installed = findPlatformPackage(PACKAGE_ROOT);
  if (installed !== undefined) return installed;
  checkPlatform();
  const absence = explainAbsence(PACKAGE_ROOT);
  throw makeError(
    'ERR_SENET_NO_BUILD',
    absence === undefined
      ? `No native build at ${path.join(BUILT, ADDON)}. ${SET_UP}`
      : `${absence} ${BUILD_INSTEAD}`,
  );
}

function explainLoad(reason: string): string {
  if (installed !== undefined) {
    const { name, folder } = installed;
    const failure = explainFailure(PACKAGE_ROOT, installed);
    return `${failure ?? `The package ${name} in ${folder} does not load: ${reason}.`} ${BUILD_INSTEAD}`;
  }
  const prebuilt = findPlatformPackage(PACKAGE_ROOT);
  const instead =
    prebuilt === undefined ? '' : ` Or remove ${path.dirname(BUILT)}: ${prebuilt.name} is installed.`;
  return `The native build at ${path.join(BUILT, ADDON)} does not load: ${reason}. ${SET_UP}${instead}`;
}

interface Addon {
  readonly functions: NativeBinding;
  /** The file that was loaded. */
  readonly file: string;
}

// Its absence is told before anything is run that could miss other files of the package, in a bundle above all.
const installed = isBuilt() ? undefined : installedPackage();

function loadAddon(): Addon {
  const folder = installed?.folder ?? BUILT;
  let functions: NativeBinding;
  try {
    functions = requireAddon(folder);
  } catch (cause) {
    checkPlatform();
    const reason = isError(cause) ? cause.message : String(cause);
    throw makeError('ERR_SENET_NO_BUILD', explainLoad(reason), { cause });
  }
  if (functions.libtorchVersion !== functions.builtWithLibtorch) {
    throw makeError(
      'ERR_SENET_LIBTORCH_VERSION',
      `The addon was built with LibTorch ${functions.builtWithLibtorch} and met ${functions.libtorchVersion}. ${SET_UP}`,
    );
  }
  return { functions, file: path.join(folder, ADDON) };
}

let addon: Addon | undefined;
const waiting: (() => void)[] = [];

/**
 * Loads the addon, if it is not yet, and says which file it is.
 * @throws ERR_SENET_NO_BUILD, ERR_SENET_PLATFORM, ERR_SENET_LIBTORCH_VERSION
 */
export function loadNative(): string {
  return loaded().file;
}

function loaded(): Addon {
  if (addon === undefined) {
    const now = loadAddon();
    addon = now;
    Object.setPrototypeOf(binding, null);
    Object.assign(binding, withOwnErrors(now.functions));
    // process.exit() and an uncaught throw run no environment clean-up hooks, and C++ statics are gone by the time atexit
    // handlers could wait: jobs that still run are waited for here.
    if (isMainThread) {
      beside(now, 'drains', () => process.on('exit', (code) => now.functions.drain(code)));
    }
    for (const then of waiting.splice(0)) then();
  }
  return addon;
}

/** Calls back as soon as the addon is loaded. */
export function whenLoaded(then: () => void): void {
  if (addon === undefined) waiting.push(then);
  else then();
}

/**
 * The addon's functions, typed; the first that is asked for loads it. A process may load this library several times on one
 * addon (Jest: for each file of tests, in a realm of its own), and the addon makes its errors through the last: every copy
 * throws its own.
 */
export const binding = Object.create(
  new Proxy({}, { get: (_, name): unknown => loaded() && Reflect.get(binding, name) }),
) as NativeBinding;

function withOwnErrors<Functions extends object>(functions: Functions): Functions {
  const wrap = (given: unknown): unknown => {
    if (typeof given !== 'function') return given;
    const call = given as (...args: unknown[]) => unknown;
    return (...args: unknown[]): unknown => {
      try {
        return call(...args);
      } catch (error) {
        throw ofThisCopy(error);
      }
    };
  };
  return Object.fromEntries(
    Object.entries(functions).map(([name, value]) => [name, wrap(value)]),
  ) as Functions;
}

/** What all copies of this library on one addon have together: made by the first that asks. */
export function shared<T extends object>(name: string, make: () => T): () => T {
  let value: T | undefined;
  return () => (value ??= beside(loaded(), name, make));
}

function beside<T extends object>({ functions }: Addon, name: string, make: () => T): T {
  const key = Symbol.for(`senet-torch.${name}`);
  const slots = functions as object as { [slot: symbol]: T };
  return (slots[key] ??= make());
}
