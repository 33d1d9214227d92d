/**
 * `docs/examples/classify.html` in Chromium, with a network that `senet-torch export` wrote and onnxruntime-web, over HTTP.
 * `SENET_TEST_SCREENSHOTS=FOLDER` keeps pictures of it, to be looked at.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';

import { expect } from 'chai';
import type { Browser, Page } from 'puppeteer-core';

import { CLI } from '../support/built';
import { needOnnxRuntime } from '../support/onnx-runtime';
import { skip } from '../support/skip';
import { Temporary } from '../support/temporary';

const ROOT = path.join(__dirname, '..', '..');
const PAGE = path.join(ROOT, 'docs', 'examples', 'classify.html');
const ORT = path.join(ROOT, 'scripts', 'bench', 'node_modules', 'onnxruntime-web', 'dist');
const BROWSERS = [
  process.env.SENET_TEST_CHROMIUM ?? '',
  ...['chromium', 'chromium-browser', 'google-chrome'].map((name) => `/usr/bin/${name}`),
];
const SCREENSHOTS = process.env.SENET_TEST_SCREENSHOTS;
const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html',
  '.mjs': 'text/javascript',
  '.wasm': 'application/wasm',
};

describe('the page that classifies in the browser', function () {
  this.timeout(180_000);
  const temporary = new Temporary();
  let browser: Browser | undefined;
  let server: http.Server | undefined;
  let address = '';

  before(async function () {
    const executablePath = BROWSERS.find((candidate) => candidate !== '' && existsSync(candidate));
    if (executablePath === undefined) skip(this, 'there is no Chromium (SENET_TEST_CHROMIUM names one)');
    needOnnxRuntime(this);
    for (const [file, more] of [
      ['net.onnx', ['--preprocess', '--softmax']],
      ['plain.onnx', []],
    ] as const) {
      const args = [CLI, 'export', 'fashion_mnist', '--output', temporary.path(file), ...more];
      execFileSync(process.execPath, args, { cwd: ROOT });
    }
    server = http.createServer((request, response) => {
      const { pathname } = new URL(request.url ?? '/', 'http://localhost');
      const file =
        pathname === '/'
          ? PAGE
          : pathname.startsWith('/ort/')
            ? path.join(ORT, path.basename(pathname))
            : temporary.path(path.basename(pathname));
      if (!existsSync(file)) {
        response.writeHead(404).end();
        return;
      }
      response.setHeader('content-type', TYPES[path.extname(file)] ?? 'application/octet-stream');
      response.end(readFileSync(file));
    });
    await new Promise<void>((resolve) => server?.listen(0, '127.0.0.1', resolve));
    address = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
    const { launch } = require('puppeteer-core') as typeof import('puppeteer-core');
    browser = await launch({
      executablePath,
      args: ['--no-sandbox', '--disable-gpu'],
      protocolTimeout: 170_000,
    });
  });
  after(async () => {
    await browser?.close();
    server?.closeAllConnections();
    server?.close();
    temporary.cleanUp();
  });

  async function open(query = ''): Promise<{ page: Page; problems: string[] }> {
    const page = await (browser as Browser).newPage();
    await page.setViewport({ width: 800, height: 760 });
    const problems: string[] = [];
    page.on('pageerror', (error) => problems.push(String(error)));
    page.on('requestfailed', (request) => problems.push(`failed ${request.url()}`));
    await page.goto(address + query);
    await page.waitForFunction(`!document.querySelector('#status').textContent.startsWith('Loading')`, {
      timeout: 120_000,
    });
    return { page, problems };
  }

  const statusOf = async (page: Page): Promise<string> =>
    page.evaluate(`document.querySelector('#status').textContent`) as Promise<string>;

  async function classify(page: Page, file: string, expected: RegExp): Promise<void> {
    const input = await page.$('input[type=file]');
    await input?.uploadFile(file);
    await page.waitForFunction(`${String(expected)}.test(document.querySelector('#status').textContent)`, {
      timeout: 60_000,
    });
  }

  it('gives the labels of images', async () => {
    const { page, problems } = await open();
    expect(await statusOf(page)).to.equal('se_resnet20 is ready');
    const images = path.join(ROOT, 'assets', 'images');
    await classify(page, path.join(images, '00-ankle-boot.png'), /^Ankle boot, in \d+ ms/);
    await classify(page, path.join(images, '18-bag.png'), /^Bag, in \d+ ms/);
    const rows = (await page.evaluate(
      `[...document.querySelectorAll('#labels tr')].map((row) => row.textContent)`,
    )) as string[];
    expect(rows).to.have.length(5);
    expect(rows[0]).to.match(/^Bag\d+\.\d %$/);
    if (SCREENSHOTS !== undefined) {
      mkdirSync(SCREENSHOTS, { recursive: true });
      await page.screenshot({ path: path.join(SCREENSHOTS, 'classify-in-browser.png') });
    }
    expect(problems).to.deep.equal([]);
    await page.close();
  });

  it('says what is wrong: no image, another network, none', async () => {
    const { page } = await open();
    await classify(page, __filename, /^onnx-page\.test\.ts: ./);
    await classify(page, path.join(ROOT, 'assets', 'images', '18-bag.png'), /^Bag/); // and goes on
    await page.close();
    for (const [query, words] of [
      ['?net=plain.onnx', /exported without --preprocess/],
      ['?net=none.onnx', /none\.onnx: 404/],
    ] as const) {
      const { page: other } = await open(query);
      expect(await statusOf(other)).to.match(words);
      await other.close();
    }
  });
});
