/** `senet-torch worker` and `senet-torch enqueue`: many images on several machines, by a queue of BullMQ on Redis. */
import { mkdir } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';

import { InvalidArgumentError, type Command } from 'commander';

import type { QueueWorker } from '../bulk/queue-worker';
import { EXPOSITION_TYPE } from '../instruments';
import { fileError } from '../errors';
import { printableJson } from '../printable';
import { HOST } from '../serve/options';
import { whenAborted } from '../tensor/abort';
import type { ImageClassifier } from '../vision/image-classifier';
import { lazy } from './lazy';
import { listenError } from './listening';
import {
  addNetworkOptions,
  batchesOf,
  inFlightOf,
  loadClassifier,
  type NetworkOptions,
} from './load-classifier';
import { count, EXIT_INTERRUPTED, isAborted, printError, printJson, printLine, printNote } from './output';
import { atLeastOne } from './training-options';

interface QueueOptions {
  queue: string;
  name?: string;
  json?: boolean;
}

interface WorkerOptions extends NetworkOptions, QueueOptions {
  output: string;
  root: string;
  concurrency?: number;
  batchSize?: number;
  lockSeconds?: number;
  port?: number;
  host: string;
  untilEmpty?: boolean;
}

interface EnqueueOptions extends QueueOptions {
  recursive?: boolean;
  jobSize?: number;
  topK?: number;
  run?: string;
}

const QUEUE_HELP = 'the server: redis://HOST:PORT, rediss:// with TLS';

export function addWorker(program: Command, interrupted: () => AbortSignal): void {
  const command = program
    .command('worker')
    .description(
      'Take jobs of images from a queue (BullMQ on Redis) and write a file of rows for each. Any number on any machines; whoever dies, dies without a loss. SIGTERM and Ctrl-C end it when its jobs are done.',
    )
    .requiredOption('-q, --queue <address>', QUEUE_HELP)
    .option('-o, --output <folder>', 'where the rows go: a .jsonl file for each job', 'answers')
    .option('--root <folder>', 'the folder that images may lie in, and that relative paths are of', '.')
    .option('--name <name>', 'name of the queue (default: senet-torch)')
    .option('-j, --concurrency <n>', 'jobs at the same time (default: 2)', atLeastOne)
    .option('-b, --batch-size <n>', 'images that go through the network together (default: 16)', atLeastOne)
    .option('--lock-seconds <n>', 'after which jobs of a dead worker go to another (default: 30)', atLeastOne)
    .option('--port <port>', 'serve /metrics, /v2/health/live and /v2/health/ready there', portOf)
    .option('--host <address>', 'address that the port is of', hostOf, '127.0.0.1')
    .option('--until-empty', 'end when no job waits or runs on any worker')
    .option('--json', 'print a line of JSON for each job');
  addNetworkOptions(command)
    .addHelpText(
      'after',
      '\nExamples:\n  $ senet-torch enqueue --queue redis://queue:6379 --recursive photos\n  $ senet-torch worker --queue redis://queue:6379 --output answers --port 8080',
    )
    .action((options: WorkerOptions) => work(options, interrupted()));
}

export function addEnqueue(program: Command, interrupted: () => AbortSignal): void {
  program
    .command('enqueue')
    .description(
      'Put images into a queue, as jobs for `senet-torch worker`. To enqueue the same again adds what is missing and nothing twice.',
    )
    .argument('<files...>', 'images; folders (with --recursive), globs; - for a list on standard input')
    .requiredOption('-q, --queue <address>', QUEUE_HELP)
    .option('--name <name>', 'name of the queue (default: senet-torch)')
    .option('-r, --recursive', 'walk folders')
    .option('--job-size <n>', 'images of a job (default: 500)', atLeastOne)
    .option('-k, --top-k <n>', 'labels for each image (default: 5)', atLeastOne)
    .option(
      '--run <name>',
      'what the jobs are called by; another for the same images once more (default: images)',
    )
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      '\nExample:\n  $ senet-torch enqueue --queue redis://localhost:6379 --recursive photos',
    )
    .action((files: string[], options: EnqueueOptions) => enqueue(files, options, interrupted()));
}

