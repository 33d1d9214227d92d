/**
 * Gate: bounds how many pieces of work run at the same time, first come first served. Knows nothing of the work.
 */
export class Gate {
  readonly #mayEnter: (inside: number) => boolean;
  readonly #waiting: (() => void)[] = [];
  #inside = 0;

  /** @param mayEnter - whether one more may enter, when so many are inside; asked anew at each leave and `update` */
  constructor(mayEnter: (inside: number) => boolean) {
    this.#mayEnter = mayEnter;
  }

  /** Runs `work` as soon as there is room. */
  async run<T>(work: () => Promise<T>): Promise<T> {
    const entered = new Promise<void>((resolve) => this.#waiting.push(resolve));
    this.update();
    await entered;
    try {
      return await work();
    } finally {
      this.#inside--;
      this.update();
    }
  }

  /** To be called when `mayEnter` may answer otherwise than before. */
  update(): void {
    while (this.#waiting.length > 0 && this.#mayEnter(this.#inside)) {
      this.#inside++;
      this.#waiting.shift()?.();
    }
  }
}
