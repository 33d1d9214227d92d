'use strict';
const { test } = require('node:test');

for (const [name, run] of require('./checks').all) test(name, () => run());
