/**
 * The prebuilt native part as npm brings it: `@senet-torch/linux-x64` and its like, an optional dependency for each
 * platform, each with LibTorch as an optional dependency of its own. Finds the one of this platform, or says why it is not
 * there and what to type. Loads nothing (native.ts does), and knows no platform by name: which there are stands in the
 * `package.json` of a release (scripts/release), and nothing in that of a clone.
 */
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

const SCOPE = '@senet-torch/';

interface Lock {
  readonly file: string;
  /** What stands in it of a package that it has, and not of one that another merely asks for. */
  readonly entry: (name: string) => string;
  /** How its tool installs optional dependencies, and which option leaves them out. */
  readonly install: string;
  readonly leavesOut: string;
}

const NPM = {
  entry: (name: string) => `node_modules/${name}"`,
  install: 'npm install --include=optional',
  leavesOut: '--omit=optional',
};
const entry = (name: string): string => `${name}@`;
const LOCKS: readonly Lock[] = [
  { file: 'package-lock.json', ...NPM },
  { file: 'npm-shrinkwrap.json', ...NPM },
  { file: 'pnpm-lock.yaml', entry, install: 'pnpm install', leavesOut: '--no-optional' },
  { file: 'yarn.lock', entry, install: 'yarn install', leavesOut: '--ignore-optional' },
  { file: 'bun.lock', entry, install: 'bun install', leavesOut: '--omit=optional' },
];

interface Manifest {
  readonly version?: string;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

export interface PlatformPackage {
  readonly name: string;
  /** Where the addon and its prelude lie. */
  readonly folder: string;
}

function manifestOf(folder: string): Manifest {
  return JSON.parse(readFileSync(path.join(folder, 'package.json'), 'utf8')) as Manifest;
}

/** Of the packages that are part of a release: name -> exact version. */
function prebuiltOf(folder: string): ReadonlyMap<string, string> {
  const all = Object.entries(manifestOf(folder).optionalDependencies ?? {});
  return new Map(all.filter(([name]) => name.startsWith(SCOPE)));
}

/** The folder of a package as the one in `from` sees it, whatever the layout; undefined if it is not installed. */
function folderOf(name: string, from: string): string | undefined {
  try {
    return path.dirname(createRequire(path.join(from, 'package.json')).resolve(`${name}/package.json`));
  } catch {
    return undefined;
  }
}

function ownName(): string {
  return `${SCOPE}${process.platform}-${process.arch}`;
}

/** The package for this platform that is installed for senet-torch in `root`, in the version that it asks for. */
export function findPlatformPackage(root: string): PlatformPackage | undefined {
  const name = ownName();
  const wanted = prebuiltOf(root).get(name);
  if (wanted === undefined) return undefined;
  const folder = folderOf(name, root);
  return folder !== undefined && manifestOf(folder).version === wanted ? { name, folder } : undefined;
}

/** Why `findPlatformPackage` finds none, and what to type; undefined where the package in `root` asks for none at all. */
export function explainAbsence(root: string): string | undefined {
  const prebuilt = prebuiltOf(root);
  if (prebuilt.size === 0) return undefined;
  const name = ownName();
  const wanted = prebuilt.get(name);
  if (wanted !== undefined) return explain(name, wanted, root, root);
  const platforms = [...prebuilt.keys()].map((one) => one.slice(SCOPE.length)).join(', ');
  return `There is no package with a native build for ${process.platform}-${process.arch}, only for ${platforms}.`;
}

/** Why a package that was found does not load, if the package with its LibTorch is the reason, and what to type. */
export function explainFailure(root: string, { folder }: PlatformPackage): string | undefined {
  for (const [name, wanted] of prebuiltOf(folder)) {
    const found = folderOf(name, folder);
    if (found === undefined || manifestOf(found).version !== wanted)
      return explain(name, wanted, folder, root);
  }
  return undefined;
}

/** What is wrong with a package that the one in `from` asks for and cannot use. */
function explain(name: string, wanted: string, from: string, root: string): string {
  const found = folderOf(name, from);
  return found === undefined
    ? `The package ${name} is not installed: ${reasonOf(name, root)}`
    : `The package ${name} in ${found} is ${manifestOf(found).version ?? 'of no version'}, and ${wanted} is needed. ${reinstall(findLock(root))}`;
}

function reasonOf(name: string, root: string): string {
  const foreign = [...prebuiltOf(root).keys()].find(
    (other) => other !== ownName() && folderOf(other, root) !== undefined,
  );
  const lock = findLock(root);
  if (foreign !== undefined)
    return `${foreign} is, so node_modules comes from another platform, or was made for one. ${reinstall(lock)}`;
  if (lock === undefined)
    return `it is an optional dependency, and those were left out (--omit=optional, --no-optional, --ignore-optional). ${reinstall(lock)}`;
  if (!readFileSync(lock.path, 'utf8').includes(lock.entry(name)))
    return `${lock.path} does not name it: it was made on another platform, or before this version. Type \`rm -rf node_modules ${lock.file} && ${lock.install}\`.`;
  return `${lock.path} names it, so it was left out when that was installed (${lock.leavesOut}, or a setting for another os, cpu or libc). ${reinstall(lock)}`;
}

function reinstall(lock: Lock | undefined): string {
  return lock === undefined
    ? 'Remove node_modules and install again, with optional dependencies.'
    : `Type \`rm -rf node_modules && ${lock.install}\`.`;
}

/** The nearest lock file above the package. */
function findLock(root: string): (Lock & { readonly path: string }) | undefined {
  for (let folder = root; ; folder = path.dirname(folder)) {
    for (const lock of LOCKS) {
      const file = path.join(folder, lock.file);
      if (existsSync(file)) return { ...lock, path: file };
    }
    if (path.dirname(folder) === folder) return undefined;
  }
}
