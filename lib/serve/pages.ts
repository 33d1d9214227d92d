/** The pages for people, files of the package: nothing of them comes from a network. */
import { readFile } from 'node:fs/promises';
import path from 'node:path';

import { ASSETS, LIBRARY } from '../package-root';
import type { Call } from './call';
import { bytesResponse, type InferenceResponse } from './exchange';

/** The page that shows what a network sees is joined by the build; what tries the paths is a file as it is. */
const FRONT = [path.join(LIBRARY, 'serve', 'page.html'), path.join(ASSETS, 'serve', 'page.html')];
const DOCS = [path.join(ASSETS, 'serve', 'docs.html')];

const HTML = 'text/html; charset=utf-8';
const HEADERS = {
  // A page runs what is written in it, asks this server alone, and stands in no other page.
  'content-security-policy':
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' data: blob:; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
  'referrer-policy': 'no-referrer',
};

const pages = new Map<readonly string[], Buffer | undefined>();

/** The first of these files that is there, read once. */
async function pageOf(files: readonly string[]): Promise<Buffer | undefined> {
  if (pages.has(files)) return pages.get(files);
  let page: Buffer | undefined;
  for (const file of files) page ??= await readFile(file).catch(() => undefined);
  pages.set(files, page);
  return page;
}

/** What a network attends to; where that page is not there, the one that tries the paths. */
export async function frontPage(call: Call): Promise<InferenceResponse> {
  const page = await pageOf(FRONT);
  return page === undefined ? docsPage(call) : bytesResponse(page, HTML, 200, HEADERS);
}

export async function docsPage(_call: Call): Promise<InferenceResponse> {
  const page = await pageOf(DOCS);
  return bytesResponse(page ?? Buffer.from('see /openapi.json'), HTML, 200, HEADERS);
}
