/**
 * The page, in Chromium: as a file that `senet-torch explain` makes, and asked for from a server. Built here, from its
 * sources. `SENET_TEST_SCREENSHOTS=FOLDER` keeps pictures of it, to be looked at.
 */
import { execFile, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';

import { expect } from 'chai';
import type { Browser, Page } from 'puppeteer-core';

import { ImageClassifier, type ExplainOptions } from '../../lib';
import type { ClassExcitationsJson } from '../../lib/serve/page-data';
import { CLI } from '../support/built';
import { Temporary } from '../support/temporary';
import { skip } from '../support/skip';

const ROOT = path.join(__dirname, '..', '..');
const BROWSERS = [
  process.env.SENET_TEST_CHROMIUM ?? '',
  ...['chromium', 'chromium-browser', 'google-chrome'].map((name) => `/usr/bin/${name}`),
];
const SCREENSHOTS = process.env.SENET_TEST_SCREENSHOTS;
const run = promisify(execFile);

async function senetTorch(...args: string[]): Promise<{ stdout: string; stderr: string }> {
  return run(process.execPath, [CLI, ...args], { cwd: ROOT });
}

describe('the page', function () {
  this.timeout(180_000);
  const temporary = new Temporary();
  let browser: Browser | undefined;
  let file: string;
  let figure: ClassExcitationsJson;

  before(async function () {
    const executablePath = BROWSERS.find((candidate) => candidate !== '' && existsSync(candidate));
    if (executablePath === undefined) {
      skip(this, 'there is no Chromium (SENET_TEST_CHROMIUM names one)');
    }
    (require('../../scripts/page') as { makePage: () => void }).makePage();
    const { launch } = require('puppeteer-core') as typeof import('puppeteer-core');
    const args = ['--no-sandbox', '--disable-gpu', '--allow-file-access-from-files'];
    browser = await launch({ executablePath, args, protocolTimeout: 170_000 });

    const folder = temporary.path('classes');
    const images = path.join(ROOT, 'assets', 'images');
    const index = JSON.parse(readFileSync(path.join(images, 'index.json'), 'utf8')) as {
      file: string;
      label: string;
    }[];
    for (const { file: name, label } of index.filter((one) =>
      ['Trouser', 'Coat', 'Sneaker'].includes(one.label),
    )) {
      mkdirSync(path.join(folder, label), { recursive: true });
      writeFileSync(path.join(folder, label, name), readFileSync(path.join(images, name)));
    }
    const json = temporary.path('figure.json');
    const csv = temporary.path('figure.csv');
    const html = temporary.path('figure.html');
    const told = await senetTorch(
      'excitations',
      folder,
      '--per-class',
      '3',
      '--ablate',
      'last',
      '--ablate-images',
      '2',
      '-o',
      json,
      csv,
      html,
    );
    expect(told.stdout).to.match(/Coat \(3\), Sneaker \(2\), Trouser \(3\)/);
    expect(told.stdout).to.match(/layer3\.2\.se +SE_4_3 +64 +0\.\d{3}/);
    expect(told.stdout).to.match(/without a channel, over 2 images/);
    figure = JSON.parse(readFileSync(json, 'utf8')) as ClassExcitationsJson;
    expect(readFileSync(csv, 'utf8').split('\n')).to.have.length(
      2 + figure.layers.reduce((sum, { channels }) => sum + 4 * channels, 0),
    );
    expect(readFileSync(html, 'utf8')).to.contain('"SE_4_3"');

    file = temporary.path('page.html');
    const made = await senetTorch(
      ...['explain', path.join(images, '00-ankle-boot.png'), path.join(images, '18-bag.png')],
      ...['--output', file, '--score-cam', '--figure', json],
    );
    expect(made.stdout).to.match(/Ankle boot/);
    expect(made.stdout).to.match(/gradcam of layer3\.2/);
    expect(made.stderr).to.match(/2 images/);
  });
  after(async () => {
    await browser?.close();
    temporary.cleanUp();
  });

  /** A page whose errors, warnings and requests are kept. */
  async function open(
    address: string,
    { width = 1200, height = 900, dark = false } = {},
  ): Promise<{ page: Page; problems: string[]; requests: string[] }> {
    const page = await (browser as Browser).newPage();
    const problems: string[] = [];
    const requests: string[] = [];
    page.on('pageerror', (error) => problems.push(String(error)));
    page.on('console', (message) => {
      if (['error', 'warn'].includes(message.type())) problems.push(message.text());
    });
    page.on('request', (request) => {
      if (!request.url().startsWith('data:') && !request.url().startsWith('blob:'))
        requests.push(request.url());
    });
    await page.evaluateOnNewDocument('globalThis.__name = (named) => named'); // what esbuild puts around functions
    await page.setViewport({ width, height, isMobile: width < 500, hasTouch: width < 500 });
    await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: dark ? 'dark' : 'light' }]);
    await page.goto(address, { waitUntil: 'load' });
    return { page, problems, requests };
  }

  async function picture(page: Page, name: string): Promise<void> {
    if (SCREENSHOTS === undefined) return;
    mkdirSync(SCREENSHOTS, { recursive: true });
    await page.screenshot({ path: path.join(SCREENSHOTS, `${name}.png`), fullPage: true });
  }

  const text = (page: Page, selector: string): Promise<string> =>
    page.$eval(selector, (element) => element.textContent ?? '');
  const waitFor = (page: Page, selector: string, words: string): Promise<unknown> =>
    page.waitForFunction(
      (where: string, what: string) => document.querySelector(where)?.textContent?.includes(what) === true,
      { timeout: 60_000 },
      selector,
      words,
    );
  const choose = async (page: Page, label: string, value: string): Promise<void> => {
    await page.select(`select[data-key="choice ${label}"]`, value);
  };

  it('is one file that shows labels, map, gates and the figure, without a request', async () => {
    const { page, problems, requests } = await open(pathToFileURL(file).href);
    await waitFor(page, '#labels', 'Ankle boot');
    expect(await page.$$eval('h2', (all) => all.map((one) => one.textContent))).to.deep.equal([
      'Labels',
      'Where it looked',
      'Excitations',
      'Excitations by class',
    ]);
    expect(await text(page, '#map figcaption')).to.match(/Grad-CAM of layer3\.2 \(8 x 8\) for Ankle boot/);
    expect(await page.$$('.layers button')).to.have.length(9);
    expect(await page.$$('.channels canvas')).to.have.length(12);
    expect(await page.$$('#figure figure svg')).to.have.length(4); // three layers and the bars
    await picture(page, 'light');

    await choose(page, 'Method', 'scorecam');
    expect(await text(page, '#map figcaption')).to.match(/Score-CAM/);
    await choose(page, 'Layer', 'layer1.2');
    expect(await text(page, '#map figcaption')).to.match(/layer1\.2 \(32 x 32\)/);
    const [, second] = await page.$$('#choose button');
    await second?.click();
    await waitFor(page, '#labels', 'Bag');
    expect(await text(page, '#excitations')).to.match(/need the network: run senet-torch serve/);
    await page.$eval('#excitations details', (details) => (details.open = true));
    expect(await page.$$('#excitations tbody tr')).to.have.length(9);
    await choose(page, 'By', 'ablation');
    expect(await text(page, '#figure')).to.match(/over 2 images/);
    expect(requests).to.deep.equal([pathToFileURL(file).href]);
    expect(problems).to.deep.equal([]);
    await page.close();
  });

  it('works with the keyboard, and says what it shows', async () => {
    const { page, problems } = await open(pathToFileURL(file).href);
    await waitFor(page, '#labels', 'Ankle boot');
    await page.keyboard.press('Tab');
    expect(await page.evaluate(() => document.activeElement?.textContent)).to.equal('Skip to the result');
    await page.focus('.layers button[data-key="layer layer1.0.se"]');
    await page.keyboard.press('Enter');
    const focused = await page.evaluate(() => (document.activeElement as HTMLElement).dataset.key);
    expect(focused).to.equal('layer layer1.0.se'); // where it was, though all was drawn anew
    expect(
      await page.$eval('.layers button[aria-pressed="true"]', (one) => one.getAttribute('aria-label')),
    ).to.match(/^layer1\.0\.se: 16 channels, from 0\.\d\d to 0\.\d\d, mean 0\.\d\d$/);
    const nameless = await page.evaluate(() =>
      [...document.querySelectorAll('button, select, input, [role="img"], section, figure svg[aria-label]')]
        .filter((one) => {
          const labelled = one.getAttribute('aria-label') ?? one.textContent ?? '';
          const by = one.getAttribute('aria-labelledby');
          const label = one.closest('label')?.textContent ?? '';
          return (
            `${labelled}${label}${by === null ? '' : (document.getElementById(by)?.textContent ?? '')}`.trim() ===
            ''
          );
        })
        .map((one) => one.outerHTML.slice(0, 80)),
    );
    expect(nameless).to.deep.equal([]);
    expect(await page.$eval('#map canvas', (one) => one.getAttribute('aria-label'))).to.match(
      /Where 00-ankle-boot\.png looks like Ankle boot: (top|middle|bottom) (left|centre|right) \d+/,
    );
    expect(problems).to.deep.equal([]);
    await page.close();
  });

  it('is readable in the dark and on a phone', async () => {
    for (const [name, view] of [
      ['dark', { dark: true }],
      ['phone', { width: 390, height: 800 }],
      ['phone-dark', { width: 360, height: 740, dark: true }],
    ] as const) {
      const { page, problems } = await open(pathToFileURL(file).href, view);
      await waitFor(page, '#labels', 'Ankle boot');
      await picture(page, name);
      const { wide, inner } = await page.evaluate(() => ({
        wide: document.documentElement.scrollWidth,
        inner: window.innerWidth,
      }));
      expect(wide, name).to.be.at.most(inner);
      const contrast = await page.evaluate(() => {
        const luminance = (colour: string): number => {
          const parts = (colour.match(/[\d.]+/g) ?? []).slice(0, 3).map((one) => Number(one) / 255);
          const [r = 0, g = 0, b = 0] = parts.map((one) =>
            one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4,
          );
          return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const paperOf = (element: Element | null): string => {
          for (let one = element; one !== null; one = one.parentElement) {
            const colour = getComputedStyle(one).backgroundColor;
            if (!/^rgba\(.*, 0\)$|^transparent$/.test(colour)) return colour;
          }
          return 'rgb(255, 255, 255)';
        };
        const ratios = [
          ...document.querySelectorAll(
            'p, span, h1, h2, h3, li, td, th, label, button, select, figcaption, summary',
          ),
        ]
          .filter((one) => (one.textContent ?? '').trim() !== '')
          .map((one) => {
            const [ink, paper] = [luminance(getComputedStyle(one).color), luminance(paperOf(one))];
            return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
          });
        return Math.min(...ratios);
      });
      expect(contrast, name).to.be.at.least(4.5);
      expect(problems, name).to.deep.equal([]);
      await page.close();
    }
  });

  it('saves SVG, PNG and CSV', async () => {
    const { page, problems } = await open(pathToFileURL(file).href);
    await waitFor(page, '#labels', 'Ankle boot');
    await page.evaluate(() => {
      const saved: { name: string; size: number; type: string }[] = [];
      Object.assign(window, { saved });
      const make = URL.createObjectURL.bind(URL);
      let last: Blob | undefined;
      URL.createObjectURL = (blob) => make((last = blob as Blob));
      HTMLAnchorElement.prototype.click = function (): void {
        saved.push({ name: this.download, size: last?.size ?? 0, type: last?.type ?? '' });
      };
    });
    for (const key of [
      'csv labels',
      'csv excitations',
      'png excitations',
      'csv map',
      'csv excitations-by-class',
    ])
      await page.$eval(`[data-key="${key}"]`, (one) => (one as HTMLElement).click());
    await page.$eval('#figure [data-key^="svg class"]', (one) => (one as HTMLElement).click());
    await page.$eval('#figure [data-key^="png class"]', (one) => (one as HTMLElement).click());
    await page.waitForFunction(() => (window as unknown as { saved: unknown[] }).saved.length === 7);
    const saved = await page.evaluate(
      () => (window as unknown as { saved: { name: string; size: number; type: string }[] }).saved,
    );
    for (const { name, size, type } of saved) {
      expect(size, name).to.be.above(100);
      const ending = { 'text/csv': '.csv', 'image/png': '.png', 'image/svg+xml': '.svg' }[type] ?? '?';
      expect(name.endsWith(ending), `${name} ${type}`).to.equal(true);
    }
    expect(problems).to.deep.equal([]);
    await page.close();
  });

  it('asks for the key of a server that wants one, and keeps it in its memory', async () => {
    const KEY = 'a key of the server';
    const args = [CLI, 'serve', '--port', '0', '--api-key', KEY];
    const child = spawn(process.execPath, args, { cwd: ROOT, stdio: ['ignore', 'pipe', 'inherit'] });
    try {
      const address = await new Promise<string>((resolve, reject) => {
        let said = '';
        child.stdout.on('data', (part: Buffer) => {
          const [, url] = /listening on (\S+)/.exec((said += part.toString())) ?? [];
          if (url !== undefined) resolve(url);
        });
        child.on('close', () => reject(new Error(`the server has ended: ${said}`)));
      });
      const { page, problems, requests } = await open(address);
      const type = async (key: string): Promise<void> => {
        await page.waitForSelector('[data-key="key"]');
        await page.waitForFunction(() => (document.activeElement as HTMLElement).dataset.key === 'key');
        await page.keyboard.type(key);
        await page.keyboard.press('Enter');
      };
      await waitFor(page, '#problem', 'wants a key');
      expect(await text(page, '#key-note')).to.match(/memory of this page/);
      await picture(page, 'key');
      await type('another key');
      await waitFor(page, '#problem', 'refuses this key');
      await type(KEY);
      await waitFor(page, '#status', 'se_resnet20');
      expect(await page.$('[data-key="key"]')).to.equal(null);
      await page.click('.examples [data-key="example 8"]');
      await waitFor(page, '#labels', 'Sandal');
      await picture(page, 'key-taken');
      const kept = await page.evaluate(() =>
        [localStorage, sessionStorage, document.cookie, location.href]
          .map((one) => JSON.stringify(one))
          .join(),
      );
      for (const place of [kept, ...requests]) expect(decodeURIComponent(place)).to.not.contain(KEY);
      await page.reload({ waitUntil: 'load' });
      await waitFor(page, '#problem', 'wants a key');
      expect(problems.filter((one) => !one.includes('401'))).to.deep.equal([]); // Chromium's own line of it
      await page.close();
    } finally {
      child.kill('SIGTERM');
    }
  });

  it('asks the server that it came from: images, maps, what if', async () => {
    const classifier = await ImageClassifier.load('se_resnet20', { weights: 'fashion_mnist' });
    const asked: Record<string, unknown>[] = [];
    const server = http.createServer((request, response) => {
      const send = (status: number, type: string, body: string): void =>
        void response.writeHead(status, { 'content-type': type }).end(body);
      if (request.url === '/')
        send(200, 'text/html', readFileSync(path.join(ROOT, 'dist/serve/page.html'), 'utf8'));
      else if (request.url === '/v2/models')
        send(200, 'application/json', '{"models":[{"name":"se_resnet20"}]}');
      else if (request.url === '/explain') {
        const parts: Buffer[] = [];
        request.on('data', (part: Buffer) => parts.push(part));
        request.on('end', () => {
          const { image, model, ...options } = JSON.parse(Buffer.concat(parts).toString()) as {
            image: string;
            model: string;
          } & ExplainOptions;
          asked.push({ model, ...options });
          classifier.explain(Buffer.from(image, 'base64'), options).then(
            (explanation) =>
              send(200, 'application/json', JSON.stringify({ model, ...explanation.toJSON() })),
            (error: unknown) =>
              send(400, 'application/json', JSON.stringify({ error: (error as Error).message })),
          );
        });
      } else send(404, 'application/json', '{"error":"nothing here"}');
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    try {
      const { port } = server.address() as AddressInfo;
      const { page, problems } = await open(`http://127.0.0.1:${port}/`);
      await page.click('.examples [data-key="example 8"]');
      await waitFor(page, '#labels', 'Sandal');
      await picture(page, 'served');
      await choose(page, 'Method', 'layercam');
      await waitFor(page, '#map figcaption', 'LayerCAM');
      await choose(page, 'Layer', 'layer2.2');
      await waitFor(page, '#map figcaption', 'layer2.2');
      await page.$eval('#excitations details', (details) => (details.open = true));
      await choose(page, 'layer3.2.se', '0');
      await waitFor(page, '#labels', 'was ');
      expect(asked.at(-1)).to.deep.include({
        gates: { 'layer3.2.se': 0 },
        cam: 'layercam',
        layer: 'layer2.2',
      });
      await picture(page, 'what-if');

      const input = await page.$('input[type="file"]');
      const bad = temporary.path('bad.png');
      writeFileSync(bad, 'no image');
      const json = temporary.path('figure.json');
      await input?.uploadFile(json);
      await waitFor(page, '#figure', 'Excitations by class');
      await (await page.$('input[type="file"]'))?.uploadFile(bad);
      await waitFor(page, '#problem', 'image');
      problems.splice(0, problems.length, ...problems.filter((one) => !one.includes('400'))); // Chromium's own line of it
      expect(problems).to.deep.equal([]);
      await page.close();
    } finally {
      server.close();
      await classifier.dispose();
    }
  });
});
