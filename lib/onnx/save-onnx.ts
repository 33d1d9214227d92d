/**
 * A network as an ONNX file: the options, what goes around the network's own nodes (pixels before them, softmax behind), the
 * metadata, and the writing. `lower` makes the nodes, `graph` the file's bytes.
 */
import type { PortableModel, TensorHandle } from '../binding';
import { writeAtomically } from '../checkpoint/atomic-file';
import { texts } from '../checkpoint/save';
import { makeError } from '../errors';
import { familyOf } from '../models/classifier-model';
import type { Preprocessing } from '../models/preprocessing-record';
import { recordBehind } from '../models/record';
import { earlierCalibration, type QuantizationRecord } from '../nn/calibration';
import { Module, type CompileOptions } from '../nn/module';
import { packageVersion } from '../package-root';
import { printable } from '../printable';
import { throwIfAborted } from '../tensor/abort';
import { checkString, describe } from '../tensor/options';
import {
  boolean,
  fn,
  integer,
  names,
  oneOf,
  optional,
  orElse,
  readOptions,
  signal,
  unchecked,
  type Rules,
  type Values,
} from '../tensor/rules';
import { wrapUntracked, type Tensor } from '../tensor/tensor';
import { checkLabels } from '../vision/labels';
import { moduleClasses } from '../vision/model-facts';
import { chooseRecord, recordChannels } from '../vision/preprocessing-options';
import { PLAIN } from '../models/preprocessing-record';
import { OnnxGraph, type Dimension } from './graph';
import { lower } from './lower';
import { opsetFor, preprocessNodes } from './preprocess';
import type { Message } from './protobuf';

/** Of the weights in the file; what is computed is float32, of 'int8' also integers. */
export type OnnxDType = 'float32' | 'float16' | 'int8';
const DTYPES: readonly OnnxDType[] = ['float32', 'float16', 'int8'];

export interface OnnxOptions {
  /**
   * 'float32' (default); 'float16': half the file, each weight rounded, and float32 again once a runtime has read it;
   * 'int8': a quarter of it, with QuantizeLinear and DequantizeLinear where `compile({ dtype: 'int8' })` has bytes.
   */
  dtype?: OnnxDType;
  /** Of 'int8', as of `compile`: images, options with them, or `CompiledModel.quantization`. */
  calibration?: NonNullable<CompileOptions['calibration']>;
  /** Of 'int8', as of `compile`: paths of modules whose convolutions stay float32. */
  keep?: readonly string[];
  /** Whether a BatchNorm stays a node of its own; else it is folded into its convolution, in float64. Default false. */
  keepBatchNorm?: boolean;
  /** Version of the operator set, 17 to 25. Default: 17, and 18 where `preprocess` resizes. */
  opset?: number;
  /**
   * Whether the file prepares images too: its input is then `pixels`, uint8, N x height x width x 3, as decoders give
   * them. Default false: `input`, float32, N x C x height x width.
   */
  preprocess?: boolean;
  /** Whether it gives `probabilities` in place of `logits`. Default false. */
  softmax?: boolean;
  /** Names of the classes, for the metadata. Default none. */
  labels?: readonly string[];
  /** How images become the input, for the metadata and `preprocess`; over what is usual for the network. */
  preprocessing?: Partial<Preprocessing>;
  /** More text for the metadata. */
  metadata?: Readonly<Record<string, string>>;
  /** Called with the bytes that are written and how many will be. */
  onProgress?: (done: number, total: number) => void;
  /** Rejects at once with ERR_SENET_ABORTED when it aborts; no file is left. */
  signal?: AbortSignal;
}

/** An input or output of a file that was written. */
export interface OnnxValue {
  readonly name: string;
  readonly dtype: 'float32' | 'uint8';
  /** Sizes, or the names of those that are free. */
  readonly shape: readonly (number | string)[];
}

/** What was written. */
export interface OnnxSummary {
  readonly dtype: OnnxDType;
  readonly opset: number;
  /** Length of the file. */
  readonly bytes: number;
  readonly input: OnnxValue;
  readonly output: OnnxValue;
  /** Null if the file has none. */
  readonly labels: number | null;
  readonly preprocessing: Preprocessing | null;
}

/** The opsets whose nodes are written. */
const OPSETS = [17, 25] as const;

/** Protocol Buffers have no longer messages. */
const MOST_BYTES = 2 ** 31 - 1;

