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

  /** Removes everything from `start` on and gives the pages that it lay on, of which none is copied. */
  take(start: number): T[][] {
    const first = start >>> PAGE_BITS;
    const last = (this.length - 1) >>> PAGE_BITS;
    const at = start & (PAGE - 1);
    const taken = this.#pages.slice(first + 1, last + 1) as T[][];
    this.#pages.length = first + 1;
    taken.unshift((this.#pages[first] as T[]).splice(at));
    this.length = start;
    return taken;
  }
}

/** Entries of one Map; its tables double up to so many. */
const LAYER = 65_536;

/** A Map of any size, in the order of insertion: several Maps, and none while it is empty. */
export class Layers<K, V> {
  #newest: Map<K, V> | null = null;
  #older: Map<K, V>[] | null = null;

  get size(): number {
    return (this.#older?.length ?? 0) * LAYER + (this.#newest?.size ?? 0);
  }

  get(key: K): V | undefined {
    return this.#layerOf(key)?.get(key);
  }

  has(key: K): boolean {
    return this.#layerOf(key) !== undefined;
  }

  set(key: K, value: V): void {
    const known = this.#layerOf(key);
    if (known !== undefined) {
      known.set(key, value);
      return;
    }
    if (this.#newest !== null && this.#newest.size >= LAYER) {
      (this.#older ??= []).push(this.#newest);
      this.#newest = null;
    }
    (this.#newest ??= new Map<K, V>()).set(key, value);
  }

  [Symbol.iterator](): IterableIterator<[K, V]> {
    return this.entries();
  }

  *entries(): IterableIterator<[K, V]> {
    for (const layer of this.#older ?? []) yield* layer;
    if (this.#newest !== null) yield* this.#newest;
  }

  *keys(): IterableIterator<K> {
    for (const [key] of this) yield key;
  }

  *values(): IterableIterator<V> {
    for (const [, value] of this) yield value;
  }

  #layerOf(key: K): Map<K, V> | undefined {
    if (this.#newest?.has(key) === true) return this.#newest;
    return this.#older?.find((layer) => layer.has(key));
  }
}
