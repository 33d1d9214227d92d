/** Skipping a test, or by a hook all tests of a suite, with a line that names it and says why. */

/** Ends the test that `context` is the `this` of. */
export function skip(context: Mocha.Context, reason: string): never {
  const test = context.test as (Mocha.Runnable & { readonly type: string }) | undefined;
  const skipped = test?.type === 'hook' ? test.parent : test;
  console.log(`      skipped: ${skipped?.fullTitle() ?? 'a test'}: ${reason}`);
  return context.skip();
}
