/** `POST /classify` and `POST /explain`: labels with scores, and why, for people and for programs of their own. */
import { performance } from 'node:perf_hooks';

import { isError } from '../brands';
import { httpStatusOf, isSenetError, makeError } from '../errors';
import { readOptions } from '../tensor/rules';
import type { ExplanationJson } from '../vision/explanation';
import type { ItemTimes } from '../vision/pipeline';
import type { Classification } from '../vision/ranking';
import { admit, observe, type Call } from './call';
import { jsonResponse, type InferenceResponse } from './exchange';
import type { ServedModel } from './model-table';
import { IMAGE_PARAMETERS } from './options';
import { readImages, type RequestImage } from './request-images';

interface Answer {
  readonly labels: readonly Classification[];
  readonly times: object;
  readonly explanation?: ExplanationJson;
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
  const failures = outcomes.flatMap((outcome) =>
    outcome.status === 'rejected' ? [outcome.reason as unknown] : [],
  );
  // Of no one image: nothing is answered here any more.
  for (const reason of failures)
    if (isSenetError(reason) && reason.code === 'ERR_SENET_CUDA_LOST') throw reason;
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
  // What the caller is not told of a fault of the server, the log is.
  const fault = failures.find((reason) => httpStatusOf(reason) === 500);
  return {
    ...jsonResponse({ ...said, results, times: { total: since(begun) } }),
    ...(fault === undefined ? {} : { error: fault }),
  };
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
  const answer = { labels, times: rounded(times[0]) };
  if (!explain) return answer;
  return { ...answer, explanation: (await model.classifier.explain(bytes, { signal })).toJSON() };
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
  // The classifier looks at what the request says.
  const explanation = await model.classifier.explain(image.bytes, { ...options, signal: call.signal });
  return jsonResponse({
    ...{ model: model.name, version: model.version },
    ...explanation.toJSON(),
    times: { total: since(begun) },
  });
}

function readRequest(call: Call): ReturnType<typeof readImages> {
  return readImages(call.request, call.query, call.body, call.server.settings, call.signal);
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
