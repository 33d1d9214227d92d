#!/usr/bin/env node
'use strict';
// lib/models/signatures.ts says what the state dict of each network looks like, by which files of weights are recognised.
// Prints what differs from the networks of the build (dist/, build/), and with --write mends the file.
const { execFileSync } = require('node:child_process');
const { readFileSync, writeFileSync } = require('node:fs');
const path = require('node:path');

const ROOT = path.join(__dirname, '..', '..');
const FILE = path.join(ROOT, 'lib', 'models', 'signatures.ts');
const HEAD = `/**
 * What the state dict of each network looks like, in a digest of its keys and shapes (\`recognise.ts\`). Written by
 * \`scripts/checks/signatures.js --write\`; two networks with one digest differ in strides and pools alone.
 */
export const SIGNATURES: Readonly<Record<string, string>> = {
`;
const SIZES = `};

/** The bytes of each network's state dict in float32, with its usual classes. */
export const STATE_BYTES: Readonly<Record<string, number>> = {
`;
const ITEM_BYTES = { float32: 4, int64: 8 };

function text() {
  const { allRecords } = require(path.join(ROOT, 'dist', 'models', 'registry'));
  const { signatureOf } = require(path.join(ROOT, 'dist', 'models', 'recognise'));
  const records = allRecords();
  const sizes = [];
  const lines = records.map((record) => {
    const family = records.filter(({ mark }) => mark.source === record.mark.source);
    const model = record.create({ numClasses: record.numClasses ?? 1, initWeights: false });
    const tensors = [...model.namedParameters(), ...model.namedBuffers()];
    const shapes = new Map(tensors.map(([name, { shape }]) => [name, shape]));
    const bytes = tensors.reduce((sum, [, { numel, dtype }]) => sum + numel * ITEM_BYTES[dtype], 0);
    sizes.push(`  ${record.name}: ${String(bytes).replace(/\B(?=(\d{3})+$)/g, '_')},\n`);
    model.dispose();
    return `  ${record.name}: '${signatureOf(family, shapes)}',\n`;
  });
  return `${HEAD}${lines.join('')}${SIZES}${sizes.join('')}};\n`;
}

if (require.main === module) {
  const wanted = text();
  if (process.argv.includes('--write')) {
    writeFileSync(FILE, wanted);
    execFileSync(process.execPath, [require.resolve('prettier/bin/prettier.cjs'), '--write', FILE]);
  } else if (readFileSync(FILE, 'utf8') !== wanted) {
    console.error(
      'lib/models/signatures.ts is not what the networks say: node scripts/checks/signatures.js --write',
    );
    process.exitCode = 1;
  }
}