const OPTIONS = {
  dtype: orElse('float32', oneOf(DTYPES)),
  calibration: unchecked<NonNullable<CompileOptions['calibration']>>(),
  keep: orElse([], names),
  keepBatchNorm: orElse(false, boolean),
  opset: optional(integer(...OPSETS)),
  preprocess: orElse(false, boolean),
  softmax: orElse(false, boolean),
  labels: optional(checkLabels),
  preprocessing: unchecked<Partial<Preprocessing>>(),
  metadata: orElse({}, texts),
  onProgress: optional(fn<(done: number, total: number) => void>()),
  signal,
} satisfies Rules<OnnxOptions>;

type Given = Values<typeof OPTIONS>;

/**
 * Writes what a module computes in evaluation mode.
 *
 * @param base - how images are prepared where the options do not say; undefined: as is usual for the network
 * @throws (rejects) as `save` of an `.onnx`
 */
export async function saveOnnx(
  module: unknown,
  file: string,
  options: OnnxOptions | undefined,
  where = 'save',
  base?: Preprocessing,
): Promise<OnnxSummary> {
  const given = readOptions(options, OPTIONS, where);
  if (!Module.isModule(module)) {
    throw makeError(
      'ERR_SENET_ARG_TYPE',
      `${where}: an ONNX file says what is computed: expected a Module, got ${describe(module)}`,
    );
  }
  checkTogether(given, where);
  throwIfAborted(given.signal);
  const { labels } = given;
  const classes = moduleClasses(module);
  if (labels !== undefined && classes !== undefined && labels.length !== classes) {
    throw makeError(
      'ERR_SENET_LABELS',
      `${where}: the network has ${classes} classes and there are ${labels.length} labels`,
    );
  }
  // All that is asked of the module is asked now: it may be disposed once its weights were copied.
  const name = recordBehind(module)?.name ?? Module.typeOf(module);
  const usual = base ?? recordBehind(module)?.preprocessing ?? familyOf(module)?.preprocessing ?? undefined;
  const quantization = given.dtype === 'int8' ? await quantizationFor(module, given, where) : undefined;
  const described = await Module.describe(module, { ...given, quantization }, given.signal);
  const tensors = takeTensors(described);
  try {
    const preprocessing = preprocessingFor(described, given, usual, where);
    const ends = {
      logits: classes === undefined ? 'output' : 'logits',
      preprocessing: given.preprocess ? preprocessing : undefined,
    };
    const { graph, input, output } = build(described, given, ends, tensors, where);
    const opset = given.opset ?? (ends.preprocessing === undefined ? 17 : opsetFor(ends.preprocessing));
    const metadata = new Map([
      ['model', name],
      ...(labels === undefined ? [] : [['labels', JSON.stringify(labels)] as const]),
      ...(preprocessing === undefined ? [] : [['preprocessing', JSON.stringify(preprocessing)] as const]),
      ...Object.entries(given.metadata),
    ]);
    const message = graph.finish({ opset, name, producer: ['senet-torch', packageVersion()], metadata });
    await writeModel(message, file, given, where);
    return {
      dtype: given.dtype,
      opset,
      bytes: message.length,
      input,
      output,
      labels: labels?.length ?? null,
      preprocessing: preprocessing ?? null,
    };
  } finally {
    for (const tensor of tensors.values()) tensor.dispose();
  }
}

function checkTogether({ dtype, calibration, keep, keepBatchNorm }: Given, where: string): void {
  if (dtype !== 'int8' && (calibration !== undefined || keep.length > 0)) {
    throw makeError('ERR_SENET_ARG_RANGE', `${where}: calibration and keep are of the dtype 'int8' alone`);
  }
  if (dtype === 'int8' && keepBatchNorm) {
    throw makeError(
      'ERR_SENET_ARG_RANGE',
      `${where}: keepBatchNorm: with the dtype 'int8' every BatchNorm is folded`,
    );
  }
}

/** What bytes mean: what is given, or what `compile` finds out. */
async function quantizationFor(
  module: Module<unknown>,
  { calibration, keep, signal: abort }: Given,
  where: string,
): Promise<QuantizationRecord | undefined> {
  const earlier = earlierCalibration(calibration, where);
  if (earlier !== undefined) return keep.length > 0 ? { ...earlier, keep } : earlier;
  const compiled = await module.compile({
    ...{ dtype: 'int8', keep },
    ...(calibration === undefined ? {} : { calibration }),
    ...(abort === undefined ? {} : { signal: abort }),
  });
  try {
    return compiled.quantization;
  } finally {
    compiled.dispose();
  }
}

function takeTensors({ nodes }: PortableModel): ReadonlyMap<TensorHandle, Tensor> {
  const handles = nodes.flatMap(({ tensors }) => tensors.map(([, handle]) => handle));
  return new Map(handles.map((handle) => [handle, wrapUntracked(handle)]));
}

