/**
 * Containers that grow without ever being copied as a whole, for what a hostile file may make large: a JavaScript array or
 * Map that doubles holds up the thread while it does. Small ones are one page, and as fast as what they stand for.
 */

const PAGE_BITS = 12;
const PAGE = 1 << PAGE_BITS;

/** A stack, or a table by index: pages of equal length, each made when it is first used. */
export class Pages<T> {
  readonly #pages: (T[] | undefined)[] = [];
  /** Of the stack. */
  length = 0;

  /** Whether the index lies on a page that is not made yet. */
  isNewPage(index: number): boolean {
    return this.#pages[index >>> PAGE_BITS] === undefined;
  }

  get(index: number): T | undefined {
    return this.#pages[index >>> PAGE_BITS]?.[index & (PAGE - 1)];
  }

  set(index: number, value: T): void {
    const page = (this.#pages[index >>> PAGE_BITS] ??= []);
    page[index & (PAGE - 1)] = value;
  }

  push(value: T): void {
    this.set(this.length++, value);
  }

  pop(): T {
    const index = --this.length;
    const page = this.#pages[index >>> PAGE_BITS] as T[];
    // From the end, so that the page keeps no holes and nothing that was popped.
    return page.pop() as T;
  }

  /** Removes everything from `start` on and gives the part that fits into one array. */
  take(start: number): T[] {
    const first = start >>> PAGE_BITS;
    const last = (this.length - 1) >>> PAGE_BITS;
    const at = start & (PAGE - 1);
    let taken: T[];
    if (first === last) taken = (this.#pages[first] as T[]).splice(at);
    else {
      taken = [];
      for (let index = first; index <= last; index++) {
        const page = this.#pages[index] as T[];
        for (let i = index === first ? at : 0; i < page.length; i++) taken.push(page[i] as T);
        page.length = index === first ? at : 0;
      }
    }
    this.length = start;
    return taken;
  }
}

/** Entries of one Map; its tables double up to so many. */
const LAYER = 65_536;

/** A Map of any number of objects: several Maps, the newest first. */
export class Layers<K extends object, V> {
  readonly #layers: Map<K, V>[] = [new Map<K, V>()];
  size = 0;

  get(key: K): V | undefined {
    for (const layer of this.#layers) {
      const value = layer.get(key);
      if (value !== undefined) return value;
    }
    return undefined;
  }

  /** @param value - not undefined, which stands for no entry */
  set(key: K, value: V): void {
    for (const layer of this.#layers) {
      if (!layer.has(key)) continue;
      layer.set(key, value);
      return;
    }
    if ((this.#layers[0] as Map<K, V>).size >= LAYER) this.#layers.unshift(new Map<K, V>());
    (this.#layers[0] as Map<K, V>).set(key, value);
    this.size++;
  }
}
