/** What is in an ONNX file, read without the code that writes them: onnx.proto's fields in the wire format. */
import { readFileSync } from 'node:fs';

type Field = readonly [number: number, value: number | Buffer];

export interface OnnxNode {
  readonly operation: string;
  readonly name: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
}

export interface OnnxFile {
  readonly irVersion: number;
  readonly opset: number;
  readonly producer: readonly string[];
  readonly metadata: Readonly<Record<string, string>>;
  readonly nodes: readonly OnnxNode[];
  /** Name -> element type and shape. */
  readonly initializers: ReadonlyMap<string, { readonly type: number; readonly shape: readonly number[] }>;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
}

export function readOnnx(file: string): OnnxFile {
  const model = fieldsOf(readFileSync(file));
  const graph = fieldsOf(only(model, 7));
  return {
    irVersion: number(model, 1),
    opset: number(fieldsOf(only(model, 8)), 2),
    producer: [text(model, 2), text(model, 3)],
    metadata: Object.fromEntries(
      all(model, 14).map((entry) => [text(fieldsOf(entry), 1), text(fieldsOf(entry), 2)]),
    ),
    nodes: all(graph, 1).map((bytes) => {
      const node = fieldsOf(bytes);
      return {
        operation: text(node, 4),
        name: text(node, 3),
        inputs: all(node, 1).map(String),
        outputs: all(node, 2).map(String),
      };
    }),
    initializers: new Map(
      all(graph, 5).map((bytes) => {
        const tensor = fieldsOf(bytes);
        const shape = tensor.flatMap(([field, value]) => (field === 1 ? [value as number] : []));
        return [text(tensor, 8), { type: number(tensor, 2), shape }];
      }),
    ),
    inputs: all(graph, 11).map((value) => text(fieldsOf(value), 1)),
    outputs: all(graph, 12).map((value) => text(fieldsOf(value), 1)),
  };
}

/** The operators of a file, each as often as it stands there. */
export function countOperations({ nodes }: Pick<OnnxFile, 'nodes'>): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { operation } of nodes) counts[operation] = (counts[operation] ?? 0) + 1;
  return counts;
}

function fieldsOf(bytes: Buffer): Field[] {
  const fields: Field[] = [];
  let position = 0;
  const varint = (): number => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = bytes.readUInt8(position++);
      value += BigInt(byte & 127) << shift;
      if (byte < 128) return Number(BigInt.asIntN(64, value));
    }
  };
  while (position < bytes.length) {
    const tag = varint();
    const wireType = tag & 7;
    if (wireType === 0) fields.push([tag >> 3, varint()]);
    else {
      const length = wireType === 2 ? varint() : 4;
      if (position + length > bytes.length || ![2, 5].includes(wireType))
        throw new Error(`broken at ${position}`);
      fields.push([tag >> 3, bytes.subarray(position, position + length)]);
      position += length;
    }
  }
  return fields;
}

function all(fields: readonly Field[], wanted: number): Buffer[] {
  return fields.flatMap(([field, value]) => (field === wanted ? [value as Buffer] : []));
}

function only(fields: readonly Field[], wanted: number): Buffer {
  const [found, ...others] = all(fields, wanted);
  if (found === undefined || others.length > 0) throw new Error(`expected field ${wanted} once`);
  return found;
}

function text(fields: readonly Field[], wanted: number): string {
  return only(fields, wanted).toString();
}

function number(fields: readonly Field[], wanted: number): number {
  return fields.find(([field]) => field === wanted)?.[1] as number;
}
