/** In a bundle the addon is out of reach: the error names the bundler and the line to write. */
import { execFileSync, spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import path from 'node:path';

import { expect } from 'chai';
import { buildSync } from 'esbuild';

import { Temporary } from '../support/temporary';

const ENTRY = path.join(__dirname, '..', '..', 'dist', 'index.js');

describe('the build in one file', () => {
  it('everything in it has the name under which it is exported', () => {
    const program = `
      const all = Object.entries(require(${JSON.stringify(ENTRY)}));
      const functions = all.filter(([, value]) => typeof value === 'function');
      const renamed = functions.filter(([name, { name: own }]) => name !== own);
      console.log(JSON.stringify([functions.length > 100, renamed.map(([name]) => name)]));`;
    const said = execFileSync(process.execPath, ['-e', program], { encoding: 'utf8' });
    expect(JSON.parse(said)).to.deep.equal([true, []]);
  });
});

describe('bundled', () => {
  let temporary: Temporary;
  before(() => {
    temporary = new Temporary();
  });
  after(() => temporary.cleanUp());

  function bundle(minify: boolean): string {
    const [file] = buildSync({
      stdin: { contents: `require(${JSON.stringify(ENTRY)}).ones([1]);`, resolveDir: __dirname },
      bundle: true,
      minify,
      platform: 'node',
      packages: 'external',
      write: false,
      logLevel: 'silent',
    }).outputFiles;
    return file?.text ?? '';
  }

  function said(program: string, env: NodeJS.ProcessEnv = {}): string {
    const file = temporary.path('out.js');
    writeFileSync(file, program);
    const run = spawnSync(process.execPath, [file], { encoding: 'utf8', env: { ...process.env, ...env } });
    expect(run.status).to.equal(1);
    return run.stderr;
  }

  it('by esbuild, minified or not', () => {
    for (const minify of [false, true])
      expect(said(bundle(minify))).to.match(
        /bundled by esbuild.*--external:senet-torch[^]*ERR_SENET_NO_BUILD/,
      );
  });

  it('by webpack, by Next.js, by something else', () => {
    const webpack = `var __webpack_require__ = () => {};\n${bundle(false)}`;
    expect(said(webpack)).to.match(
      /bundled by webpack.*externals: \{ 'senet-torch': 'commonjs senet-torch' \}/,
    );
    expect(said(webpack, { NEXT_RUNTIME: 'nodejs' })).to.match(/bundled by Next\.js.*serverExternalPackages/);
    const other = bundle(false).replaceAll('.exports, mod), mod.exports', '.exports, mod), (0, mod.exports)');
    expect(said(other)).to.match(/bundled by a bundler.*external: \['senet-torch'\]/);
  });
});
