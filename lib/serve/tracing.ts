/**
 * Spans of OpenTelemetry, through its API alone: where the process has set up an SDK they are recorded, else they cost
 * nothing to speak of, and where the API is not installed there are none.
 */
import { performance } from 'node:perf_hooks';

import type * as api from '@opentelemetry/api';

import { isError } from '../brands';
import type { ItemTimes } from '../vision/pipeline';
import type { ServedModel } from './model-table';

type Api = typeof api;

/** The span of one request. */
export interface RequestSpan {
  /** Its image went through the network just now, with these times. */
  image(model: ServedModel, times: ItemTimes): void;
  end(route: string, status: number, error: unknown): void;
}

export interface Tracer {
  begin(method: string, headers: Readonly<Record<string, unknown>>): RequestSpan;
}

/** In the order in which an image goes through them. */
const STEPS = ['queue', 'decode', 'preprocess', 'wait', 'network'] as const;

/** Undefined where the API is not installed. */
export function findTracer(): Tracer | undefined {
  let found: Api;
  try {
    // eslint-disable-next-line @typescript-eslint/no-require-imports -- there or not
    found = require('@opentelemetry/api') as Api;
  } catch {
    return undefined;
  }
  return makeTracer(found);
}

function makeTracer({ trace, context, propagation, SpanKind, SpanStatusCode }: Api): Tracer {
  const tracer = trace.getTracer('senet-torch');
  return {
    begin(method, headers) {
      const parent = propagation.extract(context.active(), headers);
      const span = tracer.startSpan(`${method} request`, { kind: SpanKind.SERVER }, parent);
      const here = trace.setSpan(parent, span);
      return {
        image({ name, version }, times) {
          if (!span.isRecording()) return;
          const attributes = { 'senet.model': name, 'senet.version': version, 'senet.batch': times.batch };
          let end = performance.timeOrigin + performance.now();
          for (const step of [...STEPS].reverse()) {
            const startTime = end - times[step];
            if (times[step] > 0) tracer.startSpan(`senet.${step}`, { startTime, attributes }, here).end(end);
            end = startTime;
          }
        },
        end(route, status, error) {
          span.updateName(`${method} ${route}`);
          span.setAttributes({ 'http.route': route, 'http.response.status_code': status });
          if (status >= 500) {
            span.setStatus({ code: SpanStatusCode.ERROR });
            if (isError(error)) span.recordException(error);
          }
          span.end();
        },
      };
    },
  };
}
