'use strict';
// Which programs a build needs, whether they are here, and what to install if not.
const { spawnSync } = require('node:child_process');

const INSTALL = {
  'g++': { apt: 'g++', dnf: 'gcc-c++', brew: null, why: 'a C++20 compiler' },
  cmake: { apt: 'cmake', dnf: 'cmake', brew: 'cmake', why: 'CMake 3.18 or newer' },
  make: { apt: 'make', dnf: 'make', brew: null, why: 'make (or ninja)' },
};

/** First line that the program prints for --version, or null. */
function versionOf(command, args = ['--version']) {
  const result = spawnSync(command, args, { encoding: 'utf8' });
  return result.status === 0 ? `${result.stdout}${result.stderr}`.trim().split('\n')[0] : null;
}

/** The compiler that CMake takes: CXX, else c++, else g++. */
function compiler() {
  for (const command of [process.env.CXX, 'c++', 'g++', 'clang++']) {
    const version = command ? versionOf(command) : null;
    if (version !== null) return { command, version };
  }
  return null;
}

/** Names of what is missing to build the addon. */
function missingTools() {
  const missing = [];
  if (compiler() === null) missing.push('g++');
  if (versionOf('cmake') === null) missing.push('cmake');
  if (versionOf('ninja') === null && versionOf('make') === null) missing.push('make');
  return missing;
}

/** One message that says what is missing and what to type. */
function adviceFor(missing) {
  const lines = missing.map((name) => `  ${name}: ${INSTALL[name].why}`);
  const packages = (manager) =>
    missing
      .map((name) => INSTALL[name][manager])
      .filter(Boolean)
      .join(' ');
  return [
    'The native part cannot be built, because these programs are missing:',
    ...lines,
    'Install them, then run the same command again:',
    `  Debian, Ubuntu: sudo apt-get install ${packages('apt')}`,
    `  Fedora, RHEL:   sudo dnf install ${packages('dnf')}`,
    `  macOS:          xcode-select --install${packages('brew') ? ` && brew install ${packages('brew')}` : ''}`,
  ].join('\n');
}

module.exports = { adviceFor, compiler, missingTools, versionOf };
