'use strict';
// `npm start`: sets everything up, each step skipped when it is done, then runs the command line with the given
// arguments; without a command it classifies (the bundled images, or the files that were named).
const { bootstrap } = require('./bootstrap');

bootstrap();
const { setUp } = require('./setup/setup');

setUp()
  .then(async () => {
    const { COMMANDS, main } = require('../dist/cli/main');
    const given = process.argv.slice(2);
    const named =
      given.length > 0 &&
      (COMMANDS.includes(given[0]) || ['--help', '-h', '--version', '-V'].includes(given[0]));
    if (given.length === 0)
      console.log(
        'The images that come with the package: of each the three labels that the network finds likeliest, with their probabilities',
      );
    await main(named ? given : ['classify', ...given]);
  })
  .catch((error) => {
    console.error(error.message);
    process.exitCode = 1;
  });
