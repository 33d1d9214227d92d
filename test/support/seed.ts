/** The seed of tests that draw their cases: SENET_FUZZ_SEED, 'random' for a new one, else always the same. */
const wish = process.env.SENET_FUZZ_SEED ?? '1';

export const seed = wish === 'random' ? Date.now() & 0x7fffffff : Number(wish);
