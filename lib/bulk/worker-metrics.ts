/** What a worker of a queue counts, as Prometheus' text (exposition format 0.0.4). */

type Labels = Readonly<Record<string, string>>;

export class WorkerMetrics {
  /** Jobs that are being answered. */
  running = 0;
  #images = 0;
  readonly #errors = new Map<string, number>();
  readonly #jobs = new Map<string, number>([
    ['completed', 0],
    ['failed', 0],
    ['stalled', 0],
  ]);

  /** @param code - of its error, or null */
  image(code: string | null): void {
    this.#images++;
    if (code !== null) this.#errors.set(code, (this.#errors.get(code) ?? 0) + 1);
  }

  ended(outcome: 'completed' | 'failed' | 'stalled'): void {
    this.#jobs.set(outcome, (this.#jobs.get(outcome) ?? 0) + 1);
  }

  /** @param counts - of the queue's jobs by state; empty if nobody knows */
  text(counts: Readonly<Record<string, number>>, ready: boolean): string {
    const by = (name: string, values: Iterable<readonly [string, number]>): [Labels, number][] =>
      Array.from(values, ([value, count]) => [{ [name]: value }, count]);
    return [
      family('senet_worker_images_total', 'counter', 'Images answered, bad ones too.', [[{}, this.#images]]),
      family(
        'senet_worker_errors_total',
        'counter',
        'Images with an error, by its code.',
        by('code', this.#errors),
      ),
      family(
        'senet_worker_jobs_total',
        'counter',
        'Jobs by their end; stalled are those of workers that died.',
        by('outcome', this.#jobs),
      ),
      family('senet_worker_jobs_running', 'gauge', 'Jobs that are being answered.', [[{}, this.running]]),
      family(
        'senet_queue_jobs',
        'gauge',
        'Jobs of the queue, by state, whoever has them.',
        by('state', Object.entries(counts)),
      ),
      family('senet_ready', 'gauge', 'Whether the worker takes jobs (1) or not (0).', [[{}, ready ? 1 : 0]]),
      family('process_resident_memory_bytes', 'gauge', 'Memory of the process.', [
        [{}, process.memoryUsage.rss()],
      ]),
    ].join('');
  }
}

function family(
  name: string,
  type: 'counter' | 'gauge',
  help: string,
  values: readonly (readonly [Labels, number])[],
): string {
  const lines = values.map(([labels, value]) => {
    const text = Object.entries(labels).map(([label, of]) => `${label}=${JSON.stringify(of)}`);
    return `${name}${text.length === 0 ? '' : `{${text.join(',')}}`} ${value}\n`;
  });
  return `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${lines.join('')}`;
}
