/**
 * An ONNX model while it is made: nodes, initialisers, inputs and outputs by name, and the message that they become. Field
 * numbers and codes are those of onnx.proto (github.com/onnx/onnx). Knows no network.
 */
import type { DType } from '../binding';
import { makeError } from '../errors';
import { Message, type LateBytes } from './protobuf';

/** An attribute of a node: an integer, several, text; what is no integer is a `Float`. */
export type Attribute = number | readonly number[] | string | Float;

export class Float {
  constructor(readonly value: number) {}
}

/** The element types that are written. */
export type ElementType = Extract<DType, 'float32' | 'float16' | 'int8' | 'uint8' | 'int32' | 'int64'>;
type ConstantType = Exclude<ElementType, 'float16'>;

const TYPES: Readonly<Record<ElementType, number>> = {
  float32: 1,
  uint8: 2,
  int8: 3,
  int32: 6,
  int64: 7,
  float16: 10,
};

/** The code of an element type, as `to` of a Cast wants it. */
export function typeCode(type: ElementType): number {
  return TYPES[type];
}

/** A size, or the name of one that is not known. */
export type Dimension = number | string;

/** What of a model is not its graph. */
export interface ModelFacts {
  readonly opset: number;
  readonly name: string;
  readonly producer: readonly [name: string, version: string];
  readonly metadata: ReadonlyMap<string, string>;
}

interface Node {
  readonly operation: string;
  readonly name: string;
  inputs: readonly string[];
  output: string;
  readonly attributes: Readonly<Record<string, Attribute>>;
}

/** The oldest that opset 17 came with: the newer ones add nothing that is written here, and old readers take it. */
const IR_VERSION = 8;

export class OnnxGraph {
  readonly #nodes: Node[] = [];
  readonly #initializers: Message[] = [];
  readonly #inputs: Message[] = [];
  readonly #outputs: Message[] = [];
  readonly #names: Set<string>;
  readonly #constants = new Map<string, string>();

  /** @param reserved - names of inputs and outputs, which no other value gets */
  constructor(reserved: readonly string[]) {
    this.#names = new Set(reserved);
  }

  input(name: string, type: ElementType, shape: readonly Dimension[]): string {
    this.#inputs.push(valueInfo(name, type, shape));
    return name;
  }

  /** Calls `value`, which a node gives, `name`, and says that it is an output. */
  output(value: string, name: string, shape: readonly Dimension[]): void {
    for (const node of this.#nodes) {
      if (node.output === value) node.output = name;
      node.inputs = node.inputs.map((input) => (input === value ? name : input));
    }
    this.#outputs.push(valueInfo(name, 'float32', shape));
  }

  /**
   * Adds a node.
   *
   * @param inputs - names that are known; '' is one that is left out
   * @param name - of the node, and of the value that it gives; a number makes it unique
   * @returns the name of the value
   */
  node(
    operation: string,
    inputs: readonly string[],
    name: string,
    attributes: Readonly<Record<string, Attribute>> = {},
  ): string {
    const unknown = inputs.find((input) => input !== '' && !this.#names.has(input));
    if (unknown !== undefined)
      throw makeError('ERR_SENET_INTERNAL', `export: '${name}' reads '${unknown}', which nothing gives`);
    const unique = this.#unique(name);
    this.#nodes.push({ operation, name: unique, inputs, output: unique, attributes });
    return unique;
  }

  /** Adds an initialiser of these bytes; gives its name. */
  tensor(name: string, type: ElementType, shape: readonly number[], data: Uint8Array | LateBytes): string {
    const unique = this.#unique(name);
    const tensor = new Message();
    for (const size of shape) tensor.integer(1, size);
    this.#initializers.push(tensor.integer(2, TYPES[type]).text(8, unique).bytes(9, data));
    return unique;
  }

  /** An initialiser of a few numbers, the same for the same ones. @param shape - default: their count */
  constant(
    type: ConstantType,
    values: readonly number[],
    shape: readonly number[] = [values.length],
    name = 'constant',
  ): string {
    const key = `${type} ${shape.join('x')}: ${values.map((value) => (Object.is(value, -0) ? '-0' : value)).join()}`;
    let constant = this.#constants.get(key);
    if (constant === undefined) {
      constant = this.tensor(name, type, shape, bytesOf(type, values));
      this.#constants.set(key, constant);
    }
    return constant;
  }

  /** The whole file. */
  finish({ opset, name, producer, metadata }: ModelFacts): Message {
    const graph = new Message();
    for (const node of this.#nodes) graph.bytes(1, nodeMessage(node));
    graph.text(2, name);
    for (const initializer of this.#initializers) graph.bytes(5, initializer);
    for (const input of this.#inputs) graph.bytes(11, input);
    for (const output of this.#outputs) graph.bytes(12, output);
    const model = new Message().integer(1, IR_VERSION).text(2, producer[0]).text(3, producer[1]);
    model.bytes(7, graph).bytes(8, new Message().text(1, '').integer(2, opset));
    for (const [key, value] of metadata) model.bytes(14, new Message().text(1, key).text(2, value));
    return model;
  }

  #unique(name: string): string {
    let unique = name;
    for (let number = 2; this.#names.has(unique); number++) unique = `${name}#${number}`;
    this.#names.add(unique);
    return unique;
  }
}

function nodeMessage({ operation, name, inputs, output, attributes }: Node): Message {
  const message = new Message();
  for (const input of inputs) message.text(1, input);
  message.text(2, output).text(3, name).text(4, operation);
  for (const [key, value] of Object.entries(attributes)) {
    message.bytes(5, attributeMessage(new Message().text(1, key), value));
  }
  return message;
}

function attributeMessage(message: Message, value: Attribute): Message {
  if (value instanceof Float) return message.float(2, value.value).integer(20, 1);
  if (typeof value === 'number') return message.integer(3, value).integer(20, 2);
  if (typeof value === 'string') return message.text(4, value).integer(20, 3);
  for (const one of value) message.integer(8, one);
  return message.integer(20, 7);
}

function valueInfo(name: string, type: ElementType, shape: readonly Dimension[]): Message {
  const dimensions = new Message();
  for (const size of shape) {
    const dimension = new Message();
    dimensions.bytes(1, typeof size === 'number' ? dimension.integer(1, size) : dimension.text(2, size));
  }
  const tensor = new Message().integer(1, TYPES[type]).bytes(2, dimensions);
  return new Message().text(1, name).bytes(2, new Message().bytes(1, tensor));
}

/** Little-endian, whatever the machine. */
function bytesOf(type: ConstantType, values: readonly number[]): Uint8Array {
  const sizes = { float32: 4, int32: 4, int64: 8, int8: 1, uint8: 1 };
  const bytes = Buffer.alloc(values.length * sizes[type]);
  for (const [index, value] of values.entries()) {
    const at = index * sizes[type];
    if (type === 'float32') bytes.writeFloatLE(value, at);
    else if (type === 'int32') bytes.writeInt32LE(value, at);
    else if (type === 'int64') bytes.writeBigInt64LE(BigInt(value), at);
    else bytes[at] = value;
  }
  return bytes;
}
