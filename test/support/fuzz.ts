/** What tests of random cases share: their seed, and how many more of them are wanted than `npm test` runs. */

const wish = process.env.SENET_FUZZ_SEED ?? '1';

/** The same at each run, but for SENET_FUZZ_SEED=..., or SENET_FUZZ_SEED=random. */
export const FUZZ_SEED = wish === 'random' ? Date.now() & 0x7fffffff : Number(wish);

/** SENET_FUZZ_RUNS=... multiplies the number of cases. */
export const FUZZ_RUNS = Number(process.env.SENET_FUZZ_RUNS ?? '1');

export function printSeed(): void {
  console.log(`      seed ${FUZZ_SEED} (repeat with SENET_FUZZ_SEED=${FUZZ_SEED})`);
}
