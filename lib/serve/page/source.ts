/**
 * Where explanations come from: the page's own data, or the server that it came from. Knows no element.
 */
import type { PageData, PageImage } from '../page-data';
import type { ExplanationJson } from '../../vision/explanation';
import type { Classification } from '../../vision/ranking';
import { CAM_METHODS } from '../../explain/cam-methods';
import { gridOf, type Grid } from './pixels';

/** What the gates of a layer are instead: as `gates` of `explain`. */
export type Change = number | 'mean' | (number | null)[];

export interface Request {
  readonly method: string;
  /** Null is the default. */
  readonly layer: string | null;
  readonly target: number | null;
  readonly gates: Readonly<Record<string, Change>>;
}

export interface Shown {
  readonly name: string;
  readonly explanation: ExplanationJson;
  readonly map: {
    readonly grid: Grid;
    readonly layer: string;
    readonly method: string;
    readonly target: number;
  } | null;
  /** Without changed gates. */
  readonly before: readonly Classification[];
}

export interface Choices {
  readonly methods: readonly string[];
  readonly layers: readonly string[];
  readonly targets: readonly { readonly index: number; readonly label: string }[];
}

/** An image that is explained. */
export interface Subject {
  readonly name: string;
  show(request: Request, signal: AbortSignal): Promise<Shown>;
  choices(shown: Shown): Choices;
  /** Of a page with data: the labels with each layer's gates set to 1 and to their mean. */
  readonly whatIf: PageImage['whatIf'] | null;
}

/** An image of the page's own data. */
export class StoredImage implements Subject {
  readonly #image: PageImage;

  constructor(image: PageImage) {
    this.#image = image;
  }

  get name(): string {
    return this.#image.name;
  }

  get whatIf(): PageImage['whatIf'] {
    return this.#image.whatIf;
  }

  show({ method, layer, target }: Request): Promise<Shown> {
    const { explanation, maps, name } = this.#image;
    const wantedLayer = layer ?? explanation.layer;
    const wantedTarget = target ?? explanation.target.index;
    const fits = maps.filter((map) => map.layer === wantedLayer && map.target === wantedTarget);
    const found = fits.find((map) => map.method === method) ?? fits[0];
    return Promise.resolve({
      ...{ name, explanation, before: explanation.labels },
      map: found === undefined ? null : { ...found, grid: found },
    });
  }

  choices(): Choices {
    const { maps, explanation } = this.#image;
    const labelOf = (index: number): string =>
      [explanation.target, ...explanation.labels].find((one) => one.index === index)?.label ?? String(index);
    return {
      methods: [...new Set(maps.map(({ method }) => method))],
      layers: [...new Set(maps.map(({ layer }) => layer))],
      targets: [...new Set(maps.map(({ target }) => target))].map((index) => ({
        index,
        label: labelOf(index),
      })),
    };
  }
}

const CHANNELS = 6;

/** An image that the server is asked about. */
export class ServedImage implements Subject {
  readonly whatIf = null;
  readonly #image: Promise<string>;
  readonly #model: string;
  #before: readonly Classification[] | undefined;
  #layers: readonly string[] = [];

  constructor(
    readonly name: string,
    file: Blob,
    model: string,
  ) {
    this.#model = model;
    this.#image = base64Of(file);
  }

  async show({ method, layer, target, gates }: Request, signal: AbortSignal): Promise<Shown> {
    const changed = Object.keys(gates).length > 0;
    const body = {
      image: await this.#image,
      model: this.#model,
      // A map of the changed network is of its gradients.
      cam: changed && method === 'scorecam' ? 'gradcam' : method,
      channels: CHANNELS,
      ...(layer === null ? {} : { layer }),
      ...(target === null ? {} : { target }),
      ...(changed ? { gates } : {}),
    };
    const answer = await ask<ExplanationJson>('explain', {
      ...{ method: 'POST', body: JSON.stringify(body), signal },
      headers: { 'content-type': 'application/json' },
    });
    if (!changed) this.#before = answer.labels;
    const places = answer.excitations?.map(({ path }) => path.replace(/\.?[^.]*$/, '')).filter(Boolean) ?? [];
    this.#layers = [...new Set([...places, ...(answer.layer === null ? [] : [answer.layer])])];
    const { map, layerMap } = answer;
    const grid = layerMap ?? (map === null ? null : gridOf(map));
    return {
      ...{ name: this.name, explanation: answer, before: this.#before ?? answer.labels },
      map:
        grid === null
          ? null
          : { grid, layer: answer.layer ?? '', method: answer.method ?? '', target: answer.target.index },
    };
  }

  choices({ explanation: { labels, target } }: Shown): Choices {
    const targets = labels.some(({ index }) => index === target.index) ? labels : [...labels, target];
    return { methods: CAM_METHODS, layers: this.#layers, targets };
  }
}

/** The server wants a key, or another one. */
export class KeyWanted extends Error {}

/** Of this server, for as long as the page is open: it is written nowhere. */
let key: string | undefined;

export function useKey(given: string): void {
  key = given;
}

/** Asks the server that the page came from. */
async function ask<T>(address: string, init: RequestInit = {}): Promise<T> {
  const headers = new Headers(init.headers);
  if (key !== undefined) headers.set('authorization', `Bearer ${key}`);
  const response = await fetch(address, { ...init, headers });
  if (response.status === 401)
    throw new KeyWanted(key === undefined ? 'This server wants a key.' : 'The server refuses this key.');
  const answer = (await response.json().catch(() => ({}))) as T & { error?: string | { message?: string } };
  if (response.ok) return answer;
  const { error } = answer;
  const reason = typeof error === 'string' ? error : error?.message;
  throw new Error(reason ?? `the server answered ${response.status} ${response.statusText}`);
}

/** Names of the models that the server has. */
export async function servedModels(): Promise<string[]> {
  const { models } = await ask<{ models?: (string | { name: string })[] }>('v2/models');
  return (models ?? []).map((model) => (typeof model === 'string' ? model : model.name));
}

async function base64Of(file: Blob): Promise<string> {
  const bytes = new Uint8Array(await file.arrayBuffer());
  let text = '';
  for (let start = 0; start < bytes.length; start += 0x8000)
    text += String.fromCharCode(...bytes.subarray(start, start + 0x8000));
  return btoa(text);
}

export function readData(): PageData | null {
  const text = document.getElementById('data')?.textContent ?? '';
  return text === '' ? null : (JSON.parse(text) as PageData);
}
