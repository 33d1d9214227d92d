/** What the tests of the server share: the bundled network, images, and requests to the core as any face makes them. */
import { readFileSync } from 'node:fs';
import path from 'node:path';

import {
  ImageClassifier,
  type Classification,
  type ImageClassifierOptions,
  type InferenceHandler,
} from '../../lib';

export const ASSETS = path.join(__dirname, '..', '..', 'assets');
export const BAG = readFileSync(path.join(ASSETS, 'images', '18-bag.png'));
export const SANDAL = readFileSync(path.join(ASSETS, 'images', '08-sandal.png'));

export function loadBundled(options: ImageClassifierOptions = {}): Promise<ImageClassifier> {
  return ImageClassifier.load('se_resnet20', { weights: 'fashion_mnist', ...options });
}

export interface OutputJson {
  readonly name: string;
  readonly datatype: string;
  readonly shape: readonly number[];
  readonly data: readonly (number | string)[];
}

/** Whatever an answer may have; of one answer some are there. */
export interface AnswerJson {
  readonly error: string;
  readonly code: string | null;
  readonly name: string;
  readonly extensions: readonly string[];
  readonly model: string;
  readonly version: string;
  readonly labels: readonly Classification[];
  readonly results: readonly { name?: string; labels: readonly Classification[]; error?: object }[];
  readonly times: { readonly total: number; readonly decode: number; readonly network: number };
  readonly explanation: unknown;
  readonly inputs: readonly object[];
  readonly outputs: readonly [OutputJson, ...OutputJson[]];
  readonly model_name: string;
  readonly model_version: string;
  readonly id: string;
}

export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly bytes: Buffer;
  /** The JSON of the body, or nothing where it is none. */
  readonly json: AnswerJson;
}

export interface Sent {
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Uint8Array | object;
  readonly signal?: AbortSignal;
}

/** A request to the core; an object as body is JSON. */
export async function ask(
  handler: InferenceHandler,
  method: string,
  url: string,
  { headers = {}, body, signal }: Sent = {},
): Promise<Answer> {
  const json = typeof body === 'object' && !Buffer.isBuffer(body);
  const bytes =
    body === undefined
      ? undefined
      : Buffer.isBuffer(body)
        ? body
        : Buffer.from(json ? JSON.stringify(body) : (body as string));
  const answer = await handler.handle({
    ...{ method, url },
    headers: { ...(json ? { 'content-type': 'application/json' } : {}), ...headers },
    ...(bytes === undefined ? {} : { body: inPieces(bytes) }),
    ...(signal === undefined ? {} : { signal }),
  });
  const text = Buffer.from(answer.body);
  return {
    ...{ status: answer.status, headers: answer.headers, bytes: text },
    json: (/json/.test(answer.headers['content-type'] ?? '') && text.length > 0
      ? JSON.parse(text.toString())
      : undefined) as AnswerJson,
  };
}

async function* inPieces(bytes: Buffer): AsyncGenerator<Uint8Array> {
  for (let place = 0; place < bytes.length; place += 16_384) {
    await Promise.resolve();
    yield bytes.subarray(place, place + 16_384);
  }
}

/** A form with these files and fields. */
export function form(
  files: readonly Uint8Array[],
  fields: Readonly<Record<string, string>> = {},
): { headers: Record<string, string>; body: Buffer } {
  const parts = [
    ...Object.entries(fields).map(([name, value]) =>
      Buffer.from(`--XX\r\ncontent-disposition: form-data; name="${name}"\r\n\r\n${value}\r\n`),
    ),
    ...files.map((bytes, index) =>
      Buffer.concat([
        Buffer.from(
          `--XX\r\ncontent-disposition: form-data; name="image"; filename="${index}.png"\r\ncontent-type: image/png\r\n\r\n`,
        ),
        bytes,
        Buffer.from('\r\n'),
      ]),
    ),
  ];
  return {
    headers: { 'content-type': 'multipart/form-data; boundary=XX' },
    body: Buffer.concat([...parts, Buffer.from('--XX--\r\n')]),
  };
}

/** JSON with bytes behind it, as the protocol's binary extension has it. */
export function binary(
  json: object,
  ...tensors: readonly Uint8Array[]
): { headers: Record<string, string>; body: Buffer } {
  const head = Buffer.from(JSON.stringify(json));
  return {
    headers: {
      'content-type': 'application/octet-stream',
      'inference-header-content-length': String(head.length),
    },
    body: Buffer.concat([head, ...tensors]),
  };
}

/** An element of a BYTES tensor: behind its length. */
export function element(bytes: Uint8Array): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32LE(bytes.length);
  return Buffer.concat([length, bytes]);
}
