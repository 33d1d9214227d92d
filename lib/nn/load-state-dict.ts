/**
 * Which tensors of a state dict go where, and what is missing, unexpected or of another shape. Decides everything
 * before anything is changed.
 */
import { describeKeys, sharedPrefix } from '../checkpoint/find';
import { StateDict } from '../checkpoint/state-dict';
import { isMap } from '../brands';
import { makeError } from '../errors';
import { describe } from '../tensor/options';
import { callOperator, Tensor } from '../tensor/tensor';

export interface LoadStateDictOptions {
  strict?: boolean;
  assign?: boolean;
}

export interface LoadStateDictResult {
  missingKeys: string[];
  unexpectedKeys: string[];
}

/** A key whose shape differs. */
export interface MismatchedKey {
  key: string;
  expected: readonly number[];
  actual: readonly number[];
}

interface ModuleFacts {
  readonly path: string;
  readonly type: string;
  readonly version: number;
}

interface Target {
  readonly path: string;
  readonly tensor: Tensor;
}

interface Match {
  names: string[];
  tensors: Tensor[];
  result: LoadStateDictResult;
}

/** @throws ERR_SENET_STATE_DICT, ERR_SENET_ARG_TYPE */
export function matchStateDict(
  given: StateDict | Map<string, Tensor>,
  targets: readonly Target[],
  modules: readonly ModuleFacts[],
  strict: boolean,
): Match {
  if (!isMap(given)) {
    throw makeError(
      'ERR_SENET_ARG_TYPE',
      `loadStateDict: expected a StateDict or a Map, got ${describe(given)}`,
    );
  }
  const expected = new Map(targets.map(({ path, tensor }) => [path, tensor]));
  const types = modules.map(({ type }) => type);
  const aliases = keyAliasesOf(types, (key) => expected.get(key)?.shape);
  const optional = optionalKeys(given, modules);
  const unexpectedKeys: string[] = [];
  const mismatchedKeys: MismatchedKey[] = [];
  const found = new Map<string, Tensor>();
  const taken = new Set<string>();
  for (const [key, tensor] of given) {
    const name = ownName(expected, key, aliases);
    const target = expected.get(name);
    // Of a key that is there in several spellings the others are too many.
    if (target === undefined || (name !== key && (given.has(name) || taken.has(name)))) {
      unexpectedKeys.push(key);
      continue;
    }
    taken.add(name);
    if (!Tensor.isTensor(tensor)) {
      throw makeError(
        'ERR_SENET_ARG_TYPE',
        `loadStateDict: expected a Tensor at '${key}', got ${describe(tensor)}`,
      );
    }
    const shapes = { expected: target.shape, actual: tensor.shape };
    if (isOldScalar(shapes.expected, shapes.actual)) {
      found.set(name, callOperator('aten::select.int', [tensor, 0, 0]) as Tensor);
    } else if (name !== key && isMatrixOf(shapes.expected, shapes.actual)) {
      found.set(name, callOperator('aten::view', [tensor, [...shapes.expected]]) as Tensor);
    } else if (!loadable(shapes.expected, shapes.actual)) mismatchedKeys.push({ key, ...shapes });
    else found.set(name, tensor);
  }
  const missingKeys = [...expected.keys()].filter((key) => !taken.has(key) && !optional.has(key));
  if (mismatchedKeys.length > 0 || (strict && missingKeys.length + unexpectedKeys.length > 0)) {
    const hint = foreignHint(given, expected) ?? prefixHint([...given.keys()], expected);
    throw makeError('ERR_SENET_STATE_DICT', explain(missingKeys, unexpectedKeys, mismatchedKeys, hint), {
      details: { missingKeys, unexpectedKeys, mismatchedKeys },
    });
  }
  return { names: [...found.keys()], tensors: [...found.values()], result: { missingKeys, unexpectedKeys } };
}

/**
 * `num_batches_tracked` came with version 2 of BatchNorm: a BatchNorm whose own metadata is absent or older may lack it
 * and keeps its value (torch/nn/modules/batchnorm.py, _load_from_state_dict).
 */
function optionalKeys(given: StateDict | Map<string, Tensor>, modules: readonly ModuleFacts[]): Set<string> {
  const metadata = given instanceof StateDict ? given.metadata : undefined;
  const keys = modules
    .filter(({ path, version }) => version >= 2 && (metadata?.get(path)?.version ?? 1) < 2)
    .map(({ path }) => `${path === '' ? '' : `${path}.`}num_batches_tracked`);
  return new Set(keys);
}

/** What matches the first becomes the second, as `String.replace` does it. */
export type KeyAlias = readonly [from: RegExp, to: string | ((found: string, ...groups: string[]) => string)];

/** The shapes of weights by the module's own keys. */
export type ShapeOf = (key: string) => readonly number[] | undefined;

/** Another spelling of keys in files. */
export interface Spelling {
  readonly aliases: readonly KeyAlias[];
  /** Of which networks, by the shapes of weights of their first block. Default: of all that have the keys. */
  readonly isOf?: (shapeOf: ShapeOf) => boolean;
}

