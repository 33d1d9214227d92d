/** How fast a training run goes: the rate that progress shows, and how long it will take. Seconds of wall time. */

/** Of the last step, in the mean of the steps. */
const NEWEST = 0.1;
/** Of a step, for a batch of a validation that was not timed yet: a forward is a third of a step. */
const FORWARD_SHARE = 1 / 3;

export class RunPace {
  #step: number | null = null;
  #validationBatch: number | null = null;

  stepTook(seconds: number): void {
    this.#step = this.#step === null ? seconds : (1 - NEWEST) * this.#step + NEWEST * seconds;
  }

  validationTook(seconds: number, batches: number): void {
    this.#validationBatch = seconds / batches;
  }

  /** 0 before a step was timed and read. */
  imagesPerSecond(images: number, steps: number): number {
    return this.#step === null || steps === 0 ? 0 : images / steps / this.#step;
  }

  /** Null before a step was timed. */
  secondsLeft(steps: number, validationBatches: number): number | null {
    if (this.#step === null) return null;
    const each = this.#validationBatch ?? this.#step * FORWARD_SHARE;
    return steps * this.#step + validationBatches * each;
  }
}
