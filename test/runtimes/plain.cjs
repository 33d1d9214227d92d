'use strict';
// Without a test runner: what Bun and Deno run.
(async () => {
  for (const [name, run] of require('./checks').smoke) {
    await run();
    console.log(`ok ${name}`);
  }
})().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
