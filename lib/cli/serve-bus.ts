/**
 * What the processes behind one port tell each other, through the first one (`serve-workers` passes it on): what each has
 * counted, and which models a request has loaded or unloaded, which must be so in all of them.
 */
import cluster from 'node:cluster';
import { clearTimeout, setTimeout } from 'node:timers';

import type { FastifyInstance } from 'fastify';

import { bytesResponse } from '../serve/exchange';
import type { InferenceHandler } from '../serve/handler';
import { EXPOSITION_TYPE, expositionText, mergeFamilies, type MetricFamily } from '../serve/instruments';

type Message =
  | { readonly kind: 'metrics'; readonly from: number; readonly question: number }
  | {
      readonly kind: 'counted';
      readonly from: number;
      readonly to: number;
      readonly question: number;
      readonly families: readonly MetricFamily[];
    }
  | { readonly kind: 'load' | 'unload'; readonly model: string; readonly version: string | null };

/** Who has not answered by then is left out: a worker that is starting, or ending. */
const PATIENCE = 1_000;
const CHANGE = /^\/v2\/repository\/models\/([^/?]+)\/(load|unload)/;

/** Nothing is to be heard any more: the process may end. */
export function leaveWorkers(): void {
  if (process.connected) process.disconnect();
}

/** Joins this process to the others: `/metrics` is then answered here, for all of them. */
export function joinWorkers(app: FastifyInstance, handler: InferenceHandler, workers: number): void {
  const me = cluster.worker?.id ?? 0;
  const waiting = new Map<number, (from: number, families: readonly MetricFamily[]) => void>();
  let questions = 0;
  const tell = (message: Message): void => {
    if (process.connected) process.send?.(message);
  };

  process.on('message', (message: Message) => {
    if (message.kind === 'metrics') {
      const { from: to, question } = message;
      tell({ kind: 'counted', from: me, to, question, families: handler.metrics() });
    } else if (message.kind === 'counted') {
      if (message.to === me) waiting.get(message.question)?.(message.from, message.families);
    } else if (message.kind === 'load' || message.kind === 'unload') {
      const { kind, model, version } = message;
      handler[kind](model, version ?? undefined).catch((error: unknown) =>
        app.log.error({ err: error }, `${kind} of ${model}, as another worker did`),
      );
    }
  });

  app.addHook('onResponse', (request, reply, done) => {
    const [, name, verb] = CHANGE.exec(request.url) ?? [];
    if (name !== undefined && reply.statusCode === 200) {
      const { version } = request.query as { version?: string };
      tell({ kind: verb as 'load', model: decodeURIComponent(name), version: version ?? null });
    }
    done();
  });

  const ask = (): Promise<MetricFamily[]> =>
    new Promise((resolve) => {
      const question = ++questions;
      const answers = new Map<number, readonly MetricFamily[]>([[me, handler.metrics()]]);
      const end = (): void => {
        clearTimeout(timer);
        waiting.delete(question);
        const processes = [...answers].sort(([left], [right]) => left - right);
        resolve(
          mergeFamilies(processes.map(([id, families]) => ({ labels: { worker: String(id) }, families }))),
        );
      };
      const timer = setTimeout(end, PATIENCE);
      waiting.set(question, (from, families) => {
        answers.set(from, families);
        if (answers.size === workers) end();
      });
      tell({ kind: 'metrics', from: me, question });
    });
  app.get('/metrics', async (_request, reply) => {
    const { headers, body } = bytesResponse(Buffer.from(expositionText(await ask())), EXPOSITION_TYPE);
    return reply.headers(headers).send(Buffer.from(body));
  });
}
