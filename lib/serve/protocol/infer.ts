/** `POST /v2/models/NAME/infer`: the protocol's request in JSON, with or without binary tensors behind it, and its answer. */
import { isPlainObject } from '../../brands';
import { makeError } from '../../errors';
import { describe } from '../../tensor/options';
import type { ItemTimes } from '../../vision/pipeline';
import { parseJson } from '../body';
import { admit, observe, type Call } from '../call';
import { bytesResponse, headerOf, jsonResponse, type InferenceResponse } from '../exchange';
import type { ServedModel } from '../model-table';
import { OUTPUT_NAMES } from './datatypes';
import { checkInput, imagesOf, type RequestInput } from './input';
import {
  checkClassification,
  checkOutputName,
  outputTensors,
  rawBytes,
  type OutputTensor,
  type WantedOutput,
} from './output';

/** Bytes of the JSON in front of binary tensors; 0 where all of the body is one image. */
const JSON_LENGTH = 'inference-header-content-length';
const MAX_ID = 1000;

interface InferRequest {
  readonly id: string | undefined;
  readonly input: RequestInput;
  readonly outputs: readonly WantedOutput[];
}

export async function inferRoute(call: Call): Promise<InferenceResponse> {
  const { server, parameters, signal } = call;
  admit(server, parameters.model, parameters.version);
  const { id, input, outputs } = parseRequest(await call.body.bytes(), headerOf(call.request, JSON_LENGTH));
  // Anew: it may have been replaced while the body came.
  const model = server.models.find(parameters.model, parameters.version);
  return respond(model, id, await infer(call, model, input, outputs, signal));
}

/** What gRPC does, too. */
async function infer(
  call: Pick<Call, 'server' | 'span'>,
  model: ServedModel,
  input: RequestInput,
  outputs: readonly WantedOutput[],
  signal: AbortSignal,
): Promise<OutputTensor[]> {
  const { images, dispose } = imagesOf(input, call.server.settings.maxImages);
  try {
    let times: readonly ItemTimes[] = [];
    const onTimes = (all: readonly ItemTimes[]): void => void (times = all);
    const predictions = await model.classifier.predict(images, { signal, onTimes });
    observe(call, model, times);
    return outputTensors(predictions, model.classifier.labels, outputs);
  } finally {
    dispose();
  }
}

function parseRequest(body: Buffer, jsonLength: string | undefined): InferRequest {
  if (jsonLength === undefined) return fromJson(parseJson(body), undefined);
  const length = /^\d{1,15}$/.test(jsonLength) ? Number(jsonLength) : Infinity;
  if (length > body.length) {
    throw makeError(
      'ERR_SENET_REQUEST',
      `${JSON_LENGTH}: expected a number of at most ${body.length}, the bytes of the body, got ${describe(jsonLength)}`,
    );
  }
  if (length === 0) {
    const raw = Buffer.alloc(4 + body.length);
    raw.writeUInt32LE(body.length);
    raw.set(body, 4);
    const outputs = OUTPUT_NAMES.map((name) => ({ name, classification: 0, binary: true }));
    return { id: undefined, input: { datatype: 'BYTES', shape: [1], raw }, outputs };
  }
  return fromJson(parseJson(body.subarray(0, length)), body.subarray(length));
}

/** @param binary - what stands behind the JSON */
function fromJson(json: Readonly<Record<string, unknown>>, binary: Buffer | undefined): InferRequest {
  const { id, inputs, outputs } = json;
  const parameters = parametersOf(json, 'the request');
  if (id !== undefined && (typeof id !== 'string' || id.length > MAX_ID))
    throw makeError('ERR_SENET_REQUEST', `id: expected a text of at most ${MAX_ID} characters`);
  if (!Array.isArray(inputs) || inputs.length !== 1 || !isPlainObject(inputs[0])) {
    throw makeError('ERR_SENET_REQUEST', `inputs: expected an array of one tensor, got ${describe(inputs)}`);
  }
  const [input] = inputs as [Record<string, unknown>];
  if (typeof input.name !== 'string')
    throw makeError('ERR_SENET_REQUEST', `inputs[0]: name: expected a text, got ${describe(input.name)}`);
  const checked = checkInput({ datatype: input.datatype, shape: input.shape }, 'inputs[0]');
  const content = contentOf(input, binary);
  return {
    id: id,
    input: { ...checked, ...content },
    outputs: wantedOutputs(outputs, parameters.binary_data_output === true),
  };
}

