/**
 * DistributedDataParallel: one network on several processes, each with its own images, whose gradients are averaged while
 * backward runs. The engine is PyTorch's own (`c10d::Reducer`); what is called when follows
 * `torch/nn/parallel/distributed.py`.
 */
import type { DataParallelHandle, TensorHandle } from '../binding';
import { isPlainObject } from '../brands';
import { makeError } from '../errors';
import { binding } from '../native';
import { Module } from '../nn/module';
import { runJob } from '../tensor/jobs';
import { describe } from '../tensor/options';
import { boolean, above, orElse, readOptions } from '../tensor/rules';
import { gradEnabled } from '../tensor/scope';
import { handleOf, Tensor } from '../tensor/tensor';
import { requireGroup } from './process-group';

export interface DistributedDataParallelOptions {
  /** Before each forward that trains, buffers (the running statistics of BatchNorm) become rank 0's. Default true. */
  broadcastBuffers?: boolean;
  /** Megabytes (2**20) of gradients that are averaged together. Default 25. */
  bucketCapMb?: number;
  /** For networks of which a forward leaves out parameters: looks for them after each forward. Default false. */
  findUnusedParameters?: boolean;
}

const OPTIONS = {
  broadcastBuffers: orElse(true, boolean),
  bucketCapMb: orElse(25, above(0, 2 ** 20)),
  findUnusedParameters: orElse(false, boolean),
};

/**
 * Trains a module on all processes of the group, as `torch.nn.parallel.DistributedDataParallel`. All begin with rank 0's
 * weights; `backward` leaves the mean of the processes' gradients in `grad`. The keys of its state dict begin with
 * `module.`, as in PyTorch: save `parallel.module`, on rank 0.
 *
 * @typeParam Out as the module's
 * @example
 * const parallel = new DistributedDataParallel(model);
 * const optimizer = new SGD(parallel.parameters(), { lr: 0.1 });
 * const loss = await criterion.forward(await parallel.forward(images), labels);
 * await loss.backward();
 * await optimizer.step();
 */
export class DistributedDataParallel<Out = Tensor> extends Module<Out> {
  /** The network. */
  readonly module: Module<Out>;
  readonly #native: Promise<DataParallelHandle>;
  readonly #buffers: readonly TensorHandle[];
  readonly #broadcasts: boolean;
  readonly #findsUnused: boolean;
  /** Calls of `noSync` that have not settled. */
  #unsynced = 0;
  #broadcastNext = true; // `require_forward_param_sync`

  /**
   * @param module - becomes a part of this one; a copy of the same network on every process
   * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION, ERR_SENET_MODULE_TREE;
   *   ERR_SENET_DISTRIBUTED outside of a group; ERR_SENET_AUTOGRAD without a parameter that requires gradients
   */
  constructor(module: Module<Out>, options?: DistributedDataParallelOptions) {
    super();
    const where = 'DistributedDataParallel';
    const { broadcastBuffers, bucketCapMb, findUnusedParameters } = readOptions(options, OPTIONS, where);
    const { handle } = requireGroup(where);
    if (!Module.isModule(module))
      throw makeError('ERR_SENET_ARG_TYPE', `${where}: expected a Module, got ${describe(module)}`);
    this.module = module;
    this.#broadcasts = broadcastBuffers;
    this.#findsUnused = findUnusedParameters;
    const parameters = this.module.namedParameters();
    const trained = parameters.filter(([, tensor]) => tensor.requiresGrad);
    if (trained.length === 0)
      throw makeError('ERR_SENET_AUTOGRAD', `${where}: no parameter of the module requires gradients`);
    const handles = (tensors: readonly (readonly [string, Tensor])[]): TensorHandle[] =>
      tensors.map(([name, tensor]) => handleOf(tensor, name));
    this.#buffers = handles(module.namedBuffers());
    this.#native = runJob(() =>
      binding.createDataParallel(
        handle,
        trained.map(([name]) => name),
        handles(trained),
        [...handles(parameters), ...this.#buffers],
        Math.floor(bucketCapMb * 2 ** 20),
        findUnusedParameters,
      ),
    ) as Promise<DataParallelHandle>;
    this.#native.catch(() => undefined); // whoever waits for it is told
  }

  /**
   * Settles when the weights are rank 0's on every process; `forward` waits for it too.
   *
   * @throws (rejects) ERR_SENET_DISTRIBUTED if the processes have different networks; ERR_SENET_RANK_LOST
   */
  async whenReady(): Promise<this> {
    await this.#native;
    return this;
  }

  /**
   * What the module computes. Where it records a graph, the next backward averages the gradients over the group: every
   * process then runs forward and backward, in the same order.
   *
   * @throws (rejects) as the module's; ERR_SENET_RANK_LOST, ERR_SENET_DISTRIBUTED
   */
  override async forward(...inputs: unknown[]): Promise<Out> {
    const native = await this.#native;
    const averages = this.#unsynced === 0 && (gradEnabled() || asksForGraph(inputs.at(-1)));
    const buffers = this.#broadcasts && this.#broadcastNext ? this.#buffers : [];
    this.#broadcastNext = averages;
    if (averages || buffers.length > 0)
      await runJob(() => binding.dataParallelBegin(native, averages, buffers));
    const output = await this.module.forward(...inputs);
    if (averages) {
      const found = this.#findsUnused ? tensorsOf(output).map((one) => handleOf(one, 'output')) : [];
      await runJob(() => binding.dataParallelEnd(native, found));
    }
    return output;
  }

  /**
   * Runs forwards and backwards whose gradients add up here alone, as PyTorch's `no_sync()`: the first backward after it
   * averages their sum. Accumulate so over all batches of a step but the last.
   *
   * @example
   * await parallel.noSync(async () => {
   *   await (await criterion.forward(await parallel.forward(first), labels)).backward();
   * });
   */
  async noSync<T>(work: () => Promise<T>): Promise<T> {
    this.#unsynced++;
    try {
      return await work();
    } finally {
      this.#unsynced--;
    }
  }

  /**
   * Makes the buffers rank 0's now, as before a forward: what rank 0 saves and all validate is then the same network. Every
   * process calls it.
   */
  async syncBuffers(): Promise<void> {
    const native = await this.#native;
    if (this.#buffers.length > 0) await runJob(() => binding.dataParallelBegin(native, false, this.#buffers));
  }

  /** Gives the module back: its backward is its own again, and this one is of no more use. */
  async unwrap(): Promise<Module<Out>> {
    const { module } = this;
    const native = await this.#native.catch(() => null);
    if (native !== null) await runJob(() => binding.dataParallelDetach(native));
    Reflect.deleteProperty(this, 'module');
    return module;
  }
}

/** An option of this call goes before an outer `noGrad`. */
function asksForGraph(options: unknown): boolean {
  return isPlainObject(options) && options.grad === true;
}

function tensorsOf(output: unknown): Tensor[] {
  if (Tensor.isTensor(output)) return [output];
  if (typeof output !== 'object' || output === null) return [];
  return Object.values(output).flatMap(tensorsOf);
}
