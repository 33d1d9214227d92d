'use strict';
// The pages of documentation: README.md, CONTRIBUTING.md and docs/. Each relative link leads to a file or folder that is
// there, and to a heading that it has; the README leads to every page; each example is in a language that a test runs or
// that is none of JavaScript's. Others get pages, examples and links from here.
// (No #! line: vitest's vm pools take this file too, and know none.)
// An argument names another folder to look at; tests give one that holds broken links.
const { existsSync, readdirSync, readFileSync } = require('node:fs');
const path = require('node:path');

/** ```js is run (examplesOf); what these mark is for people. What has no name may be anything. */
const NOT_RUN = ['console', 'dockerfile', 'text'];
/** A line as JavaScript has it, and nothing that is for people. */
const JAVASCRIPT = /^ *(const|let|await|import|async function) |\brequire\('/m;

/** Paths from `root`, the README first. */
function pagesOf(root) {
  const pages = readdirSync(path.join(root, 'docs'), { recursive: true })
    .filter((name) => name.endsWith('.md'))
    .sort();
  return ['README.md', 'CONTRIBUTING.md', ...pages.map((name) => path.posix.join('docs', name))].filter(
    (page) => existsSync(path.join(root, page)),
  );
}

/** The fenced blocks of a page, and its lines with those (and what else is code) left empty. */
function parse(text) {
  const blocks = [];
  const lines = [];
  let block;
  for (const [index, line] of text.split('\n').entries()) {
    const fence = /^ *```(.*)/.exec(line);
    lines.push(fence || block ? '' : line.replace(/`[^`]*`/g, ''));
    if (fence && block) block = undefined;
    else if (fence) blocks.push((block = { language: fence[1].trim(), line: index + 1, code: '' }));
    else if (block) block.code += `${line}\n`;
  }
  return { blocks, lines };
}

/** The JavaScript programs of all pages, in their order: { page, code }. */
function examplesOf(root) {
  return pagesOf(root).flatMap((page) =>
    parse(readFileSync(path.join(root, page), 'utf8'))
      .blocks.filter(({ language }) => language === 'js')
      .map(({ code }) => ({ page, code })),
  );
}

/** The relative links of a page: { file (from the root), anchor, line }. */
function linksOf(page, text) {
  return parse(text).lines.flatMap((line, index) =>
    [...line.matchAll(/\]\(([^)\s]*)\)/g)]
      .map(([, target]) => target)
      .filter((target) => !/^[a-z]+:/i.test(target))
      .map((target) => {
        const [file, anchor] = target.split('#');
        return {
          file: file === '' ? page : path.posix.join(path.posix.dirname(page), file),
          anchor,
          line: index + 1,
        };
      }),
  );
}

/** What GitHub makes of the headings: lower case, without punctuation, a hyphen for each space. */
function anchorsOf(text) {
  const anchors = new Set();
  const { lines } = parse(text.replaceAll('`', ''));
  for (const line of lines) {
    const [, heading] = /^#{1,6} +(.*?)\s*$/.exec(line) ?? [];
    if (heading === undefined) continue;
    const slug = heading
      .toLowerCase()
      .replace(/[^\p{L}\p{N}_\- ]/gu, '')
      .replaceAll(' ', '-');
    let anchor = slug;
    for (let count = 1; anchors.has(anchor); count++) anchor = `${slug}-${count}`;
    anchors.add(anchor);
  }
  return anchors;
}

function check(root) {
  const problems = [];
  const pages = pagesOf(root);
  const reached = new Set();
  for (const page of pages) {
    const text = readFileSync(path.join(root, page), 'utf8');
    for (const { language, line, code } of parse(text).blocks) {
      if (language !== 'js' && (!NOT_RUN.includes(language) || JAVASCRIPT.test(code)))
        problems.push(
          `${page}:${line}: no test runs an example in '${language}'; what is run is called 'js'`,
        );
    }
    for (const { file, anchor, line } of linksOf(page, text)) {
      if (page === 'README.md') reached.add(file);
      if (!existsSync(path.join(root, file))) problems.push(`${page}:${line}: there is no ${file}`);
      else if (anchor !== undefined && !anchorsOf(readFileSync(path.join(root, file), 'utf8')).has(anchor))
        problems.push(`${page}:${line}: ${file} has no heading for #${anchor}`);
    }
  }
  for (const page of pages) {
    if (page.startsWith('docs/') && !reached.has(page)) problems.push(`README.md does not lead to ${page}`);
  }
  return problems;
}

function main() {
  const root = path.resolve(process.argv[2] ?? path.join(__dirname, '..', '..'));
  const problems = check(root);
  for (const problem of problems) console.error(problem);
  const pages = pagesOf(root).length;
  console.log(
    problems.length === 0 ? `${pages} pages, every link leads somewhere` : `${problems.length} problems`,
  );
  process.exitCode = problems.length === 0 ? 0 : 1;
}

if (require.main === module) main();
module.exports = { examplesOf, linksOf, pagesOf };