function contentOf(
  input: Readonly<Record<string, unknown>>,
  binary: Buffer | undefined,
): Pick<RequestInput, 'raw' | 'data'> {
  const { binary_data_size: size, ...others } = parametersOf(input, 'inputs[0]');
  if ('shared_memory_region' in others)
    throw makeError('ERR_SENET_REQUEST', 'inputs[0]: shared memory is not supported');
  if (size === undefined) {
    if (binary !== undefined && binary.length > 0)
      throw makeError(
        'ERR_SENET_REQUEST',
        `${binary.length} bytes stand behind the JSON, and no input has them`,
      );
    if (input.data === undefined)
      throw makeError(
        'ERR_SENET_REQUEST',
        'inputs[0]: expected data, or binary_data_size among its parameters',
      );
    return { data: input.data };
  }
  if (input.data !== undefined)
    throw makeError('ERR_SENET_REQUEST', 'inputs[0]: data and binary_data_size exclude each other');
  const bytes = binary?.length ?? 0;
  if (size !== bytes) {
    throw makeError(
      'ERR_SENET_REQUEST',
      `inputs[0]: binary_data_size: ${bytes} bytes stand behind the JSON, got ${describe(size)}`,
    );
  }
  return { raw: binary ?? Buffer.alloc(0) };
}

/** All outputs, where the request names none. */
function wantedOutputs(given: unknown, binary: boolean): WantedOutput[] {
  if (given === undefined) return OUTPUT_NAMES.map((name) => ({ name, classification: 0, binary }));
  if (!Array.isArray(given) || given.length > OUTPUT_NAMES.length * 2)
    throw makeError('ERR_SENET_REQUEST', `outputs: expected an array of a few, got ${describe(given)}`);
  if (given.length === 0) return wantedOutputs(undefined, binary);
  return given.map((output: unknown) => {
    if (!isPlainObject(output))
      throw makeError('ERR_SENET_REQUEST', `outputs: expected objects, got ${describe(output)}`);
    const parameters = parametersOf(output, 'outputs');
    if ('shared_memory_region' in parameters)
      throw makeError('ERR_SENET_REQUEST', 'outputs: shared memory is not supported');
    return {
      name: checkOutputName(output.name),
      classification: checkClassification(parameters.classification),
      binary: typeof parameters.binary_data === 'boolean' ? parameters.binary_data : binary,
    };
  });
}

function parametersOf(
  { parameters }: Readonly<Record<string, unknown>>,
  where: string,
): Readonly<Record<string, unknown>> {
  if (parameters === undefined || parameters === null) return {};
  if (isPlainObject(parameters)) return parameters;
  throw makeError(
    'ERR_SENET_REQUEST',
    `${where}: parameters: expected an object, got ${describe(parameters)}`,
  );
}

function respond(
  model: ServedModel,
  id: string | undefined,
  tensors: readonly OutputTensor[],
): InferenceResponse {
  const binary = new Map(tensors.filter((one) => one.binary).map((one) => [one, rawBytes(one)]));
  const outputs = tensors.map((tensor) => {
    const { name, datatype, shape, values } = tensor;
    const bytes = binary.get(tensor);
    return {
      ...{ name, datatype, shape },
      ...(bytes === undefined
        ? { data: Array.from<number | string>(values) }
        : { parameters: { binary_data_size: bytes.length } }),
    };
  });
  const answer = {
    ...{ model_name: model.name, model_version: model.version },
    ...(id === undefined ? {} : { id }),
    outputs,
  };
  if (binary.size === 0) return jsonResponse(answer);
  const json = Buffer.from(JSON.stringify(answer));
  return bytesResponse(Buffer.concat([json, ...binary.values()]), 'application/octet-stream', 200, {
    [JSON_LENGTH]: String(json.length),
  });
}
