/**
 * What commands load only when they run: the native build with everything on it, and what takes long to load.
 * `require` and not `import()`, since the output is CommonJS and runs from source in tests.
 */
/* eslint-disable @typescript-eslint/no-require-imports */

export const lazy = {
  get classifier() {
    return require('../vision/image-classifier') as typeof import('../vision/image-classifier');
  },
  get grpcService() {
    return require('../serve/grpc-service') as typeof import('../serve/grpc-service');
  },
  get watchedFolder() {
    return require('../serve/watch-folder') as typeof import('../serve/watch-folder');
  },
  get handler() {
    return require('../serve/handler') as typeof import('../serve/handler');
  },
  get classExcitations() {
    return require('../vision/class-excitations') as typeof import('../vision/class-excitations');
  },
  get imageFolder() {
    return require('../data/image-folder') as typeof import('../data/image-folder');
  },
  get bundledImages() {
    return require('../vision/bundled-images') as typeof import('../vision/bundled-images');
  },
  get bulk() {
    return {
      get list() {
        return require('../bulk/list-images') as typeof import('../bulk/list-images');
      },
      get classifyMany() {
        return require('../bulk/classify-many') as typeof import('../bulk/classify-many');
      },
      get enqueue() {
        return require('../bulk/enqueue') as typeof import('../bulk/enqueue');
      },
      get queueWorker() {
        return require('../bulk/queue-worker') as typeof import('../bulk/queue-worker');
      },
      get classifyToFile() {
        return require('../bulk/classify-to-file') as typeof import('../bulk/classify-to-file');
      },
    };
  },
  get signatures() {
    return require('../models/signatures') as typeof import('../models/signatures');
  },
  get convert() {
    return require('../vision/convert') as typeof import('../vision/convert');
  },
  get quantize() {
    return require('../train/quantize-weights') as typeof import('../train/quantize-weights');
  },
  get onnx() {
    return require('../onnx/export-weights') as typeof import('../onnx/export-weights');
  },
  get models() {
    return require('../models/registry') as typeof import('../models/registry');
  },
  get sources() {
    return require('../models/model-source') as typeof import('../models/model-source');
  },
  get snapshots() {
    return require('../models/hub-snapshot') as typeof import('../models/hub-snapshot');
  },
  get openWeights() {
    return require('../models/open-weights') as typeof import('../models/open-weights');
  },
  get factories() {
    return require('../tensor/factories') as typeof import('../tensor/factories');
  },
  get evaluation() {
    return {
      ...(require('../train/evaluation-data') as typeof import('../train/evaluation-data')),
      ...(require('../train/classifier-evaluation') as typeof import('../train/classifier-evaluation')),
      ...(require('../train/classifier-report') as typeof import('../train/classifier-report')),
    };
  },
  get training() {
    return require('./training') as typeof import('./training');
  },
  get weights() {
    return require('../models/find-weights') as typeof import('../models/find-weights');
  },
  get runtime() {
    return require('../tensor/runtime') as typeof import('../tensor/runtime');
  },
  get native() {
    return require('../native') as typeof import('../native');
  },
  get atomicFile() {
    return require('../checkpoint/atomic-file') as typeof import('../checkpoint/atomic-file');
  },
  get checkpoint() {
    return require('../checkpoint/inspect') as typeof import('../checkpoint/inspect');
  },
};
