/** The types of the addon (lib/binding.ts) against the addon. */
import { readFileSync } from 'node:fs';
import path from 'node:path';

import { expect } from 'chai';
import ts from 'typescript';

import { binding, loadNative } from '../../lib/native';

describe('binding.ts', () => {
  it('says exactly what the addon exports', () => {
    const file = path.join(__dirname, '..', '..', 'lib', 'binding.ts');
    const source = ts.createSourceFile(file, readFileSync(file, 'utf8'), ts.ScriptTarget.Latest);
    const typed = source.statements
      .filter(ts.isInterfaceDeclaration)
      .filter(({ name }) => name.text === 'NativeBinding')
      .flatMap(({ members }) => members.map((member) => (member.name as ts.Identifier).text));
    loadNative();
    expect(typed.sort()).to.deep.equal(Object.keys(binding).sort());
  });
});
