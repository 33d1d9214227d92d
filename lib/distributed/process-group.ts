/**
 * The group of processes that this one trains with, as `torch.distributed`: LibTorch's c10d does the work
 * (`native/distributed`). A process is one rank of one group.
 */
import type { Device, GroupHandle } from '../binding';
import { makeError } from '../errors';
import { binding, shared } from '../native';
import { onAbort, throwIfAborted } from '../tensor/abort';
import { runJob } from '../tensor/jobs';
import { describe } from '../tensor/options';
import { oneOf, orElse, optionsReader, readOptions, signal, integer } from '../tensor/rules';
import { currentScope } from '../tensor/scope';
import { handleOf, Tensor, wrapTensor } from '../tensor/tensor';
import type { TensorHandle } from '../binding';
import { findRendezvous, RENDEZVOUS, type RendezvousOptions } from './rendezvous';

/** What carries the data. */
export type DistributedBackend = 'gloo' | 'nccl';

export interface InitProcessGroupOptions extends RendezvousOptions {
  /**
   * 'gloo' over TCP; or 'nccl', which carries tensors of GPUs from device to device (gloo those of the processor), with one
   * GPU for each process. Default 'gloo'.
   */
  backend?: DistributedBackend;
  /** Gives up connecting. */
  signal?: AbortSignal;
}

/** How `allReduce` makes one value of all: 'avg' is the sum divided by the number of processes. */
export type ReduceOp = 'sum' | 'avg' | 'product' | 'min' | 'max';

interface Joined {
  readonly handle: GroupHandle;
  readonly rank: number;
  readonly worldSize: number;
}

const state = shared('processGroup', (): { joined: Joined | null } => ({ joined: null }));

const INIT = { backend: orElse('gloo', oneOf(['gloo', 'nccl'])), ...RENDEZVOUS, signal };
const readReduceOptions = optionsReader({
  op: orElse('sum', oneOf(['sum', 'avg', 'product', 'min', 'max'])),
  signal,
});
const readBroadcastOptions = optionsReader({ src: orElse(0, integer(0)), signal });
const readSignal = optionsReader({ signal });

/**
 * Joins the group, as `torch.distributed.init_process_group`: settles when all processes are there. Which one this is and
 * where they meet say the environment variables of `torchrun` (`RANK`, `WORLD_SIZE`, `MASTER_ADDR`, `MASTER_PORT`) or the
 * options. Processes of Python's PyTorch may be in the group.
 *
 * @example
 * await initProcessGroup();
 * const loss = tensor([1.5]);
 * await allReduce(loss, { op: 'avg' });
 * await destroyProcessGroup();
 * @throws (rejects) ERR_SENET_ARG_MISSING (a variable that is not set), ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE,
 *   ERR_SENET_UNKNOWN_OPTION; ERR_SENET_DISTRIBUTED (not all came in time, this process is in a group already);
 *   ERR_SENET_DISTRIBUTED_UNAVAILABLE (the backend is not there); ERR_SENET_ABORTED
 */
export async function initProcessGroup(options?: InitProcessGroupOptions): Promise<void> {
  const where = 'initProcessGroup';
  const { backend, signal: abort, ...given } = readOptions(options, INIT, where);
  checkBackend(backend, where);
  const { host, port, rank, worldSize, rank0HostsStore, timeout } = findRendezvous(given, process.env, where);
  throwIfAborted(abort);
  // Not the job's own signal: it settles when this process may join another group.
  const settled = abort === undefined ? () => undefined : onAbort(abort, () => binding.stopConnecting());
  try {
    const handle = (await runJob(() =>
      binding.connectGroup(backend, host, port, rank, worldSize, rank0HostsStore, timeout),
    )) as GroupHandle;
    state().joined = { handle, rank, worldSize };
  } catch (error) {
    throwIfAborted(abort);
    throw error;
  } finally {
    settled();
  }
}

function checkBackend(backend: DistributedBackend, where: string): void {
  const absence = binding.distributedAbsence(backend);
  if (absence !== '')
    throw makeError('ERR_SENET_DISTRIBUTED_UNAVAILABLE', `${where}: backend '${backend}': ${absence}`);
}

/** @internal The backend that serves tensors of this device best. */
export function backendFor(device: Device): DistributedBackend {
  return device !== 'cpu' && binding.distributedAbsence('nccl') === '' ? 'nccl' : 'gloo';
}

