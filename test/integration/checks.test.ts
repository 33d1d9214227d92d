/**
 * The checks of `scripts/checks`: they accept this repository, and each notices the violation that it is there for.
 * Violations are added to a copy, one at a time.
 */
import { spawnSync } from 'node:child_process';
import { appendFileSync, cpSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { expect } from 'chai';

import { Temporary } from '../support/temporary';

const ROOT = path.join(__dirname, '..', '..');

function check(name: string, ...args: string[]): { status: number | null; stdout: string; stderr: string } {
  const script = path.join(ROOT, 'scripts', 'checks', name);
  return spawnSync(process.execPath, [script, ...args], { encoding: 'utf8' });
}

describe('checks', function () {
  this.timeout(60_000);
  let temporary: Temporary;
  let copy: string;

  before(() => {
    temporary = new Temporary();
  });
  after(() => {
    temporary.cleanUp();
  });
  beforeEach(() => {
    copy = temporary.path('copy');
    mkdirSync(path.join(copy, 'scripts'), { recursive: true });
    for (const part of ['lib', 'native', path.join('scripts', 'setup'), 'README.md', 'docs']) {
      cpSync(path.join(ROOT, part), path.join(copy, part), { recursive: true });
    }
  });
  afterEach(() => {
    rmSync(copy, { recursive: true });
  });

  function append(file: string, text: string): void {
    appendFileSync(path.join(copy, file), `\n${text}\n`);
  }

  function replace(file: string, from: string, to: string): void {
    const text = readFileSync(path.join(copy, file), 'utf8');
    expect(text).to.contain(from);
    writeFileSync(path.join(copy, file), text.replace(from, to));
  }

  describe('import-direction', () => {
    it('accepts this repository', () => {
      expect(check('import-direction.js')).to.include({ status: 0, stderr: '' });
    });

    const violations: readonly (readonly [string, string, string, RegExp])[] = [
      ['an import from above', 'lib/tensor/ops.ts', "import '../models/registry';", /may not know 'models'/],
      ['in double quotes', 'lib/tensor/ops.ts', 'import "../models/registry";', /may not know 'models'/],
      [
        'of a type',
        'lib/nn/losses.ts',
        "import type { X } from '../vision/decode';",
        /may not know 'vision'/,
      ],
      [
        'a re-export',
        'lib/nn/losses.ts',
        "export {\n  x,\n} from '../vision/decode';",
        /may not know 'vision'/,
      ],
      ['a dynamic import', 'lib/hub/hub.ts', "void import('../models/registry');", /may not know 'models'/],
      ['a sibling', 'lib/hub/hub.ts', "import '../nn/losses';", /may not know 'nn'/],
      ['the index', 'lib/nn/losses.ts', "import { x } from '..';", /may not know 'index'/],
      ['the command line in the index', 'lib/index.ts', "import './cli/main';", /may not know 'cli'/],
      ['an addon', 'lib/tensor/ops.ts', "require(path.join(x, 'senet_torch.node'));", /loads an addon/],
      ['dlopen', 'lib/tensor/scope.ts', 'process.dlopen(module, x);', /loads an addon/],
      ['Node-API in core', 'native/core/error.h', '#include <napi.h>', /only native\/addon/],
      ['Node-API in quotes', 'native/nn/init.h', '#include "node_api.h"', /only native\/addon/],
      ['an include from above', 'native/nn/init.h', '#include "addon/wrap.h"', /may not know 'addon'/],
      ['a relative include', 'native/nn/init.h', '#include "../models/resnet.h"', /may not know 'models'/],
    ];
    it(`notices ${violations.map(([title]) => title).join(', ')}`, () => {
      for (const [, file, line] of violations) append(file, line);
      const { status, stderr } = check('import-direction.js', copy);
      const lines = stderr.trim().split('\n');
      for (const [title, file, , message] of violations) {
        const found = lines.findIndex((said) => said.startsWith(`${file} `) && message.test(said));
        expect(found, title).to.be.at.least(0);
        lines.splice(found, 1);
      }
      expect(lines).to.deep.equal([]);
      expect(status).to.equal(1);
    });

    it('notices a folder that is not in the order', () => {
      mkdirSync(path.join(copy, 'native', 'other'));
      writeFileSync(path.join(copy, 'native', 'other', 'x.h'), '');
      expect(check('import-direction.js', copy).stderr).to.match(/'other' has no place/);
    });

    it('takes a file in a sub-folder for one of its folder', () => {
      const folder = path.join(copy, 'native', 'inference', 'deep', 'deeper');
      mkdirSync(folder, { recursive: true });
      writeFileSync(path.join(folder, 'core.h'), '#include "core/error.h"\n#include "../../graph.h"\n');
      // `core/other.h` is beside this file, and so it is what C++ takes.
      mkdirSync(path.join(folder, 'core'));
      writeFileSync(path.join(folder, 'core', 'other.h'), '#include "../../../../addon/wrap.h"\n');
      writeFileSync(path.join(folder, 'x.h'), '#include "core/other.h"\n#include "addon/wrap.h"\n');
      mkdirSync(path.join(copy, 'lib', 'tensor', 'deep'));
      writeFileSync(
        path.join(copy, 'lib', 'tensor', 'deep', 'x.ts'),
        "import '../tensor';\nimport '../../nn/losses';\n",
      );
      const { stderr } = check('import-direction.js', copy);
      expect(stderr.trim().split('\n')).to.have.members([
        "lib/tensor/deep/x.ts imports ../../nn/losses: 'tensor' may not know 'nn'",
        "native/inference/deep/deeper/core/other.h includes ../../../../addon/wrap.h: 'inference' may not know 'addon'",
        "native/inference/deep/deeper/x.h includes addon/wrap.h: 'inference' may not know 'addon'",
      ]);
    });

    it('notices circles of imports, by name', () => {
      const write = (file: string, text: string): void => writeFileSync(path.join(copy, file), text);
      mkdirSync(path.join(copy, 'lib', 'hub', 'circle'));
      write('lib/hub/a.ts', "import './b';");
      write('lib/hub/b.ts', "export * from './circle/c';\nimport './d';");
      write('lib/hub/circle/c.ts', "import type { X } from '../a';");
      write('lib/hub/d.ts', "export type Y = import('./b').Y;");
      write('lib/hub/outside.ts', "import './a';"); // leads into a circle, and is in none
      write('native/core/one.h', '#include "core/two.h"');
      write('native/core/two.h', '#include "one.h"');
      const { status, stderr } = check('import-direction.js', copy);
      expect(stderr.trim().split('\n')).to.have.members([
        'lib/hub/a.ts -> lib/hub/b.ts -> lib/hub/circle/c.ts -> lib/hub/a.ts: a circle',
        'lib/hub/b.ts -> lib/hub/d.ts -> lib/hub/b.ts: a circle',
        'native/core/one.h -> native/core/two.h -> native/core/one.h: a circle',
      ]);
      expect(status).to.equal(1);
    });
  });

  describe('exports', () => {
    it('accepts this repository', () => {
      expect(check('exports.js')).to.include({ status: 0, stderr: '' });
    });

    it('notices what nobody imports, also of a file that is taken whole, and what tests alone do', () => {
      cpSync(path.join(ROOT, 'test', 'unit'), path.join(copy, 'test', 'unit'), { recursive: true });
      append(
        'lib/tensor/places.ts',
        [
          'export const [alone, imported] = [1, 2];',
          '/** not_in_comments */ export function not_in_comments(): void {}',
          'export class Tested {}',
          'export const usedTested = (): string => usedTested.name;',
          'export interface Type {}',
          'export function re_exported(): void {}',
        ].join('\n'),
      );
      append('lib/train/whole.ts', 'export const [said, unsaid] = [1, 2];');
      append('lib/cli/other.ts', "import { imported } from '../tensor/places';\nsaid(imported);");
      append('lib/cli/lazy.ts', "export { re_exported as said } from '../tensor/places';");
      append('lib/cli/lazy.ts', "void (require('../train/whole') as typeof import('../train/whole'));");
      append('test/unit/new.ts', "import { Tested, usedTested } from '../../lib/tensor/places';");
      const { status, stderr } = check('exports.js', copy);
      const lines = stderr.split('\n').filter((line) => /places|whole/.test(line));
      expect(lines).to.have.members([
        'lib/tensor/places.ts exports alone, which no other file of lib/ imports',
        'lib/tensor/places.ts exports not_in_comments, which no other file of lib/ imports',
        'lib/tensor/places.ts exports Tested, which no other file of lib/ imports',
        'lib/train/whole.ts exports unsaid, which no other file of lib/ imports',
      ]);
      expect(status).to.equal(1);
    });
  });

  describe('calls', () => {
    it('accepts this repository', () => {
      expect(check('calls.js')).to.include({ status: 0, stderr: '' });
    });

    it('notices a name, a number of arguments and an option that are gone, and no more', () => {
      cpSync(path.join(ROOT, 'package.json'), path.join(copy, 'package.json'));
      symlinkSync(path.join(ROOT, 'node_modules'), path.join(copy, 'node_modules'));
      const lines = [
        "const { manualSeed, gone } = require('../../dist/index');",
        "const { Places } = require('../../dist/vision/places');",
        "const { other } = require('../../dist/tensor/nowhere');",
        'manualSeed();',
        'new Places(2, 3);',
        "require('node:fs').rmSync('x', { forced: true });",
        "require('node:fs').rmSync('x', { wholly_other: true });",
        'const [value] = [1]; value.toFixed("2");',
      ];
      writeFileSync(path.join(copy, 'scripts', 'setup', 'new.js'), lines.join('\n'));
      const { status, stderr } = check('calls.js', copy);
      const found = stderr.trim().split('\n');
      expect(found.map((line) => line.split(': ')[0])).to.deep.equal(
        [1, 3, 4, 5, 6, 7].map((line) => `scripts/setup/new.js:${line}`),
      );
      expect(status).to.equal(1);
    });
  });

  describe('pages', () => {
    it('accepts this repository', () => {
      expect(check('pages.js')).to.include({ status: 0, stderr: '' });
    });

    it('notices links that lead nowhere, pages that nothing leads to, and examples that nothing runs', () => {
      writeFileSync(
        path.join(copy, 'docs', 'hidden.md'),
        '# Hidden\n\n## Here, `x` & there\n\n## Twice\n\n## Twice\n',
      );
      writeFileSync(
        path.join(copy, 'docs', 'data.md'),
        [
          '[page](nowhere.md) and [folder](../lib) and [elsewhere](https://example.org/nowhere.md)',
          '[in it](hidden.md#here-x--there) [again](hidden.md#twice-1) [no](hidden.md#twice-2)',
          '[own](#data) `[code](code.md)`',
          '# Data',
          '```js',
          '// [code](code.md)',
          '```',
          '```ts',
          '```',
          '```',
          'src/',
          '```',
          '```text',
          "const senet = require('senet-torch');",
          '```',
          '```text',
          'src/',
          '```',
        ].join('\n'),
      );
      const { status, stderr } = check('pages.js', copy);
      // What links to the real page's headings is not at stake here.
      const lines = stderr.split('\n').filter((line) => /^docs\/data|hidden/.test(line));
      expect(lines).to.have.members([
        'docs/data.md:1: there is no docs/nowhere.md',
        'docs/data.md:2: docs/hidden.md has no heading for #twice-2',
        "docs/data.md:8: no test runs an example in 'ts'; what is run is called 'js'",
        "docs/data.md:10: no test runs an example in ''; what is run is called 'js'",
        "docs/data.md:13: no test runs an example in 'text'; what is run is called 'js'",
        'README.md does not lead to docs/hidden.md',
      ]);
      expect(status).to.equal(1);
    });
  });

  describe('model-table', function () {
    this.timeout(300_000); // makes every network

    it('accepts this repository', () => {
      expect(check('model-table.js')).to.include({ status: 0, stderr: '' });
    });

    it('notices another figure, and a network of which nothing is said', () => {
      replace('docs/models.md', '28,088,024', '28,088,025');
      replace('docs/models.md', '| `se_resnet34` | BasicBlock [3, 4, 6, 3] |', '| `se_resnet34` |  |');
      const { status, stderr } = check('model-table.js', copy);
      expect(status).to.equal(1);
      expect(stderr.trim().split('\n')).to.deep.equal([
        'docs/models.md: write what `se_resnet34` is into its row',
        'docs/models.md: its table is not what the records say: run scripts/checks/model-table.js --write',
      ]);
    });
  });

  describe('the formatting of C++', () => {
    it('is looked at in every sub-folder', () => {
      const { scripts } = JSON.parse(readFileSync(path.join(ROOT, 'package.json'), 'utf8')) as {
        scripts: Readonly<Record<string, string>>;
      };
      cpSync(path.join(ROOT, '.clang-format'), path.join(copy, '.clang-format'));
      rmSync(path.join(copy, 'native'), { recursive: true });
      const files = ['native/a/x.h', 'native/a/b/c/x.cpp', 'test/native/x.h', 'test/native/a/x.cpp'];
      for (const file of files) {
        mkdirSync(path.join(copy, path.dirname(file)), { recursive: true });
        writeFileSync(path.join(copy, file), 'int  x;\n');
      }
      const clangFormat = path.join(ROOT, 'node_modules', 'clang-format', 'index.js');
      const run = (script: string): string => {
        const [, flags = ''] = /clang-format (.*)$/.exec(scripts[script] ?? '') ?? [];
        const command = `"${process.execPath}" "${clangFormat}" ${flags}`;
        return spawnSync(command, { cwd: copy, shell: true, encoding: 'utf8' }).stderr;
      };
      const said = run('lint');
      for (const file of files) expect(said).to.contain(`${file}:1:4: error`);
      run('format');
      for (const file of files) expect(readFileSync(path.join(copy, file), 'utf8')).to.equal('int x;\n');
    });
  });

  describe('error-table', () => {
    it('accepts this repository', () => {
      expect(check('error-table.js')).to.include({ status: 0, stderr: '' });
    });

    const entry = (code: string): string =>
      `export const ERROR_CODES = {\n  ${code}: { base: 'Error', status: 500, meaning: 'Made up.' },`;

    it('notices a row that disagrees, and --write mends it', () => {
      replace('docs/errors.md', '| `ERR_SENET_DTYPE` | TypeError |', '| `ERR_SENET_DTYPE` | Error |');
      expect(check('error-table.js', copy)).to.include({ status: 1 });
      expect(check('error-table.js', '--write', copy)).to.include({ status: 0, stderr: '' });
      const page = readFileSync(path.join(copy, 'docs', 'errors.md'), 'utf8');
      expect(page).to.equal(readFileSync(path.join(ROOT, 'docs', 'errors.md'), 'utf8'));
    });

    it('notices a code that is used and not in the table', () => {
      append('lib/tensor/ops.ts', "makeError('ERR_SENET_NOPE', '');");
      append('native/core/error.h', '#define X "ERR_SENET_CHECKPOINT"');
      const { status, stderr } = check('error-table.js', copy);
      expect(stderr).to.match(/ops\.ts uses ERR_SENET_NOPE/);
      expect(stderr).to.match(/error\.h uses ERR_SENET_CHECKPOINT,/);
      expect(status).to.equal(1);
    });

    it('notices a code in prose that is not in the table', () => {
      append('README.md', 'It throws `ERR_SENET_NOPE`.');
      append('docs/cuda.md', 'It throws `ERR_SENET_NONE`.');
      const { stderr } = check('error-table.js', copy);
      expect(stderr).to.match(/README\.md names ERR_SENET_NOPE/);
      expect(stderr).to.match(/docs\/cuda\.md names ERR_SENET_NONE/);
    });

    it('notices a code that nothing uses: a comment is no use', () => {
      replace('lib/errors.ts', 'export const ERROR_CODES = {', entry('ERR_SENET_NOPE'));
      append('lib/tensor/ops.ts', '// ERR_SENET_NOPE');
      const { status, stderr } = check('error-table.js', '--write', copy);
      expect(stderr).to.match(/ERR_SENET_NOPE is in lib\/errors\.ts and used nowhere/);
      expect(status).to.equal(1);
    });

    it('notices an entry that it cannot read', () => {
      replace('lib/errors.ts', 'export const ERROR_CODES = {', entry('ERR_SENET_NOPE').replaceAll("'", '"'));
      expect(check('error-table.js', copy).stderr).to.match(/entry of ERR_SENET_NOPE/);
    });
  });
});
