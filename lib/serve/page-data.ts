/**
 * What the page shows, as JSON inside a copy of it. The page itself (`page/`) is one file that the build makes; served as it
 * is, it asks its server instead.
 */
import { readFile } from 'node:fs/promises';
import path from 'node:path';

import { fileError, makeError } from '../errors';
import type { ClassExcitations, GateStatistics } from '../explain/class-statistics';
import { PACKAGE_ROOT } from '../package-root';
import { printable } from '../printable';
import type { ExplanationJson } from '../vision/explanation';
import type { Classification } from '../vision/ranking';

/** A class activation map in the size of its layer, row by row, from 0 to 1. */
export interface PageMap {
  readonly layer: string;
  readonly method: string;
  /** Index of the class. */
  readonly target: number;
  readonly width: number;
  readonly height: number;
  readonly data: readonly number[];
}

/** The labels where the gates of one SE layer are all 1, or the mean of the image's. */
export interface PageWhatIf {
  readonly layer: string;
  readonly change: 1 | 'mean';
  readonly labels: readonly Classification[];
}

export interface PageImage {
  readonly name: string;
  readonly explanation: ExplanationJson;
  readonly maps: readonly PageMap[];
  readonly whatIf: readonly PageWhatIf[];
}

interface StatisticsJson {
  readonly mean: readonly number[];
  readonly deviation: readonly number[];
}

/** What taking each channel of a layer away does to the probability of the right class. */
export interface AblationJson {
  readonly layer: string;
  readonly images: number;
  readonly baseline: number;
  readonly drops: readonly number[];
}

/** `ClassExcitations` with plain arrays: what `senet-torch excitations --json` prints. */
export interface ClassExcitationsJson {
  readonly classes: ClassExcitations['classes'];
  readonly layers: readonly {
    readonly path: string;
    readonly name: string | null;
    readonly channels: number;
    readonly all: StatisticsJson;
    readonly classes: readonly StatisticsJson[];
    readonly selectivity: readonly number[];
  }[];
  readonly ablation: readonly AblationJson[];
}

export interface PageData {
  /** Of this package. */
  readonly version: string;
  readonly model: string;
  readonly images: readonly PageImage[];
  readonly figure: ClassExcitationsJson | null;
}

/** Where the build puts the page. */
const PAGE_FILE = path.join(PACKAGE_ROOT, 'dist', 'serve', 'page.html');

const PLACE = '<script type="application/json" id="data"></script>';

/**
 * The page with data inside.
 *
 * @throws (rejects) ERR_SENET_NO_BUILD where the page was not built
 */
export async function makePage(data: PageData): Promise<string> {
  let page: string;
  try {
    page = await readFile(PAGE_FILE, 'utf8');
  } catch (cause) {
    throw makeError(
      'ERR_SENET_NO_BUILD',
      `${PAGE_FILE}: there is no page; build it with node scripts/bundle.js`,
      {
        cause,
      },
    );
  }
  const [before, after] = page.split(PLACE);
  if (before === undefined || after === undefined)
    throw makeError('ERR_SENET_INTERNAL', `${PAGE_FILE} has no place for data`);
  // Inside a script element no text may end it.
  const json = JSON.stringify(data).replaceAll('<', '\\u003c');
  return `${before}${PLACE.replace('><', () => `>${json}<`)}${after}`;
}

const DIGITS = 1e5;

export function classExcitationsToJson(
  { classes, layers }: ClassExcitations,
  ablation: readonly AblationJson[] = [],
): ClassExcitationsJson {
  return {
    classes,
    layers: layers.map(({ path: place, name, channels, all, classes: each, selectivity }) => ({
      ...{ path: place, name, channels },
      all: statisticsToJson(all),
      classes: each.map(statisticsToJson),
      selectivity: round(selectivity),
    })),
    ablation,
  };
}

function statisticsToJson({ mean, deviation }: GateStatistics): StatisticsJson {
  return { mean: round(mean), deviation: round(deviation) };
}

/** Five digits behind the point. */
export function round(values: Float32Array): number[] {
  return Array.from(values, (value) => Math.round(value * DIGITS) / DIGITS);
}

/** A row for each channel of each layer and class, 'all' among them. */
export function classExcitationsToCsv({ classes, layers }: ClassExcitationsJson): string {
  const lines = ['layer,name,channel,class,mean,deviation,selectivity'];
  const labels = ['all', ...classes.map(({ label }) => label)].map(csvText);
  for (const { path: place, name, channels, all, classes: each, selectivity } of layers) {
    for (const [index, { mean, deviation }] of [all, ...each].entries()) {
      for (let channel = 0; channel < channels; channel++) {
        const numbers = [mean[channel], deviation[channel], selectivity[channel]].join(',');
        lines.push(`${place},${name ?? ''},${channel},${labels[index] ?? ''},${numbers}`);
      }
    }
  }
  return `${lines.join('\n')}\n`;
}

/** Spreadsheets take what begins with some characters for a formula. */
function csvText(text: string): string {
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/**
 * What `senet-torch excitations --json` wrote.
 *
 * @throws (rejects) ERR_SENET_FILE_NOT_FOUND, ERR_SENET_FILE; ERR_SENET_DATA_FORMAT for anything else
 */
export async function readFigure(file: string): Promise<ClassExcitationsJson> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (cause) {
    throw fileError(printable(file, 1000), cause, 'no such file');
  }
  try {
    const figure = JSON.parse(text) as Partial<ClassExcitationsJson>;
    if (Array.isArray(figure.classes) && Array.isArray(figure.layers) && Array.isArray(figure.ablation))
      return figure as ClassExcitationsJson;
  } catch {
    // said below
  }
  throw makeError(
    'ERR_SENET_DATA_FORMAT',
    `${printable(file, 1000)}: expected what senet-torch excitations --json prints`,
  );
}
