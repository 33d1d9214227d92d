/** What the parity tests share: PyTorch's recorded answers, and how ours are compared with them. */
import { readFileSync } from 'node:fs';
import path from 'node:path';

import { expect } from 'chai';

import type { Module } from '../../lib/nn/module';
import { ops } from '../../lib/tensor/ops';
import type { Tensor } from '../../lib/tensor/tensor';

/** Of a tensor: sum and L2 norm in float64, and the first four values. */
export interface Summary {
  shape: number[];
  dtype: string;
  sum: number;
  l2: number;
  head: number[];
}

export interface Values {
  shape: number[];
  values: number[];
}

export function readFixture<T>(name: string): T {
  return JSON.parse(readFileSync(path.join(__dirname, '..', 'fixtures', name), 'utf8')) as T;
}

/** All elements as numbers, in row-major order. */
export function numbers(tensor: Tensor): number[] {
  return Array.from(tensor.toTypedArray(), Number);
}

/** Equal in shape, dtype and first values, and in sum and norm to 1e-10: the order of summation is free. */
export function expectSummary(tensor: Tensor, expected: Summary, what: string): void {
  const elements = tensor.toTypedArray();
  let sum = 0;
  let squares = 0;
  for (const element of elements) {
    const value = Number(element);
    sum += value;
    squares += value * value;
  }
  const l2 = Math.sqrt(squares);
  const head = Array.from(elements.subarray(0, 4), Number);
  expect(tensor.shape, `${what}: shape`).to.deep.equal(expected.shape);
  expect(tensor.dtype, `${what}: dtype`).to.equal(expected.dtype);
  expect(head, `${what}: head`).to.deep.equal(expected.head);
  expect(sum, `${what}: sum`).to.be.closeTo(expected.sum, 1e-10 * Math.max(1, Math.abs(expected.sum)));
  expect(l2, `${what}: norm`).to.be.closeTo(expected.l2, 1e-10 * Math.max(1, expected.l2));
}

/** |actual - expected| / |expected|, L2. */
export function relativeError(actual: Tensor | readonly number[], expected: readonly number[]): number {
  const values = Array.isArray(actual) ? (actual as readonly number[]) : numbers(actual as Tensor);
  expect(values.length).to.equal(expected.length);
  const norm = (all: readonly number[]): number =>
    Math.sqrt(all.reduce((total, value) => total + value * value, 0));
  return norm(values.map((value, index) => value - (expected[index] as number))) / norm(expected);
}

/** Distance of neighbouring numbers from 1 on. */
export const EPSILON = { float32: 2 ** -23, bfloat16: 2 ** -7 } as const;

/**
 * How far a compiled model may be from float64 where an ordinary forward of its dtype is `eager` away. What stands beside the
 * factor: weights, means and factors are each rounded, everywhere to another neighbour, and where an output is a few numbers
 * from a few channels, it is luck whether an ordinary forward is nearer than that.
 */
export function allowedError(dtype: keyof typeof EPSILON, eager: number): number {
  return dtype === 'float32' ? 3 * eager + 2 * EPSILON.float32 : Math.max(1e-2, 2.5 * eager);
}

/** Draws new running statistics for every BatchNorm, in the order of modules(), as the fixtures did. */
export function perturbBatchNorms(model: Module<unknown>, [low, high]: readonly [number, number]): void {
  for (const [name, buffer] of model.namedBuffers()) {
    if (name.endsWith('running_mean')) ops.call('aten::normal_', buffer, 0, 0.1);
    if (name.endsWith('running_var')) ops.call('aten::uniform_', buffer, low, high);
  }
}

/** PyTorch's keyword arguments as options: `num_classes` is `numClasses`. */
export function toOptions(args: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const camelCase = (name: string): string =>
    name.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase());
  return Object.fromEntries(Object.entries(args).map(([name, value]) => [camelCase(name), value]));
}
