/** What every route of a server works with: one call, and the server that it came to. */
import { makeError } from '../errors';
import { printable } from '../printable';
import type { ItemTimes } from '../vision/pipeline';
import type { BodyMemory, BodyReader } from './body';
import type { InferenceRequest, InferenceResponse } from './exchange';
import type { Metrics } from './metrics';
import type { ModelTable, ServedModel } from './model-table';
import type { HandlerSettings } from './options';
import type { RoutePattern } from './router';
import type { RequestSpan } from './tracing';

export interface ServerState {
  readonly settings: HandlerSettings;
  readonly models: ModelTable;
  readonly metrics: Metrics;
  readonly bodies: BodyMemory;
  /** Whether it wants requests. */
  readonly ready: boolean;
  /** Whether it can answer at all: not after a CUDA device was lost. */
  readonly live: boolean;
}

export interface Call {
  readonly server: ServerState;
  readonly request: InferenceRequest;
  /** Of the path, decoded. */
  readonly parameters: Readonly<Record<string, string>>;
  readonly query: URLSearchParams;
  readonly body: BodyReader;
  /** Aborts when the caller leaves or the time is over. */
  readonly signal: AbortSignal;
  readonly span: RequestSpan | undefined;
}

export interface Route extends RoutePattern {
  run(call: Call): InferenceResponse | Promise<InferenceResponse>;
}

/**
 * Refuses what would be refused later, before the body is read: of a model that is not there, or whose queue is full.
 *
 * @param name - undefined where the body may still say it
 * @throws ERR_SENET_QUEUE_FULL, and as `ModelTable.find`
 */
export function admit({ models }: ServerState, name: string | undefined, version?: string): void {
  if (name === undefined && models.names.length !== 1) return;
  const { classifier, ...model } = models.find(name, version);
  const { waiting, running, limit } = classifier.queue;
  if (waiting + running < limit) return;
  throw makeError(
    'ERR_SENET_QUEUE_FULL',
    `the model ${printable(model.name)} has ${waiting + running} images in work, as many as it takes; try again later`,
  );
}

/** Counts images that went through the network just now. */
export function observe(
  call: Pick<Call, 'server' | 'span'>,
  model: ServedModel,
  times: readonly ItemTimes[],
): void {
  for (const one of times) {
    call.server.metrics.image(model, one);
    call.span?.image(model, one);
  }
}
