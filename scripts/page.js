'use strict';
// Makes the page of `senet-torch serve` and `senet-torch explain`, dist/serve/page.html: one file with its style, its
// script (lib/serve/page, with Observable Plot inside) and the bundled images as examples.
const { mkdirSync, readdirSync, readFileSync, writeFileSync } = require('node:fs');
const path = require('node:path');
const { buildSync } = require('esbuild');

const ROOT = path.join(__dirname, '..');
const PAGE = path.join(ROOT, 'lib', 'serve', 'page');
const TARGET = path.join(ROOT, 'dist', 'serve', 'page.html');

function examples() {
  const folder = path.join(ROOT, 'assets', 'images');
  return JSON.parse(readFileSync(path.join(folder, 'index.json'), 'utf8')).map(({ file, label }) => ({
    label,
    url: `data:image/png;base64,${readFileSync(path.join(folder, file), 'base64')}`,
  }));
}

/** What the packages that are inside want to have said: their licences, each once. */
function licencesOf(inputs) {
  const packages = new Set(
    inputs.flatMap((input) => /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(input)?.[1] ?? []),
  );
  const byText = new Map();
  for (const name of [...packages].sort()) {
    const folder = path.join(ROOT, 'node_modules', name);
    const file = readdirSync(folder).find((one) => /^(licen[cs]e|unlicense)/i.test(one));
    const { license } = JSON.parse(readFileSync(path.join(folder, 'package.json'), 'utf8'));
    const text = file === undefined ? String(license) : readFileSync(path.join(folder, file), 'utf8').trim();
    byText.set(text, [...(byText.get(text) ?? []), name]);
  }
  return [...byText].map(([text, names]) => `${names.join(', ')}\n\n${text}`).join('\n\n\n');
}

const escapeHtml = (text) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');

function makePage() {
  const built = buildSync({
    entryPoints: [path.join(PAGE, 'main.ts')],
    bundle: true,
    minify: true,
    format: 'iife',
    target: 'es2022',
    charset: 'utf8',
    legalComments: 'none',
    define: { EXAMPLES: JSON.stringify(examples()) },
    absWorkingDir: ROOT,
    metafile: true,
    write: false,
  });
  const [{ text: script }] = built.outputFiles;
  const licences = licencesOf(Object.keys(built.metafile.inputs));
  const [{ text: style }] = buildSync({
    entryPoints: [path.join(PAGE, 'style.css')],
    minify: true,
    write: false,
  }).outputFiles;
  const page = readFileSync(path.join(PAGE, 'index.html'), 'utf8')
    .replace('/* licences */', () => escapeHtml(licences))
    .replace('/* style */', () => style)
    .replace('/* script */', () => script.replaceAll('</script', '<\\/script'));
  mkdirSync(path.dirname(TARGET), { recursive: true });
  writeFileSync(TARGET, page);
}

module.exports = { makePage };
if (require.main === module) makePage();
