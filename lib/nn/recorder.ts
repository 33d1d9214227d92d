/** What the modules of one forward gave, for a summary of it. Knows nothing of modules. */
import { AsyncLocalStorage } from 'node:async_hooks';

type Shape = readonly number[];

/** Collects the calls of one summary. */
export class Recorder {
  readonly #calls = new Map<object, { shapes: readonly Shape[]; all: number[][] }>();

  /** A call of `module` gave tensors of these shapes. */
  note(module: object, shapes: readonly Shape[]): void {
    const known = this.#calls.get(module) ?? { shapes: [], all: [] };
    this.#calls.set(module, {
      shapes,
      all: [...known.all, ...shapes.slice(0, 1).map((shape) => [...shape])],
    });
  }

  /** The last output of a module, and the first tensor's shape of each of its calls. */
  callsOf(module: object): { shapes: readonly Shape[]; all: readonly Shape[] } {
    return this.#calls.get(module) ?? { shapes: [], all: [] };
  }

  /** Calls `fn`; the forwards inside it are noted here. */
  run<T>(fn: () => T): T {
    return recorders.run(this, fn);
  }
}

const recorders = new AsyncLocalStorage<Recorder>();

/** The recorder of the summary inside which this code runs. */
export function currentRecorder(): Recorder | undefined {
  return recorders.getStore();
}
