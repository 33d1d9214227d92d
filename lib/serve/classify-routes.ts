/** `POST /classify` and `POST /explain`: labels with scores, and why, for people and for programs of their own. */
import { performance } from 'node:perf_hooks';

import { isError, isUint8Array, typedArrayKind } from '../brands';
import { httpStatusOf, isSenetError, makeError } from '../errors';
import { readOptions } from '../tensor/rules';
import { Tensor } from '../tensor/tensor';
import type { ImageClassifier } from '../vision/image-classifier';
import type { ItemTimes } from '../vision/pipeline';
import type { Classification } from '../vision/ranking';
import { admit, observe, type Call } from './call';
import { jsonResponse, type InferenceResponse } from './exchange';
import type { ServedModel } from './model-table';
import { IMAGE_PARAMETERS } from './options';
import { readImages, type RequestImage } from './request-images';

/** What `ImageClassifier.explain` takes and gives is its own: what a request says goes through, the answer as JSON. */
interface Explaining {
  explain?: (image: Uint8Array, options: Readonly<Record<string, unknown>>) => Promise<unknown>;
}

interface Answer {
  readonly labels: readonly Classification[];
  readonly times: object;
  readonly explanation?: unknown;
}

export async function classifyRoute(call: Call): Promise<InferenceResponse> {
  const begun = performance.now();
  admit(call.server, call.query.get('model') ?? undefined, call.query.get('version') ?? undefined);
  const { images, list, parameters } = await readRequest(call);
  const { model: name, version, topK, explain } = readOptions(parameters, IMAGE_PARAMETERS, 'classify');
  const model = call.server.models.find(name, version);
  const options = { ...(topK === undefined ? {} : { topK }) };
  const outcomes = await Promise.allSettled(
    images.map((image) => classifyOne(call, model, image, options, explain)),
  );
  const said = { model: model.name, version: model.version };
  if (!list) {
    const [outcome] = outcomes as [PromiseSettledResult<Answer>];
    if (outcome.status === 'rejected') throw outcome.reason;
    const { times, ...rest } = outcome.value;
    return jsonResponse({ ...said, ...rest, times: { total: since(begun), ...times } });
  }
  const results = outcomes.map((outcome, index) => ({
    ...(images[index]?.name === undefined ? {} : { name: images[index].name }),
    ...(outcome.status === 'fulfilled' ? outcome.value : { error: errorOf(outcome.reason) }),
  }));
  return jsonResponse({ ...said, results, times: { total: since(begun) } });
}

async function classifyOne(
  call: Call,
  model: ServedModel,
  { bytes }: RequestImage,
  options: { topK?: number },
  explain: boolean,
): Promise<Answer> {
  let times: readonly ItemTimes[] = [];
  const onTimes = (all: readonly ItemTimes[]): void => void (times = all);
  const { signal } = call;
  const labels = await model.classifier.classify(bytes, { ...options, signal, onTimes });
  observe(call, model, times);
  const explanation = explain ? { explanation: await explainWith(model, bytes, { signal }) } : {};
  return { labels, times: rounded(times[0]), ...explanation };
}

/** `explain` of a classifier, with what the request says beside its image. */
export async function explainRoute(call: Call): Promise<InferenceResponse> {
  const begun = performance.now();
  const { images, list, parameters } = await readRequest(call);
  const [image] = images;
  if (list || image === undefined) throw makeError('ERR_SENET_REQUEST', 'expected one image to explain');
  const { model: name, version, ...options } = parameters as { model?: string; version?: string };
  const checked = readOptions(
    { ...(name === undefined ? {} : { model: name }), ...(version === undefined ? {} : { version }) },
    IMAGE_PARAMETERS,
    'explain',
  );
  const model = call.server.models.find(checked.model, checked.version);
  const explanation = await explainWith(model, image.bytes, { ...options, signal: call.signal });
  return jsonResponse({
    ...{ model: model.name, version: model.version },
    ...(explanation as object),
    times: { total: since(begun) },
  });
}

async function explainWith(
  { name, classifier }: ServedModel,
  bytes: Uint8Array,
  options: Readonly<Record<string, unknown>>,
): Promise<unknown> {
  const explaining: ImageClassifier & Explaining = classifier;
  if (typeof explaining.explain !== 'function')
    throw makeError('ERR_SENET_EXPLAIN', `the classifier of ${name} explains nothing`);
  return plain(await explaining.explain(bytes, options));
}

function readRequest(call: Call): ReturnType<typeof readImages> {
  return readImages(call.request, call.query, call.body, call.server.settings, call.signal);
}

/** Tensors and typed arrays as nested arrays, which JSON has nothing of; what says itself what its JSON is, as that. */
function plain(value: unknown): unknown {
  if (Tensor.isTensor(value)) {
    const array = value.toArray();
    value.dispose();
    return array;
  }
  if (isUint8Array(value)) return Buffer.from(value).toString('base64');
  if (typedArrayKind(value) !== undefined) return Array.from(value as Float32Array);
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== 'object' || value === null) return value;
  const { toJSON } = value as { toJSON?: () => unknown };
  if (typeof toJSON === 'function') return plain(toJSON.call(value));
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, plain(one)]));
}

function errorOf(error: unknown): { code: string | null; status: number; message: string } {
  return {
    code: isSenetError(error) ? error.code : null,
    status: httpStatusOf(error),
    message: isError(error) && httpStatusOf(error) !== 500 ? error.message : 'the server failed',
  };
}

function since(begun: number): number {
  return Math.round((performance.now() - begun) * 1000) / 1000;
}

function rounded(times: ItemTimes | undefined): Partial<Record<keyof ItemTimes, number>> {
  if (times === undefined) return {};
  const { queue, decode, preprocess, wait, network, batch } = times;
  const milliseconds = Object.entries({ queue, decode, preprocess, wait, network });
  return {
    ...Object.fromEntries(milliseconds.map(([name, value]) => [name, Math.round(value * 1000) / 1000])),
    batch,
  };
}
