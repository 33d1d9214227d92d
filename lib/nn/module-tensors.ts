/** The parameters and buffers of a module and its descendants: by name, registered, as a state dict and from one. */
import type { TensorHandle } from '../binding';
import { StateDict } from '../checkpoint/state-dict';
import { makeError } from '../errors';
import { binding } from '../native';
import { isFloating } from '../tensor/dtype';
import { checkString } from '../tensor/options';
import { callOperator, handleOf, wrapUntracked, type Tensor } from '../tensor/tensor';
import { matchStateDict, refuseTwin, type LoadStateDictResult } from './load-state-dict';
import { checkName, join, type TreeNode } from './module-tree';
import type { OwnTensor } from './native-part';

export function ownTensors(node: TreeNode): OwnTensor[] {
  return [...node.readFacts().tensors, ...node.registered];
}

/** Of the whole tree, under their full names, in PyTorch's order. */
export function allTensors(node: TreeNode): OwnTensor[] {
  return node
    .walk()
    .flatMap(([path, one]) => ownTensors(one).map((own) => ({ ...own, name: join(path, own.name) })));
}

export function namedTensors(node: TreeNode, kind: OwnTensor['kind']): [string, Tensor][] {
  return allTensors(node)
    .filter((entry) => entry.kind === kind)
    .map(({ name, tensor }) => [name, tensor]);
}

/** Adds a tensor of a module's own, which shares the memory of `data`. @throws as `Module.registerParameter` */
export function registerTensor(
  node: TreeNode,
  name: string,
  data: Tensor,
  kind: OwnTensor['kind'],
  persistent: boolean,
): Tensor {
  const where = kind === 'parameter' ? 'registerParameter' : 'registerBuffer';
  node.checkOpen();
  checkName(checkString(name, `${where}: name`), where);
  const handle = handleOf(data, `${where}: tensor`);
  if (kind === 'parameter' && !isFloating(data.dtype)) {
    throw makeError('ERR_SENET_DTYPE', `${where}: a parameter must be floating, '${name}' is ${data.dtype}`);
  }
  const taken = [...node.children(), ...ownTensors(node)].some((other) => other.name === name);
  if (taken) throw makeError('ERR_SENET_ARG_RANGE', `${where}: ${node.type} has a '${name}' already`);
  const alias = binding.callOperator('aten::detach', [handle], null, false, null) as TensorHandle;
  const tensor = wrapUntracked(alias);
  node.registered.push({ name, kind, persistent, tensor });
  return tensor;
}

/** Shares the module's memory; the module versions are the metadata. */
export function stateDictOf(node: TreeNode): StateDict {
  const versions = node.walk().map(([path, one]) => [path, { version: one.readFacts().version }] as const);
  const state = new StateDict([], new Map(versions));
  for (const { name, tensor, persistent } of allTensors(node))
    if (persistent) state.set(name, callOperator('aten::detach', [tensor]) as Tensor);
  return state;
}

/** All of the tensors, or none. @throws as `Module.loadStateDict` */
export function loadInto(
  node: TreeNode,
  stateDict: StateDict | Map<string, Tensor>,
  strict: boolean,
  assign: boolean,
): LoadStateDictResult {
  const modules = node.walk().map(([path, one]) => {
    const { type, version } = one.readFacts();
    return { path, type, version };
  });
  const own = new Map(
    allTensors(node)
      .filter(({ persistent }) => persistent)
      .map((entry) => [entry.name, entry]),
  );
  const targets = [...own.values()].map(({ name, tensor }) => ({ path: name, tensor }));
  refuseTwin(stateDict, node.module);
  const { names, tensors, result } = matchStateDict(stateDict, targets, modules, strict);
  const pairs = names.map((name, index) => {
    const target = own.get(name) as OwnTensor;
    const source = tensors[index] as Tensor;
    if (assign && target.kind === 'parameter' && !isFloating(source.dtype)) {
      throw makeError(
        'ERR_SENET_DTYPE',
        `loadStateDict: '${name}' is a parameter and cannot adopt a tensor of ${source.dtype}`,
      );
    }
    return [handleOf(target.tensor, name), handleOf(source, name)] as const;
  });
  binding.moduleLoad(
    node.idleHandles(),
    names,
    pairs.map(([target]) => target),
    pairs.map(([, source]) => source),
    assign,
  );
  return result;
}
