/**
 * `senet-torch/fastify`: the service as a plugin of Fastify 5, which has to be installed.
 *
 * @example
 * const app = require('fastify')({ logger: true });
 * app.register(require('senet-torch/fastify'), { models: { se_resnet20: classifier }, prefix: '/vision' });
 */
import { createInferenceHandler } from './index';
import { makeFastifyPlugin, type InferencePlugin, type InferencePluginOptions } from './serve/fastify-plugin';

const plugin = makeFastifyPlugin(createInferenceHandler);
const inference = Object.assign(plugin, { default: plugin, inference: plugin });

// eslint-disable-next-line @typescript-eslint/no-namespace -- types beside what `export =` exports
namespace inference {
  export type Plugin = InferencePlugin;
  export type Options = InferencePluginOptions;
}

export = inference;
