/**
 * Where the native addon lies, and its prelude (native/addon/prelude.cpp), which loads it in a thread of its own: LibTorch
 * registers its operators while Node compiles and runs the rest of this library, which stands in a file of its own for that
 * (scripts/bundle.js). Nothing depends on the prelude but speed: what fails here fails again in native.ts, which says why.
 */
import { existsSync } from 'node:fs';
import path from 'node:path';

import { PACKAGE_ROOT } from './package-root';
import { findPlatformPackage } from './platform-package';

export const ADDON = 'senet_torch.node';
/** What `setup` builds. */
export const BUILT = path.join(PACKAGE_ROOT, 'build', 'Release');

interface Prelude {
  /** Begins to load the addon at that path, once. */
  beginLoading(addon: string): void;
  /** Waits until that has ended. */
  endLoading(): void;
}

export function isBuilt(): boolean {
  return existsSync(path.join(BUILT, ADDON));
}

/** Begins to load the addon in `folder`; undefined if the prelude is absent, or of another build. */
export function beginLoading(folder: string): Prelude | undefined {
  try {
    // eslint-disable-next-line @typescript-eslint/no-require-imports -- an addon can only be required
    const prelude = require(path.join(folder, 'senet_prelude.node')) as Prelude;
    prelude.beginLoading(path.join(folder, ADDON));
    return prelude;
  } catch {
    return undefined;
  }
}

/** Begins to load what will be required, if it is there. */
export function preload(): void {
  try {
    const folder = isBuilt() ? BUILT : findPlatformPackage(PACKAGE_ROOT)?.folder;
    if (folder !== undefined) beginLoading(folder);
  } catch {
    // in a bundle there is no package
  }
}