async function work(options: WorkerOptions, signal: AbortSignal): Promise<void> {
  const { queue, output, root, untilEmpty, json, port, host } = options;
  await mkdir(output, { recursive: true }).catch((cause: unknown) => {
    throw fileError(output, cause);
  });
  let worker: QueueWorker | undefined;
  let classifier: ImageClassifier | undefined;
  // Before any job is taken: a port that another has is told at once, and probes are answered while the network is loaded.
  const server = port === undefined ? undefined : await serveMetrics(() => worker, port, host);
  try {
    classifier = await loadClassifier(options, signal, batchesOf(options.batchSize));
    const given = {
      name: options.name,
      concurrency: options.concurrency,
      lockSeconds: options.lockSeconds,
      inFlight: options.batchSize === undefined ? undefined : inFlightOf(options.batchSize),
    };
    const known = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
    worker = await lazy.bulk.queueWorker.startQueueWorker(classifier, queue, {
      ...{ output, root, ...known, signal },
      onJob: (job) => {
        if (json === true) process.stdout.write(`${printableJson(JSON.stringify(job))}\n`);
        else {
          const bad = Object.values(job.failed).reduce((sum, number) => sum + number, 0);
          printLine(
            `${job.part}: ${count(job.rows, 'row')}${bad === 0 ? '' : `, ${bad} with an error`}, ${job.seconds.toFixed(1)} s`,
          );
        }
      },
      onError: printError,
    });
    printNote(`Working; images of ${root}, rows to ${output}. Ctrl-C ends when the present jobs are done`);
    const ended = whenAborted(signal);
    await (untilEmpty === true ? Promise.race([worker.untilEmpty(), ended]) : ended);
    await worker.close();
  } catch (error) {
    if (!isAborted(error, signal)) throw error;
  } finally {
    await worker?.close();
    server?.close();
    server?.closeAllConnections();
    await classifier?.dispose();
  }
  // What was asked for was done: a scheduler that ends a worker has no failure to look into.
  if (untilEmpty === true && signal.aborted) process.exitCode = EXIT_INTERRUPTED;
}

/** @param working - undefined until the worker has started */
function serveMetrics(working: () => QueueWorker | undefined, port: number, host: string): Promise<Server> {
  const server = createServer((request, response) => {
    const answer = (status: number, type: string, body: string): void =>
      void response.writeHead(status, { 'Content-Type': type }).end(body);
    const worker = working();
    const ready = worker?.ready === true;
    switch (request.url?.split('?')[0]) {
      case '/metrics':
        if (worker === undefined) {
          answer(503, 'text/plain', '');
          return;
        }
        worker.metrics().then(
          (text) => answer(200, EXPOSITION_TYPE, text),
          () => answer(500, 'text/plain', ''),
        );
        return;
      case '/v2/health/live':
        answer(200, 'application/json', '{"live":true}');
        return;
      case '/v2/health/ready':
        answer(ready ? 200 : 503, 'application/json', JSON.stringify({ ready }));
        return;
      default:
        answer(404, 'text/plain', 'not found');
    }
  });
  return new Promise((resolve, reject) => {
    server.once('error', (cause: Error) => reject(listenError(cause, host, port)));
    server.listen(port, host, () => resolve(server));
  });
}

async function enqueue(
  files: readonly string[],
  options: EnqueueOptions,
  signal: AbortSignal,
): Promise<void> {
  const { queue, recursive = false, json, name, jobSize, topK, run } = options;
  const list = lazy.bulk.list.listImages(files, { recursive, signal });
  const given = Object.entries({ name, jobSize, topK, run }).filter(([, value]) => value !== undefined);
  const done = await lazy.bulk.enqueue.enqueueImages(queue, list, { ...Object.fromEntries(given), signal });
  if (json === true) printJson(done);
  else printLine(`${count(done.images, 'image')} in ${count(done.jobs, 'job')}`);
}

function hostOf(text: string): string {
  return HOST(text, '--host');
}

function portOf(text: string): number {
  const port = Number(text);
  if (/^\d+$/.test(text) && port <= 65_535) return port;
  throw new InvalidArgumentError('Expected a port, 0 to 65535.');
}
