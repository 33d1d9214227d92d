/**
 * What a training step came to, loss and right answers, read without waiting for a device at each step: there the numbers
 * of a step are read while the next one is under way. On the CPU they are there at once.
 */
import { Tensor } from '../tensor/tensor';
import { NO_TOTALS, type Totals } from './training-checkpoint';

interface Step {
  readonly images: number;
  /** Throws for a loss that ends the run. */
  readonly check: (loss: number) => void;
}

interface Outstanding extends Step {
  readonly numbers: Promise<readonly number[]>;
}

export class StepReadings {
  readonly #ahead: number;
  #steps: Outstanding[] = [];
  #read: Totals = NO_TOTALS;

  /** @param ahead - steps whose numbers may be outstanding */
  constructor(ahead: number) {
    this.#ahead = ahead;
  }

  /** Steps whose numbers were not taken. */
  get outstanding(): number {
    return this.#steps.length;
  }

  /** Numbers of a step that was computed. With none outstanding they are read, and checked, at once. */
  add(loss: Tensor, right: Tensor, step: Step): void {
    if (this.#ahead === 0) {
      const value = Number(loss.item());
      step.check(value);
      this.#add(value, Number(right.item()), step);
      return;
    }
    const both = Tensor.stack([loss.detach().to('float64'), right.to('float64')]);
    const numbers = both.toTypedArrayAsync().then((values) => Array.from(values as Float64Array));
    numbers.catch(() => undefined); // whoever takes it sees the error
    this.#steps.push({ ...step, numbers });
  }

  /** Sums over the steps that were read since the last call; over all that were computed if `all`. */
  async take(all: boolean): Promise<Totals> {
    while (this.#steps.length > (all ? 0 : this.#ahead)) {
      const step = this.#steps.shift() as Outstanding;
      const [loss, right] = (await step.numbers) as [number, number];
      step.check(loss);
      this.#add(loss, right, step);
    }
    const read = this.#read;
    this.#read = NO_TOTALS;
    return read;
  }

  #add(loss: number, right: number, { images }: Step): void {
    this.#read = sum(this.#read, { loss: loss * images, right, images });
  }
}

export function sum(left: Totals, right: Totals): Totals {
  return {
    loss: left.loss + right.loss,
    right: left.right + right.right,
    images: left.images + right.images,
  };
}
