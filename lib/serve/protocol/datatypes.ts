/**
 * The Open Inference Protocol, version 2 (github.com/kserve/open-inference-protocol), as this server speaks it: its
 * tensors, and the one input and two outputs of a classifier. What REST and gRPC have of it in common.
 */
import { makeError } from '../../errors';
import type { Preprocessing } from '../../models/preprocessing-record';
import { packageVersion } from '../../package-root';
import { describe } from '../../tensor/options';
import { recordChannels } from '../../vision/preprocessing-options';
import type { ServedModel } from '../model-table';

const PLATFORM = 'senet-torch_libtorch';
/** Of the protocol's optional parts. */
const EXTENSIONS = ['binary_tensor_data', 'classification', 'model_repository'] as const;

/** All that the protocol names, with BF16, which Triton added; the bytes of an element, 0 where they differ. */
const DATATYPES = {
  ...{ BOOL: 1, UINT8: 1, UINT16: 2, UINT32: 4, UINT64: 8, INT8: 1, INT16: 2, INT32: 4, INT64: 8 },
  ...{ FP16: 2, BF16: 2, FP32: 4, FP64: 8, BYTES: 0 },
} as const;

/** What an input may be: encoded images, pixels, or what goes into the network as it is. */
export const INPUT_DATATYPES = ['BYTES', 'UINT8', 'FP32'] as const;
export type InputDatatype = (typeof INPUT_DATATYPES)[number];

const INPUT_NAME = 'input';
/** Softmax probabilities, and what they are made of. */
export const OUTPUT_NAMES = ['scores', 'logits'] as const;
export type OutputName = (typeof OUTPUT_NAMES)[number];

/** Bytes of one element. */
export function elementBytes(datatype: InputDatatype): number {
  return DATATYPES[datatype];
}

/** @throws ERR_SENET_DTYPE (not of an input), ERR_SENET_REQUEST (not of the protocol) */
export function checkInputDatatype(datatype: unknown, where: string): InputDatatype {
  if (INPUT_DATATYPES.includes(datatype as InputDatatype)) return datatype as InputDatatype;
  const known = typeof datatype === 'string' && Object.hasOwn(DATATYPES, datatype);
  throw makeError(
    known ? 'ERR_SENET_DTYPE' : 'ERR_SENET_REQUEST',
    `${where}: datatype: expected BYTES (encoded images), UINT8 (pixels) or FP32 (preprocessed), got ${describe(datatype)}`,
  );
}

/** Height and width of what goes into a network; -1 where any will do. */
function inputSize({ size, crop, pad }: Preprocessing): [height: number, width: number] {
  const [height, width] = crop ?? (Array.isArray(size) ? (size as readonly [number, number]) : [-1, -1]);
  const padded = (side: number): number => (side < 0 ? side : side + 2 * pad);
  return [padded(height), padded(width)];
}

export interface TensorMetadata {
  readonly name: string;
  readonly datatype: string;
  readonly shape: readonly number[];
}

export interface ModelMetadata {
  readonly name: string;
  readonly versions: readonly string[];
  readonly platform: string;
  readonly inputs: readonly TensorMetadata[];
  readonly outputs: readonly TensorMetadata[];
}

export function modelMetadata({ name, classifier }: ServedModel, versions: readonly string[]): ModelMetadata {
  const { preprocessing, labels } = classifier;
  const input = [-1, recordChannels(preprocessing), ...inputSize(preprocessing)];
  const classes = labels.length > 0 ? labels.length : -1;
  return {
    ...{ name, versions, platform: PLATFORM },
    inputs: [{ name: INPUT_NAME, datatype: 'FP32', shape: input }],
    outputs: OUTPUT_NAMES.map((output) => ({ name: output, datatype: 'FP32', shape: [-1, classes] })),
  };
}

export function serverMetadata(): { name: string; version: string; extensions: readonly string[] } {
  return { name: 'senet-torch', version: packageVersion(), extensions: EXTENSIONS };
}
