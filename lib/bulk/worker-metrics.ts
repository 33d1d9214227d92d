/** What a worker of a queue counts. */
import { Counter, expositionText, gauge } from '../instruments';

const OUTCOMES = ['completed', 'failed', 'stalled'] as const;

export class WorkerMetrics {
  /** Jobs that are being answered. */
  running = 0;
  readonly #images = new Counter('senet_worker_images_total', 'Images answered, bad ones too.');
  readonly #errors = new Counter('senet_worker_errors_total', 'Images with an error, by its code.');
  readonly #jobs = new Counter(
    'senet_worker_jobs_total',
    'Jobs by their end; stalled are those of workers that died.',
  );

  constructor() {
    this.#images.add({}, 0);
    for (const outcome of OUTCOMES) this.#jobs.add({ outcome }, 0);
  }

  /** @param code - of its error, or null */
  image(code: string | null): void {
    this.#images.add({});
    if (code !== null) this.#errors.add({ code });
  }

  ended(outcome: (typeof OUTCOMES)[number]): void {
    this.#jobs.add({ outcome });
  }

  /** @param counts - of the queue's jobs by state; empty if nobody knows */
  text(counts: Readonly<Record<string, number>>, ready: boolean): string {
    const states = Object.entries(counts).map(([state, count]) => [{ state }, count] as const);
    return expositionText([
      this.#images.family,
      this.#errors.family,
      this.#jobs.family,
      gauge('senet_worker_jobs_running', 'Jobs that are being answered.', [[{}, this.running]]),
      gauge('senet_queue_jobs', 'Jobs of the queue, by state, whoever has them.', states),
      gauge('senet_ready', 'Whether the worker takes jobs (1) or not (0).', [[{}, ready ? 1 : 0]]),
      gauge('process_resident_memory_bytes', 'Memory of the process.', [[{}, process.memoryUsage.rss()]]),
    ]);
  }
}