/** Leaves the group, as `torch.distributed.destroy_process_group`: collectives that wait here are rejected. */
export async function destroyProcessGroup(): Promise<void> {
  const { handle } = requireGroup('destroyProcessGroup');
  state().joined = null;
  await runJob(() => binding.destroyGroup(handle));
}

/** Whether this process is in a group. */
export function isInitialized(): boolean {
  return state().joined !== null;
}

/** Of this process, from 0. @throws ERR_SENET_DISTRIBUTED outside of a group */
export function getRank(): number {
  return requireGroup('getRank').rank;
}

/** Processes in the group. @throws ERR_SENET_DISTRIBUTED outside of a group */
export function getWorldSize(): number {
  return requireGroup('getWorldSize').worldSize;
}

/** The group of this process. @throws ERR_SENET_DISTRIBUTED */
export function requireGroup(where: string): Joined {
  const { joined } = state();
  if (joined !== null) return joined;
  throw makeError(
    'ERR_SENET_DISTRIBUTED',
    `${where}: this process is in no group: await initProcessGroup() first`,
  );
}

/**
 * Makes the tensor what all processes' together give, in place, as `torch.distributed.all_reduce`. Every process calls
 * it, in the same order as all other collectives, with a tensor of the same shape and dtype.
 *
 * @throws (rejects) ERR_SENET_RANK_LOST, naming the rank that has ended or failed; ERR_SENET_DISTRIBUTED (the timeout, or
 *   no group); ERR_SENET_DTYPE; ERR_SENET_ABORTED (the others go on with this process's part)
 */
export async function allReduce(
  tensor: Tensor,
  options?: { op?: ReduceOp; signal?: AbortSignal },
): Promise<void> {
  const { op, signal: abort } = readReduceOptions(options, 'allReduce');
  const { handle } = requireGroup('allReduce');
  const given = handleOf(tensor, 'allReduce: tensor');
  if (op === 'avg' && !tensor.dtype.includes('float'))
    throw makeError('ERR_SENET_DTYPE', `allReduce: op 'avg' needs a floating dtype, got ${tensor.dtype}`);
  await runJob(() => binding.groupAllReduce(handle, given, op), abort);
}

/**
 * Gives the tensors of all processes the values of rank `src`, in place, as `torch.distributed.broadcast`.
 *
 * @param tensors - one, or several of one dtype, which go together
 * @param options.src - default 0
 * @throws (rejects) as `allReduce`
 */
export async function broadcast(
  tensors: Tensor | readonly Tensor[],
  options?: { src?: number; signal?: AbortSignal },
): Promise<void> {
  const { src, signal: abort } = readBroadcastOptions(options, 'broadcast');
  const { handle } = requireGroup('broadcast');
  const list = Tensor.isTensor(tensors) ? [tensors] : tensors;
  if (!Array.isArray(list))
    throw makeError(
      'ERR_SENET_ARG_TYPE',
      `broadcast: expected a Tensor or an array, got ${describe(tensors)}`,
    );
  const handles = list.map((tensor, index) => handleOf(tensor, `broadcast: tensors[${index}]`));
  await runJob(() => binding.groupBroadcast(handle, handles, src), abort);
}

/**
 * The tensors of all processes in the order of their ranks, as `torch.distributed.all_gather`; all of one shape.
 *
 * @throws (rejects) as `allReduce`
 */
export async function allGather(tensor: Tensor, options?: { signal?: AbortSignal }): Promise<Tensor[]> {
  const { signal: abort } = readSignal(options, 'allGather');
  const { handle } = requireGroup('allGather');
  const scope = currentScope();
  const given = handleOf(tensor, 'allGather: tensor');
  const all = await runJob(() => binding.groupAllGather(handle, given), abort);
  return (all as TensorHandle[]).map((one) => wrapTensor(one, scope));
}

/** Settles when every process has called it, as `torch.distributed.barrier`. @throws (rejects) as `allReduce` */
export async function barrier(options?: { signal?: AbortSignal }): Promise<void> {
  const { signal: abort } = readSignal(options, 'barrier');
  const { handle } = requireGroup('barrier');
  await runJob(() => binding.groupBarrier(handle), abort);
}

/**
 * @internal Tells the other processes what this one failed with, so that theirs end with that.
 */
export async function reportFailure(reason: string): Promise<void> {
  const { joined } = state();
  if (joined === null) return;
  const { handle } = joined;
  await runJob(() => binding.groupFail(handle, reason));
}
