'use strict';
// `npm test`: the set-up of `npm start`, then every test. Arguments go to mocha (`npm test -- --grep classify`, or files).
// Without any, two files of tests run at a time: many wait for one child process after another.
const { spawnSync } = require('node:child_process');
const { bootstrap, ROOT } = require('./bootstrap');

bootstrap();
const { setUp } = require('./setup/setup');

setUp()
  .then(() => {
    const given = process.argv.slice(2);
    const named = given.some((argument) => argument.endsWith('.ts') || argument.startsWith('test/'));
    const files = named ? [] : ['test/**/*.test.ts'];
    const together =
      given.length === 0 && !process.env.SENET_TEST_DEVICE ? ['--parallel', '--jobs', '2'] : [];
    const mocha = require.resolve('mocha/bin/mocha.js');
    const result = spawnSync(
      process.execPath,
      [mocha, '--reporter', 'scripts/reporter.js', ...together, ...given, ...files],
      {
        cwd: ROOT,
        stdio: 'inherit',
      },
    );
    process.exitCode = result.status ?? 1;
  })
  .catch((error) => {
    console.error(error.message);
    process.exitCode = 1;
  });