/** Type of a module -> the other spellings of its keys. Filled by the files that define the classes. */
const spellingsByType = new Map<string, readonly Spelling[]>();

/** Says how files spell the keys of modules of a type, and of what contains one. */
export function registerSpellings(type: string, spellings: readonly Spelling[]): void {
  spellingsByType.set(type, spellings);
}

/** The other spellings of keys that a module with parts of these types, and weights of these shapes, knows. */
export function keyAliasesOf(types: Iterable<string>, shapeOf: ShapeOf): readonly KeyAlias[] {
  const all = new Set<KeyAlias>();
  for (const type of new Set(types)) {
    for (const { aliases, isOf } of spellingsByType.get(type) ?? []) {
      if (isOf?.(shapeOf) !== false) for (const alias of aliases) all.add(alias);
    }
  }
  return [...all];
}

/** The key in the model's own spelling. */
export function respell(key: string, aliases: readonly KeyAlias[]): string {
  // `replace` takes either, but is not typed so.
  return aliases.reduce((name, [from, to]) => name.replace(from, to as string), key);
}

/** The name under which a model that has these names keeps what a file calls `key`. */
export function ownName(
  expected: { has(key: string): boolean },
  key: string,
  aliases: readonly KeyAlias[],
): string {
  return expected.has(key) ? key : respell(key, aliases);
}

/** What PyTorch 0.3 saved of a tensor without dimensions: its first element is loaded, as PyTorch does. */
function isOldScalar(expected: readonly number[], actual: readonly number[]): boolean {
  return expected.length === 0 && actual.length === 1 && actual[0] !== 0;
}

/** A Linear's weight where another framework's file has the one of a 1 x 1 convolution. */
function isMatrixOf(expected: readonly number[], actual: readonly number[]): boolean {
  return actual.length === 2 && loadable(expected, [...actual, 1, 1]);
}

type Shapes = ReadonlyMap<string, readonly number[]>;

/** What is known of networks. */
interface NetworkKnowledge {
  /** Says whose keys these are, if they are another network's. */
  foreign(given: Shapes, expected: Shapes): string | null;
  /** What is wrong with weights whose file's metadata names another network with the module's keys and shapes. */
  twin(module: object, metadata: ReadonlyMap<string, string>): string | null;
}

let networks: NetworkKnowledge = { foreign: () => null, twin: () => null };

/** Tells which networks state dicts are for. */
export function describeNetworks(knowledge: NetworkKnowledge): void {
  networks = knowledge;
}

/** @throws ERR_SENET_STATE_DICT for weights whose file says that they are of another network with these keys and shapes */
export function refuseTwin(given: StateDict | Map<string, Tensor>, module: object): void {
  if (!(given instanceof StateDict)) return;
  const problem = networks.twin(module, given.fileMetadata);
  if (problem !== null)
    throw makeError('ERR_SENET_STATE_DICT', `loadStateDict: the file of the state dict ${problem}`);
}

function foreignHint(
  given: ReadonlyMap<string, unknown>,
  expected: ReadonlyMap<string, Tensor>,
): string | null {
  const shapes = (state: ReadonlyMap<string, unknown>): Shapes =>
    new Map([...state].flatMap(([key, value]) => (Tensor.isTensor(value) ? [[key, value.shape]] : [])));
  return networks.foreign(shapes(given), shapes(expected));
}

/** What the keys have in common, where that may be why they do not fit. */
function prefixHint(keys: readonly string[], expected: ReadonlyMap<string, unknown>): string | null {
  const shared = sharedPrefix(keys);
  const own = sharedPrefix([...expected.keys()]);
  if (shared !== '' && shared !== own) {
    const without = keys.some((key) => expected.has(key.slice(shared.length)));
    const advice = `consumePrefixInStateDictIfPresent(stateDict, '${shared}') or load(file, { prefix: '${shared}' })`;
    return `${describeKeys(keys)}${without ? `, which ${advice} takes away` : ''}`;
  }
  return own !== '' && shared !== own
    ? `all ${expected.size} keys of the module begin with '${own}', and those of the state dict do not`
    : null;
}

function loadable(expected: readonly number[], actual: readonly number[]): boolean {
  return expected.length === actual.length && expected.every((size, index) => size === actual[index]);
}

function explain(
  missing: readonly string[],
  unexpected: readonly string[],
  mismatched: readonly MismatchedKey[],
  hint: string | null,
): string[] {
  const lines = ['the state dict does not fit the module; nothing was loaded.'];
  if (hint !== null) lines.push(`  ${hint}`);
  if (missing.length > 0) lines.push(`  missing (${missing.length}): ${missing.join(', ')}`);
  if (unexpected.length > 0) lines.push(`  unexpected (${unexpected.length}): ${unexpected.join(', ')}`);
  for (const { key, expected, actual } of mismatched) {
    lines.push(`  shape of '${key}': expected [${expected.join(', ')}], got [${actual.join(', ')}]`);
  }
  return lines;
}
