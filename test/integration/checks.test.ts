/**
 * The checks of `scripts/checks`: they accept this repository, and each notices the violation that it is there for.
 * Violations are added to a copy, one at a time.
 */
import { spawnSync } from 'node:child_process';
import { appendFileSync, cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
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
    for (const part of ['lib', 'native', path.join('scripts', 'setup'), 'README.md']) {
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
  });

  describe('error-table', () => {
    it('accepts this repository', () => {
      expect(check('error-table.js')).to.include({ status: 0, stderr: '' });
    });

    const entry = (code: string): string =>
      `export const ERROR_CODES = {\n  ${code}: { base: 'Error', meaning: 'Made up.' },`;

    it('notices a row that disagrees, and --write mends it', () => {
      replace('README.md', '| `ERR_SENET_DTYPE` | TypeError |', '| `ERR_SENET_DTYPE` | Error |');
      expect(check('error-table.js', copy)).to.include({ status: 1 });
      expect(check('error-table.js', '--write', copy)).to.include({ status: 0, stderr: '' });
      const readme = readFileSync(path.join(copy, 'README.md'), 'utf8');
      expect(readme).to.equal(readFileSync(path.join(ROOT, 'README.md'), 'utf8'));
    });

    it('notices a code that is used and not in the table', () => {
      append('lib/tensor/ops.ts', "makeError('ERR_SENET_NOPE', '');");
      append('native/core/error.h', '#define X "ERR_SENET_CHECKPOINT"');
      const { status, stderr } = check('error-table.js', copy);
      expect(stderr).to.match(/ops\.ts uses ERR_SENET_NOPE/);
      expect(stderr).to.match(/error\.h uses ERR_SENET_CHECKPOINT,/);
      expect(status).to.equal(1);
    });

    it('notices a code in the prose of the README that is not in the table', () => {
      append('README.md', 'It throws `ERR_SENET_NOPE`.');
      expect(check('error-table.js', copy).stderr).to.match(/README\.md names ERR_SENET_NOPE/);
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
