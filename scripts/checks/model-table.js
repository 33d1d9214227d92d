#!/usr/bin/env node
'use strict';
// The table of networks in docs/models.md: a row for each network, and one more for each further tag of its published
// weights. Comes from the records and the networks of the build (dist/, build/) and from what scripts/bench/networks.js
// measured; what a network is, the second column, is written by hand and stays. Compares them, or with --write renews it.
// An argument names another folder to look at; tests give one that holds disagreements.
const { readFileSync, writeFileSync } = require('node:fs');
const path = require('node:path');
const { parseArgs } = require('node:util');

const ROOT = path.join(__dirname, '..', '..');
const { values: options, positionals } = parseArgs({
  options: { write: { type: 'boolean' } },
  allowPositionals: true,
});
const PAGE = path.join(positionals[0] ?? ROOT, 'docs', 'models.md');
const BEGIN = '<!-- networks: written by scripts/checks/model-table.js -->';
const END = '<!-- end of networks -->';
const HEADER = [
  '| Network | What it is | Parameters | Multiply-adds | ms | Tag | Images | Top-1 | At test size | Top-1 | From |',
  '|---|---|---:|---:|---:|---|---|---:|---|---:|---|',
];
const USUAL_CLASSES = 1000;

function parametersOf(record) {
  const model = record.create({ numClasses: record.numClasses ?? USUAL_CLASSES, initWeights: false });
  const count = model.parameters().reduce((sum, { numel }) => sum + numel, 0);
  model.dispose();
  return count.toLocaleString('en');
}

/** "224 of 235": the centre of images whose short side has so many pixels. */
function imagesOf(preprocessing) {
  if (preprocessing === undefined) return '-';
  const { size, crop } = preprocessing;
  return [crop, size]
    .filter((given) => given !== undefined && given !== null)
    .map((given) => [...new Set([given].flat())].join(' x '))
    .join(' of ');
}

function usualOf({ preprocessing, inputSize }) {
  return preprocessing ?? { size: inputSize };
}

function cellsOf({ name, numClasses, preprocessing, testPreprocessing, location, ...published }, record) {
  const used = preprocessing ?? usualOf(record);
  const isMeasured = published.top1Size === undefined || published.top1Size === used?.crop?.[0];
  return [
    `\`${name}\`${numClasses === undefined ? '' : ` (${numClasses.toLocaleString('en')} classes)`}`,
    imagesOf(used),
    (isMeasured && published.top1) || '-',
    imagesOf(testPreprocessing),
    published.testTop1 ?? '-',
    [
      ...('bundled' in location ? ['this package'] : []),
      ...('hub' in location ? ['the hub'] : []),
      ...('url' in location ? ['release'] : []),
    ].join(', '),
  ];
}

/** Name -> what it is, of the rows that are there. */
function descriptionsIn(table) {
  return new Map(
    [...table.matchAll(/^\| `(\w+)` \| ([^|]*) \|/gm)].map(([, name, text]) => [name, text.trim()]),
  );
}

function tableOf(descriptions, problems) {
  const { allRecords } = require(path.join(ROOT, 'dist', 'models', 'registry'));
  const { networks } = JSON.parse(readFileSync(path.join(ROOT, 'scripts', 'bench', 'networks.json'), 'utf8'));
  const lines = allRecords().flatMap((record) => {
    const { name } = record;
    const { billionMultiplyAdds: billions, milliseconds } = networks[name] ?? {};
    const description = descriptions.get(name) ?? '';
    if (description === '') problems.push(`docs/models.md: write what \`${name}\` is into its row`);
    if (billions === undefined) problems.push(`${name}: node scripts/bench/networks.js ${name}`);
    const facts = [
      `\`${name}\``,
      description,
      parametersOf(record),
      billions === undefined ? '-' : billions.toFixed(billions < 1 ? 3 : 2),
      milliseconds ?? '-',
    ];
    const tags = record.weights.map((published) => cellsOf(published, record));
    const [first = ['-', imagesOf(usualOf(record)), '-', '-', '-', '-'], ...others] = tags;
    return [[...facts, ...first], ...others.map((cells) => [...facts.map(() => ''), ...cells])];
  });
  return [...HEADER, ...lines.map((cells) => `| ${cells.join(' | ')} |`)].join('\n');
}

function main() {
  const problems = [];
  const page = readFileSync(PAGE, 'utf8');
  const [begin, end] = [page.indexOf(BEGIN), page.indexOf(END)];
  if (begin < 0 || end < begin)
    problems.push(`docs/models.md has no place for its table (${BEGIN} ... ${END})`);
  else {
    const now = page.slice(begin + BEGIN.length, end).trim();
    const wanted = tableOf(descriptionsIn(now), problems);
    if (options.write)
      writeFileSync(PAGE, `${page.slice(0, begin + BEGIN.length)}\n\n${wanted}\n\n${page.slice(end)}`);
    else if (now !== wanted)
      problems.push(
        'docs/models.md: its table is not what the records say: run scripts/checks/model-table.js --write',
      );
  }
  for (const problem of problems) console.error(problem);
  process.exitCode = problems.length === 0 ? 0 : 1;
}

main();
