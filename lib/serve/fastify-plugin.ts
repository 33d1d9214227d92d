/**
 * The service as a plugin of Fastify 5: each path is a route of the application, so that its hooks, logs and plugins see
 * them. Takes what makes a handler from whoever makes the plugin, and imports nothing that keeps a state at run time: the
 * package has the library joined into one file, and as it was compiled for the command line.
 */
import type { FastifyPluginAsync, FastifyReply, FastifyRequest } from 'fastify';

import type { ImageClassifier } from '../vision/image-classifier';
import { httpStatusOf } from '../errors';
import type { InferenceRequest } from './exchange';
import { mustLinger, send } from './faces';
import type { createInferenceHandler, InferenceHandler } from './handler';
import type { InferenceHandlerOptions } from './options';

export interface InferencePluginOptions extends InferenceHandlerOptions {
  /** By NAME or NAME@VERSION; the plugin disposes them when the application closes. Either these or `handler`. */
  models?: Readonly<Record<string, ImageClassifier>>;
  /** A handler that there is; who made it closes it. */
  handler?: InferenceHandler;
  /** In front of every path: '/vision'. */
  prefix?: string;
}

declare module 'fastify' {
  interface FastifyInstance {
    /** The service of the plugin `senet-torch/fastify`. */
    inference: InferenceHandler;
  }
}

export type InferencePlugin = FastifyPluginAsync<InferencePluginOptions>;

export function makeFastifyPlugin(create: typeof createInferenceHandler): InferencePlugin {
  const plugin: InferencePlugin = async (app, { models, handler: given, prefix, ...options }) => {
    // Fastify adds what it finds in its own options.
    const { logLevel: _level, logSerializers: _serializers, ...own } = options as Record<string, unknown>;
    const handler = given ?? create(models ?? {}, own);
    app.decorate('inference', handler);
    app.addHook('preClose', (done) => {
      handler.drain();
      done();
    });
    if (given === undefined) app.addHook('onClose', () => handler.close());
    await app.register(
      async (scope) => {
        // Bodies are read by the handler, with its limits; the application's own parsers are left alone.
        scope.removeAllContentTypeParsers();
        scope.addContentTypeParser('*', (_request, payload, done) => done(null, payload));
        for (const { method, path } of handler.routes)
          scope.route({
            method,
            url: path,
            handler: (request, reply) => answer(handler, request, reply, prefix),
          });
        await Promise.resolve();
      },
      prefix === undefined ? {} : { prefix },
    );
  };
  // As fastify-plugin marks them: what it decorates is the application's.
  return Object.assign(plugin, {
    [Symbol.for('skip-override')]: true,
    [Symbol.for('fastify.display-name')]: 'senet-torch',
    [Symbol.for('plugin-meta')]: { name: 'senet-torch', fastify: '5.x' },
  });
}

async function answer(
  handler: InferenceHandler,
  request: FastifyRequest,
  reply: FastifyReply,
  prefix = '',
): Promise<FastifyReply> {
  const caller = new AbortController();
  reply.raw.on('close', () => reply.raw.writableFinished || caller.abort());
  const stream = request.body as { iterator?: (options: object) => AsyncIterable<Uint8Array> } | undefined;
  const given: InferenceRequest = {
    ...{ method: request.method, headers: request.headers, signal: caller.signal },
    url: request.url.slice(prefix.replace(/\/$/, '').length) || '/',
    // Whoever stops reading leaves the stream as it is: an answer is still to be sent.
    ...(typeof stream?.iterator === 'function' ? { body: stream.iterator({ destroyOnReturn: false }) } : {}),
  };
  const answered = await handler.handle(given);
  const { status, headers, body, code, error } = answered;
  if (code !== undefined || error !== undefined) {
    const isFault = httpStatusOf(error) === 500;
    const level = status >= 500 || isFault ? 'error' : 'info';
    request.log[level]({ code, ...(isFault ? { err: error } : {}) }, 'the request failed');
  }
  // Of HEAD Fastify would say the length of what it sends.
  if (request.method === 'HEAD' || mustLinger(answered, request.raw)) {
    const own = reply.getHeaders() as Record<string, string>;
    reply.hijack();
    send({ ...answered, headers: { ...own, ...headers } }, request.raw, reply.raw);
    return reply;
  }
  return reply
    .code(status)
    .headers(headers)
    .send(Buffer.from(body.buffer, body.byteOffset, body.byteLength));
}
