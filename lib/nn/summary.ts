/**
 * `module.summary()`: the table of a module's layers. One forward on zeros, in evaluation mode and without a graph,
 * tells the shapes; the counting of multiply-adds is torchinfo's. Native forwards note their inner calls themselves.
 */
import { inspect } from 'node:util';

import { makeError } from '../errors';
import { zeros } from '../tensor/factories';
import { checkShape, describe } from '../tensor/options';
import { integer, orElse, readOptions } from '../tensor/rules';
import { noGrad, tidy } from '../tensor/scope';
import type { Tensor } from '../tensor/tensor';
import { nodeOf } from './module-tree';
import type { AnyModule } from './native-part';
import { Recorder } from './recorder';

export interface SummaryOptions {
  /** How deep the printed table goes; the rows are always all there. Default 3. */
  depth?: number;
}

/** One module of a summary. */
export interface SummaryRow {
  /** From the root, whose path is ''. */
  readonly path: string;
  /** Python's name of the class ("Conv2d"), or the user's. */
  readonly type: string;
  /** 0 is the root. */
  readonly depth: number;
  /** Of each tensor that the module's last call gave; empty if it was not called. */
  readonly outputShapes: readonly (readonly number[])[];
  /** How often the module was called. */
  readonly calls: number;
  /** The module's own parameters, without its descendants'. */
  readonly parameters: number;
  readonly trainableParameters: number;
  /** Of all its calls, without its descendants', for the whole batch. */
  readonly multiplyAdds: number;
}

/** What a summary asks of a module. */
interface Summarised extends AnyModule {
  parameters(): Tensor[];
  namedParameters(): [string, Tensor][];
  namedModules(): [string, Summarised][];
}

/** What `module.summary()` gives. `console.log` and `String` print it as a table. */
export class ModelSummary {
  readonly totalParameters: number;
  readonly trainableParameters: number;
  /** For the whole batch. */
  readonly multiplyAdds: number;

  /** @internal */
  constructor(
    readonly inputShapes: readonly (readonly number[])[],
    readonly rows: readonly SummaryRow[],
    /** Of the printed table. */
    readonly depth: number,
  ) {
    this.totalParameters = sum(rows.map((row) => row.parameters));
    this.trainableParameters = sum(rows.map((row) => row.trainableParameters));
    this.multiplyAdds = sum(rows.map((row) => row.multiplyAdds));
  }

  toString(): string {
    const lines = this.rows
      .map((row, index) => ({ row, below: this.#below(index) }))
      .filter(({ row }) => row.depth <= this.depth)
      .map(({ row, below }) => this.#line(row, below));
    const header = ['Layer', 'Output shape', 'Parameters', 'Multiply-adds'];
    const widths = header.map((title, column) =>
      Math.max(title.length, ...lines.map((line) => line[column]?.length ?? 0)),
    );
    const print = (cells: readonly string[]): string =>
      cells
        .map((cell, column) =>
          column < 2 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0),
        )
        .join('  ')
        .trimEnd();
    const rule = '-'.repeat(sum(widths) + 2 * (widths.length - 1));
    const frozen = this.totalParameters - this.trainableParameters;
    return [
      print(header),
      rule,
      ...lines.map(print),
      rule,
      `Input ${this.inputShapes.map(shapeText).join(', ')}`,
      `Parameters ${count(this.totalParameters)}: ${count(this.trainableParameters)} trainable, ${count(frozen)} frozen`,
      `Multiply-adds ${count(this.multiplyAdds)}`,
    ].join('\n');
  }

  [inspect.custom](): string {
    return this.toString();
  }

  /** The rows of the descendants. */
  #below(index: number): readonly SummaryRow[] {
    const { depth } = this.rows[index] as SummaryRow;
    const end = this.rows.findIndex((row, other) => other > index && row.depth <= depth);
    return this.rows.slice(index + 1, end === -1 ? undefined : end);
  }

  #line(row: SummaryRow, below: readonly SummaryRow[]): string[] {
    // What the table does not go into is counted where it ends.
    const counted = row.depth === this.depth ? [row, ...below] : [row];
    const name = row.path.slice(row.path.lastIndexOf('.') + 1);
    const parameters = sum(counted.map((one) => one.parameters));
    const trainable = sum(counted.map((one) => one.trainableParameters));
    const adds = sum(counted.map((one) => one.multiplyAdds));
    const repeats = row.calls > 1 ? ` (${row.calls} calls)` : '';
    return [
      `${'  '.repeat(row.depth)}${name === '' ? '' : `${name}: `}${row.type}${repeats}`,
      row.outputShapes.length === 0 ? 'not called' : row.outputShapes.map(shapeText).join(', '),
      parameters === 0 ? '' : `${count(parameters)}${trainable < parameters ? ' (frozen)' : ''}`,
      adds === 0 ? '' : count(adds),
    ];
  }
}

/** @throws (rejects) ERR_SENET_ARG_TYPE, ERR_SENET_SHAPE, and what the module's forward rejects with */
export async function summarise(
  module: Summarised,
  inputShape: unknown,
  options: SummaryOptions | undefined,
): Promise<ModelSummary> {
  const { depth } = readOptions(options, { depth: orElse(3, integer(0)) }, 'summary');
  const shapes = toShapes(inputShape);
  const [like] = module.parameters();
  const recorder = new Recorder();
  await tidy(async () => {
    const inputs = shapes.map((shape) =>
      zeros(shape, like === undefined ? {} : { dtype: like.dtype, device: like.device }),
    );
    await noGrad(() => recorder.run(() => module.forward(...inputs)));
  });
  const rows = module.namedModules().map(([path, one]): SummaryRow => {
    const { shapes: outputShapes, all } = recorder.callsOf(one);
    const own = one
      .namedParameters()
      .filter(([name]) => !name.includes('.'))
      .map(([, tensor]) => tensor);
    const { type } = nodeOf(one);
    return {
      path,
      type,
      depth: path === '' ? 0 : path.split('.').length,
      outputShapes,
      calls: all.length,
      parameters: elements(own),
      trainableParameters: elements(own.filter((tensor) => tensor.requiresGrad)),
      multiplyAdds: sum(all.map((shape) => multiplyAdds(type, elements(own), shape))),
    };
  });
  return new ModelSummary(shapes, rows, depth);
}

function toShapes(given: unknown): number[][] {
  if (!Array.isArray(given)) {
    throw makeError(
      'ERR_SENET_ARG_TYPE',
      `summary: expected the shape of the input (or an array of shapes), got ${describe(given)}`,
    );
  }
  const several = given.length > 0 && given.every((part) => Array.isArray(part));
  return several ? given.map((part) => checkShape(part, 'summary')) : [checkShape(given, 'summary')];
}

/** As torchinfo (layer_info.py, calculate_macs): every parameter once for each place of the output. */
function multiplyAdds(type: string, parameters: number, output: readonly number[]): number {
  const [batch = 1, , ...places] = output;
  if (/^Conv\dd$/.test(type)) return parameters * batch * product(places);
  if (type === 'Linear') return parameters * product(output.slice(0, -1));
  return type === 'BatchNorm2d' ? parameters * batch : 0;
}

function elements(tensors: readonly Tensor[]): number {
  return sum(tensors.map((tensor) => tensor.numel));
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}

function product(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total * number, 1);
}

function shapeText(shape: readonly number[]): string {
  return `[${shape.join(', ')}]`;
}

function count(number: number): string {
  return number.toLocaleString('en-US');
}
