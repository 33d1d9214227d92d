/**
 * What commands load only when they run: the native build with everything on it, and what takes long to load.
 * `require` and not `import()`, since the output is CommonJS and runs from source in tests.
 */
/* eslint-disable @typescript-eslint/no-require-imports */

export const lazy = {
  get classifier() {
    return require('../vision/image-classifier') as typeof import('../vision/image-classifier');
  },
  get weights() {
    return require('../vision/weights') as typeof import('../vision/weights');
  },
  get models() {
    return require('../models/registry') as typeof import('../models/registry');
  },
  get factories() {
    return require('../tensor/factories') as typeof import('../tensor/factories');
  },
  get training() {
    return require('./training') as typeof import('./training');
  },
  get network() {
    return require('../vision/network') as typeof import('../vision/network');
  },
  get runtime() {
    return require('../tensor/runtime') as typeof import('../tensor/runtime');
  },
  get native() {
    return require('../native') as typeof import('../native');
  },
  get load() {
    return require('../checkpoint/load') as typeof import('../checkpoint/load');
  },
  get save() {
    return require('../checkpoint/save') as typeof import('../checkpoint/save');
  },
  get checkpoint() {
    return require('../checkpoint/inspect') as typeof import('../checkpoint/inspect');
  },
};
