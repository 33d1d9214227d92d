/**
 * Whether a network knows how sure it is (Guo, Pleiss, Sun, Weinberger, ICML 2017, https://arxiv.org/abs/1706.04599):
 * images by the score of what the network said, and how many of them were right. Knows no tensor.
 */

/** Images whose best score lies within equal steps. */
export interface CalibrationBin {
  /** Scores above `from`, up to `to`. */
  readonly from: number;
  readonly to: number;
  readonly count: number;
  /** Means over the images of the bin; 0 of none. */
  readonly meanScore: number;
  readonly accuracy: number;
}

export interface Calibration {
  /** Expected calibration error: the mean over the images of |accuracy - mean score| of their bins. */
  readonly ece: number;
  /** The largest of any bin that has images. */
  readonly mce: number;
  readonly meanScore: number;
  readonly bins: readonly CalibrationBin[];
}

/** As in the paper. */
const BINS = 15;

export class CalibrationCounter {
  readonly #bins = Array.from({ length: BINS }, () => ({ count: 0, score: 0, right: 0 }));

  /** @param score - softmax probability of what the network said */
  add(score: number, right: boolean): void {
    const bin = this.#bins[Math.min(BINS - 1, Math.max(0, Math.ceil(score * BINS) - 1))];
    if (bin === undefined) return; // NaN
    bin.count++;
    bin.score += score;
    if (right) bin.right++;
  }

  result(): Calibration {
    const bins = this.#bins.map(({ count, score, right }, place) => ({
      ...{ from: place / BINS, to: (place + 1) / BINS, count },
      meanScore: count === 0 ? 0 : score / count,
      accuracy: count === 0 ? 0 : right / count,
    }));
    const total = bins.reduce((sum, { count }) => sum + count, 0) || 1;
    const gap = ({ accuracy, meanScore }: CalibrationBin): number => Math.abs(accuracy - meanScore);
    return {
      ece: bins.reduce((sum, bin) => sum + (bin.count / total) * gap(bin), 0),
      mce: bins.reduce((most, bin) => Math.max(most, gap(bin)), 0),
      meanScore: bins.reduce((sum, { count, meanScore }) => sum + (count / total) * meanScore, 0),
      bins,
    };
  }
}
