import { createRequire } from 'node:module';
import { test } from 'vitest';

for (const [name, run] of createRequire(import.meta.url)('./checks').all) test(name, () => run(), 300_000);
