/**
 * Mean and deviation of the gates of SE layers, by class: the figure of the article ("Role of excitation"), and how
 * selective each channel is. Collects plain numbers; knows no model and no image.
 */

/** Of one class in one layer. */
export interface GateStatistics {
  /** For each channel. */
  readonly mean: Float32Array;
  /** Standard deviation over the images (of n - 1), 0 for a single one. */
  readonly deviation: Float32Array;
}

export interface LayerStatistics {
  /** "layer4.2.se". */
  readonly path: string;
  /** As in the article, "SE_5_3": stage 2 to 5, and the block from 1; null where the path does not say. */
  readonly name: string | null;
  readonly channels: number;
  /** Over all images. */
  readonly all: GateStatistics;
  /** In the order of the classes. */
  readonly classes: readonly GateStatistics[];
  /**
   * Of each channel, from 0 (the same for all classes) to 1: how far the class that opens it most is above the others,
   * (m - r) / (m + r) with m the largest class mean and r the mean of the rest (Morcos et al., ICLR 2018).
   */
  readonly selectivity: Float32Array;
}

export interface ClassExcitations {
  readonly classes: readonly { readonly label: string; readonly images: number }[];
  /** In the network's order. */
  readonly layers: readonly LayerStatistics[];
}

/** Welford's sums, channel by channel. */
class Moments {
  count = 0;
  readonly mean: Float64Array;
  readonly #squares: Float64Array;

  constructor(channels: number) {
    this.mean = new Float64Array(channels);
    this.#squares = new Float64Array(channels);
  }

  add(gates: Float32Array): void {
    this.count++;
    for (const [channel, gate] of gates.entries()) {
      const before = gate - (this.mean[channel] as number);
      const mean = (this.mean[channel] as number) + before / this.count;
      this.mean[channel] = mean;
      this.#squares[channel] = (this.#squares[channel] as number) + before * (gate - mean);
    }
  }

  get statistics(): GateStatistics {
    const degrees = Math.max(1, this.count - 1);
    return {
      mean: Float32Array.from(this.mean),
      deviation: Float32Array.from(this.#squares, (squares) => Math.sqrt(squares / degrees)),
    };
  }
}

export class ClassStatistics {
  readonly #labels: readonly string[];
  readonly #counts: number[];
  /** Path -> of all images, then of each class. */
  readonly #layers = new Map<string, Moments[]>();

  constructor(labels: readonly string[]) {
    this.#labels = labels;
    this.#counts = labels.map(() => 0);
  }

  /** The gates of one image, by the path of the layer. */
  add(label: number, layers: Iterable<{ readonly path: string; readonly gates: Float32Array }>): void {
    this.#counts[label] = (this.#counts[label] as number) + 1;
    for (const { path, gates } of layers) {
      let moments = this.#layers.get(path);
      if (moments === undefined) {
        moments = Array.from({ length: this.#labels.length + 1 }, () => new Moments(gates.length));
        this.#layers.set(path, moments);
      }
      moments[0]?.add(gates);
      moments[label + 1]?.add(gates);
    }
  }

  get result(): ClassExcitations {
    return {
      classes: this.#labels.map((label, index) => ({ label, images: this.#counts[index] as number })),
      layers: Array.from(this.#layers, ([path, [all, ...classes]]) => {
        const each = classes.map((moments) => moments.statistics);
        const seen = each.filter((_, index) => (classes[index] as Moments).count > 0);
        return {
          path,
          name: nameInArticle(path),
          channels: (all as Moments).mean.length,
          all: (all as Moments).statistics,
          classes: each,
          selectivity: selectivityOf(seen),
        };
      }),
    };
  }
}

/** "layer4.2.se" is SE_5_3; pytorchcv counts its stages and units from 1. */
export function nameInArticle(path: string): string | null {
  const [, layer, block] = /(?:^|\.)layer(\d)\.(\d+)\./.exec(path) ?? [];
  if (layer !== undefined) return `SE_${Number(layer) + 1}_${Number(block) + 1}`;
  const [, stage, unit] = /(?:^|\.)stage(\d)\.unit(\d+)\./.exec(path) ?? [];
  return stage === undefined ? null : `SE_${Number(stage) + 1}_${unit}`;
}

function selectivityOf(classes: readonly GateStatistics[]): Float32Array {
  const [first] = classes;
  return Float32Array.from(first?.mean ?? [], (_, channel) => {
    const means = classes.map(({ mean }) => mean[channel] as number);
    const most = Math.max(...means);
    if (means.length < 2) return 0;
    const rest = (means.reduce((sum, mean) => sum + mean, 0) - most) / (means.length - 1);
    return most + rest === 0 ? 0 : (most - rest) / (most + rest);
  });
}
