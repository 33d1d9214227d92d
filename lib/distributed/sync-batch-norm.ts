/** SyncBatchNorm: BatchNorm whose batch lies on several processes. The arithmetic is `native/graph/sync_batch_norm.cpp`. */
import { makeError } from '../errors';
import { binding } from '../native';
import { BatchNorm2d, type BatchNorm2dOptions } from '../nn/layers';
import { Module } from '../nn/module';
import { requireNode } from '../nn/module-tree';

/**
 * BatchNorm2d that takes mean and variance, in training, of the images of all processes of the group, as
 * `torch.nn.SyncBatchNorm`; PyTorch's own is for GPUs alone. Without a group, and in evaluation, it is a BatchNorm2d.
 *
 * Every process runs the same forwards and backwards in the same order. They wait for each other in each such layer.
 */
export class SyncBatchNorm extends BatchNorm2d {
  /** @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION */
  constructor(numFeatures: number, options?: BatchNorm2dOptions) {
    super(numFeatures, options);
    SyncBatchNorm.convertSyncBatchnorm(this);
  }

  /**
   * Has every BatchNorm2d of a module do so, and gives the module. Weights, statistics and keys stay. Deviates from
   * PyTorch: the layers are changed where they are, and keep their class.
   *
   * @throws ERR_SENET_ARG_TYPE, ERR_SENET_DISPOSED; ERR_SENET_BUSY while a job on the module is queued or running
   */
  static convertSyncBatchnorm<M extends Module<unknown>>(module: M): M {
    const where = 'convertSyncBatchnorm';
    const handles = requireNode(module, where).idleHandles();
    if (handles.length === 0)
      throw makeError('ERR_SENET_ARG_TYPE', `${where}: the module has no layers of this library`);
    for (const handle of handles) binding.syncBatchNorms(handle);
    return module;
  }
}
