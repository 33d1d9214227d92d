/**
 * Counters, gauges and histograms, and the text in which Prometheus reads them (its exposition format 0.0.4). Knows no
 * server. Written here, since the client for it wants a newer Node than this library, and the format has not changed for
 * years.
 */

/** Prometheus' own type of its text. */
export const EXPOSITION_TYPE = 'text/plain; version=0.0.4; charset=utf-8';

export type Labels = Readonly<Record<string, string>>;

/** One series' value now: its name may have an ending that the family's has not ('_bucket', '_sum', '_count'). */
export interface Sample {
  readonly name: string;
  readonly labels: Labels;
  readonly value: number;
}

/** What Prometheus calls a metric: of one name, with a sample for each set of labels. */
export interface MetricFamily {
  readonly name: string;
  readonly help: string;
  readonly type: 'counter' | 'gauge' | 'histogram';
  readonly samples: readonly Sample[];
}

/** Each name has a fixed set of labels, whose values come from a bounded set. */
const MOST_SERIES = 1000;

/** One value for each set of labels. */
class Series<T> {
  readonly #values = new Map<string, { readonly labels: Labels; readonly value: T }>();

  constructor(private readonly make: () => T) {}

  of(labels: Labels): T {
    const key = JSON.stringify(labels);
    const known = this.#values.get(key);
    if (known !== undefined) return known.value;
    const value = this.make();
    // Beyond any real number of series: counted nowhere, held nowhere.
    if (this.#values.size < MOST_SERIES) this.#values.set(key, { labels, value });
    return value;
  }

  [Symbol.iterator](): Iterator<{ readonly labels: Labels; readonly value: T }> {
    return this.#values.values();
  }
}

export class Counter {
  readonly #series = new Series(() => ({ value: 0 }));

  constructor(
    private readonly name: string,
    private readonly help: string,
  ) {}

  add(labels: Labels, by = 1): void {
    this.#series.of(labels).value += by;
  }

  get family(): MetricFamily {
    const samples = [...this.#series].map(({ labels, value: { value } }) => ({
      ...{ name: this.name, labels, value },
    }));
    return { name: this.name, help: this.help, type: 'counter', samples };
  }
}

export class Histogram {
  readonly #series: Series<{ readonly counts: number[]; sum: number }>;

  /** @param bounds - of the buckets, upwards; one for everything above comes by itself */
  constructor(
    private readonly name: string,
    private readonly help: string,
    private readonly bounds: readonly number[],
  ) {
    this.#series = new Series(() => ({ counts: new Array<number>(bounds.length + 1).fill(0), sum: 0 }));
  }

  observe(labels: Labels, value: number): void {
    const series = this.#series.of(labels);
    let bucket = 0;
    while (bucket < this.bounds.length && value > (this.bounds[bucket] as number)) bucket++;
    series.counts[bucket] = (series.counts[bucket] as number) + 1;
    series.sum += value;
  }

  get family(): MetricFamily {
    const samples = [...this.#series].flatMap(({ labels, value: { counts, sum } }) => {
      let below = 0;
      const buckets = counts.map((count, bucket): Sample => {
        below += count;
        const le = bucket < this.bounds.length ? String(this.bounds[bucket]) : '+Inf';
        return { name: `${this.name}_bucket`, labels: { ...labels, le }, value: below };
      });
      return [
        ...buckets,
        { name: `${this.name}_sum`, labels, value: sum },
        { name: `${this.name}_count`, labels, value: below },
      ];
    });
    return { name: this.name, help: this.help, type: 'histogram', samples };
  }
}

/** A family of values that are asked for when they are read. */
export function gauge(
  name: string,
  help: string,
  values: readonly (readonly [labels: Labels, value: number])[],
): MetricFamily {
  return {
    ...{ name, help, type: 'gauge' },
    samples: values.map(([labels, value]) => ({ name, labels, value })),
  };
}

/** The families of several processes as one text, each sample with what tells them apart. */
export function mergeFamilies(
  processes: readonly { readonly labels: Labels; readonly families: readonly MetricFamily[] }[],
): MetricFamily[] {
  const merged = new Map<string, MetricFamily>();
  for (const { labels: own, families } of processes) {
    for (const family of families) {
      const samples = family.samples.map((sample) => ({ ...sample, labels: { ...sample.labels, ...own } }));
      const before = merged.get(family.name);
      merged.set(family.name, { ...family, samples: [...(before?.samples ?? []), ...samples] });
    }
  }
  return [...merged.values()];
}

export function expositionText(families: readonly MetricFamily[]): string {
  const lines: string[] = [];
  for (const { name, help, type, samples } of families) {
    lines.push(
      `# HELP ${name} ${help.replace(/\\/g, '\\\\').replace(/\n/g, '\\n')}`,
      `# TYPE ${name} ${type}`,
    );
    for (const sample of samples)
      lines.push(`${sample.name}${labelsText(sample.labels)} ${numberText(sample.value)}`);
  }
  return `${lines.join('\n')}\n`;
}

function labelsText(labels: Labels): string {
  const pairs = Object.entries(labels).map(
    ([name, value]) => `${name}="${value.replace(/\\/g, '\\\\').replace(/\n/g, '\\n').replace(/"/g, '\\"')}"`,
  );
  return pairs.length === 0 ? '' : `{${pairs.join(',')}}`;
}

function numberText(value: number): string {
  if (Number.isNaN(value)) return 'NaN';
  if (value === Infinity) return '+Inf';
  return value === -Infinity ? '-Inf' : String(value);
}
