/**
 * `senet-torch serve`: networks as a service, on Fastify. This file has the options and the process's life; what is served
 * is of `serve-models`, the application of `serve-application`, several processes of `serve-workers`.
 */
import type { Command } from 'commander';

import { makeError } from '../errors';
import { addNetworkOptions } from './load-classifier';
import { isAborted, printLine, printNote } from './output';
import { startServer } from './serve-application';
import { leaveWorkers } from './serve-bus';
import { readServeConfig, type ServeConfig } from './serve-config';
import type { ServeOptions } from './serve-options';
import { isPrimary, runPrimary } from './serve-workers';
import { atLeastOne } from './training-options';

const LOG_LEVELS = ['silent', 'fatal', 'error', 'warn', 'info', 'debug', 'trace'];

export function addServe(program: Command, interrupted: () => AbortSignal): void {
  const command = program
    .command('serve')
    .description(
      'Serve networks over HTTP: POST /classify, the Open Inference Protocol (/v2), /metrics, and pages at / and /docs. Without a network: the bundled one, as se_resnet20. Needs Fastify: npm install fastify.',
    );
  command.optionsGroup('The network:');
  addNetworkOptions(command)
    .option('--name <name>', "what requests call it (default: the model's name)")
    .option(
      '--dtype <dtype>',
      "of the network: 'float32', 'bfloat16', 'float16', or 'int8' of weights that `quantize` wrote",
    )
    .option(
      '--shrink-on-load',
      'shrink large JPEGs while they are decoded: faster, and near to Pillow alone',
    );
  command
    .optionsGroup('Several networks:')
    .option('--config <file>', 'JSON: { "models": { NAME or NAME@VERSION: { "model": ..., ... } }, ... }')
    .option(
      '--watch <folder>',
      'serve every file of weights in a folder under its name (NAME or NAME@VERSION), also those that come and change later',
    );
  command
    .optionsGroup('The server:')
    .option('-p, --port <n>', 'default: 8080; 0 is any that is free', port)
    .option('--host <address>', "default: '127.0.0.1'; '0.0.0.0' is every address of the machine")
    .option(
      '--grpc-port <n>',
      'also serve the Open Inference Protocol over gRPC there. Needs @grpc/grpc-js, @grpc/proto-loader, @grpc/reflection and grpc-health-check',
      port,
    )
    .option('--workers <n>', 'processes behind the port, each with its share of the processors', atLeastOne)
    .option(
      '--threads <n>',
      'threads of one network (default: the processors, shared by the workers)',
      atLeastOne,
    )
    .option('--tls-cert <file>', 'certificates (PEM), for HTTPS')
    .option('--tls-key <file>', 'their key (PEM)')
    .option('--log <level>', `of requests, as JSON lines: ${LOG_LEVELS.join(', ')} (default: warn)`);
  command
    .optionsGroup('Who may ask:')
    .option(
      '--api-key <key>',
      'wanted as `Authorization: Bearer KEY` or `x-api-key: KEY`; may be given several times, or as SENET_API_KEY',
      collect,
    )
    .option(
      '--cors <origin>',
      "whose pages may ask ('*': anyone's); may be given several times. Needs @fastify/cors",
      collect,
    )
    .option('--rate-limit <n>', 'requests a minute of one address. Needs @fastify/rate-limit', atLeastOne)
    .option(
      '--allow-urls [hosts]',
      'let requests name images by their address: of public hosts, or of these (a,b,c)',
    );
  command
    .optionsGroup('Limits:')
    .option('--max-batch <n>', 'images that go through a network together (default: 16)', atLeastOne)
    .option('--delay <ms>', 'milliseconds that an image waits for company (default: 0)', natural)
    .option(
      '--max-queue <n>',
      'images of one network that are not yet answered (default: 128); beyond it 503',
      atLeastOne,
    )
    .option('--max-body <bytes>', 'of a request (default: 20971520); beyond it 413', atLeastOne)
    .option(
      '--max-pixels <n>',
      'of an image, before it is decoded (default: 89478485); beyond it 413',
      atLeastOne,
    )
    .option('--max-images <n>', 'of a request (default: 64)', atLeastOne)
    .option(
      '--timeout <ms>',
      'for a request (default: 30000); beyond it 504, or 408 if its body has not come',
      atLeastOne,
    )
    .option(
      '--drain-delay <ms>',
      'from SIGTERM, when it is no longer ready, until no connection is taken (default: 0)',
      natural,
    )
    .addHelpText(
      'after',
      '\nExamples:\n  $ senet-torch serve\n  $ senet-torch serve --model se_resnet50 --pretrained --dtype bfloat16 --port 8080\n  $ senet-torch serve --config serve.json --workers 2 --api-key "$KEY" --log info\n  $ curl -F image=@photo.jpg http://127.0.0.1:8080/classify',
    )
    .action((options: ServeOptions) => serve(options, interrupted()));
}

function collect(value: string, before: readonly string[] = []): string[] {
  return [...before, value];
}

function natural(text: string): number {
  return text === '0' ? 0 : atLeastOne(text);
}

function port(text: string): number {
  const value = natural(text);
  if (value <= 65_535) return value;
  throw makeError('ERR_SENET_ARG_RANGE', `expected a port of at most 65535, got ${value}`);
}

async function serve(options: ServeOptions, signal: AbortSignal): Promise<void> {
  const config = await readServeConfig(options);
  if (!LOG_LEVELS.includes(config.log))
    throw makeError(
      'ERR_SENET_ARG_RANGE',
      `--log: expected one of ${LOG_LEVELS.join(', ')}, got '${config.log}'`,
    );
  if (config.workers > 1 && isPrimary()) {
    const servers = config.grpcPort === undefined ? 1 : 2;
    await runPrimary(config.workers, servers, signal, (ports) => announce(config, ports));
    return;
  }
  try {
    const server = await startServer(config, signal);
    if (config.workers === 1) announce(config, server.ports);
    await server.closed;
  } catch (error) {
    // Told to end while it started, it has ended as it was to.
    if (!isAborted(error, signal)) throw error;
  } finally {
    leaveWorkers();
  }
}

/** @param ports - of HTTP and, where it is served, of gRPC */
function announce({ workers, host, tlsCert }: ServeConfig, [port, grpcPort]: readonly number[]): void {
  if (grpcPort !== undefined) printNote(`gRPC on port ${grpcPort}`);
  const address = `${tlsCert === undefined ? 'http' : 'https'}://${host.includes(':') ? `[${host}]` : host}:${port}`;
  printLine(`listening on ${address}${workers > 1 ? ` (${workers} workers)` : ''}`);
}
