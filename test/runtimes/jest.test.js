'use strict';
for (const [name, run] of require('./checks').all) test(name, () => run(), 300_000);
