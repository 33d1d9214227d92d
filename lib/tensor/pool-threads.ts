/** libuv's pool of threads, which files, names and image decoders share. Nothing of the library's own runs there. */

/** How many threads it has, read from UV_THREADPOOL_SIZE as libuv's threadpool.c does. */
export function poolThreads(): number {
  const { UV_THREADPOOL_SIZE: given } = process.env;
  if (given === undefined) return 4;
  const count = Number.parseInt(given, 10) || 1; // what is no number is 0, which becomes 1
  return count < 0 ? MOST : Math.min(MOST, count);
}

const MOST = 1024;