/** The record of a network of images; undefined where nobody says one. */
function preprocessingFor(
  { values, input }: PortableModel,
  { preprocess, preprocessing: given, opset }: Given,
  usual: Preprocessing | undefined,
  where: string,
): Preprocessing | undefined {
  const channels = values[input]?.channels ?? 0;
  if (given === undefined && usual === undefined) {
    if (!preprocess) return undefined;
    throw makeError(
      'ERR_SENET_ARG_MISSING',
      `${where}: preprocess: this network has no usual preprocessing: give { preprocessing }, with size, mean and std`,
    );
  }
  const isOfImages = channels === 1 || channels === 3;
  if (!isOfImages && given === undefined && !preprocess) return undefined;
  const record = chooseRecord(given, usual ?? PLAIN, channels, `${where}: preprocessing`);
  if (preprocess && recordChannels(record) !== channels) {
    throw makeError(
      'ERR_SENET_ARG_RANGE',
      `${where}: preprocess: the network takes ${channels} channels, and images have 1 (grey) or 3 (colour)`,
    );
  }
  if (preprocess && opset !== undefined && opset < opsetFor(record)) {
    throw makeError(
      'ERR_SENET_ARG_RANGE',
      `${where}: opset: preprocess resizes images, which needs ${opsetFor(record)} or later, got ${opset}`,
    );
  }
  return record;
}

/** The whole graph. */
function build(
  described: PortableModel,
  { softmax }: Given,
  { logits, preprocessing }: { logits: string; preprocessing: Preprocessing | undefined },
  tensors: ReadonlyMap<TensorHandle, Tensor>,
  where: string,
): { graph: OnnxGraph; input: OnnxValue; output: OnnxValue } {
  const { channels = 0 } = described.values[described.input] ?? {};
  const sides = described.onlySize ?? ['height', 'width'];
  const input: OnnxValue =
    preprocessing === undefined
      ? { name: 'input', dtype: 'float32', shape: ['batch', channels, ...sides] }
      : { name: 'pixels', dtype: 'uint8', shape: ['batch', 'height', 'width', 3] };
  const name = softmax ? 'probabilities' : logits;
  const graph = new OnnxGraph([input.name, name]);
  let x = graph.input(input.name, input.dtype, input.shape);
  if (preprocessing !== undefined) x = preprocessNodes(graph, x, preprocessing);
  let y = lower(described, graph, x, (handle) => tensors.get(handle) as Tensor);
  const { isVector = false, channels: classes = 0 } = described.values[described.output] ?? {};
  if (softmax && !isVector) {
    throw makeError('ERR_SENET_ARG_RANGE', `${where}: softmax: the network gives images, and no classes`);
  }
  if (softmax) y = graph.node('Softmax', [y], 'softmax', { axis: 1 });
  else if (y === input.name) y = graph.node('Identity', [y], 'identity');
  const shape: Dimension[] = isVector ? ['batch', classes] : ['batch', classes, 'rows', 'columns'];
  graph.output(y, name, shape);
  return { graph, input, output: { name, dtype: 'float32', shape } };
}

/** @throws (rejects) ERR_SENET_EXPORT, ERR_SENET_FILE_NOT_FOUND, ERR_SENET_FILE, ERR_SENET_ABORTED */
export async function writeModel(
  message: Message,
  file: string,
  { signal: abort, onProgress }: Pick<Given, 'signal' | 'onProgress'>,
  where: string,
): Promise<void> {
  const { length } = message;
  if (length > MOST_BYTES) {
    throw makeError(
      'ERR_SENET_EXPORT',
      `${where}: ${printable(file, 1000)} would have ${length} bytes, and an ONNX file has at most ${MOST_BYTES}: give { dtype: 'float16' } or { dtype: 'int8' }`,
    );
  }
  await writeAtomically(
    file,
    async (sink) => {
      let done = 0;
      let told = 0;
      for (const piece of message.pieces()) {
        throwIfAborted(abort);
        await sink.write(piece);
        done += piece.length;
        if (done - told < PROGRESS_BYTES && done < length) continue;
        told = done;
        onProgress?.(done, length);
      }
    },
    where,
  );
}

const PROGRESS_BYTES = 1024 * 1024;

/** @throws ERR_SENET_ARG_RANGE, ERR_SENET_ARG_TYPE */
export function checkOnnxPath(file: unknown, where: string): string {
  if (isOnnxPath(checkString(file, where))) return file as string;
  throw makeError(
    'ERR_SENET_ARG_RANGE',
    `${where}: expected a path that ends in .onnx, got '${printable(file as string, 1000)}'`,
  );
}

export function isOnnxPath(file: unknown): boolean {
  return typeof file === 'string' && file.toLowerCase().endsWith('.onnx');
}
