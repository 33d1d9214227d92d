/**
 * `cuda`: what CUDA devices there are and what they hold, as `torch.cuda`. Devices are counted from 0; a device's index
 * is that of `cuda:N`, after CUDA_VISIBLE_DEVICES.
 */
import { binding } from '../native';
import { runJob } from './jobs';
import { checkBoolean } from './options';
import { integer, orElse } from './rules';

/** The memory of a CUDA device, in bytes. */
export interface CudaMemory {
  /** Held by this process's tensors, `torch.cuda.memory_allocated`. */
  allocated: number;
  /** Held by LibTorch for them and for the next ones, `torch.cuda.memory_reserved`; `allocated` is part of it. */
  reserved: number;
  /** Of the device, for every process: `torch.cuda.mem_get_info`. */
  free: number;
  total: number;
}

// LibTorch's device indices end here.
const index = orElse(0, integer(0, 127));

export const cuda = {
  /** True if LibTorch's CUDA library, a driver and a device are there. */
  isAvailable(): boolean {
    return binding.cudaDeviceCount() > 0;
  },
  deviceCount(): number {
    return binding.cudaDeviceCount();
  },
  /**
   * The device's name: "NVIDIA H100 80GB HBM3".
   *
   * @param device its index, default 0
   * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_CUDA_UNAVAILABLE, ERR_SENET_CUDA_LOST
   */
  deviceName(device?: number): string {
    return binding.cudaDevice(index(device, 'cuda.deviceName: device')).name;
  },
  /**
   * What the device holds. Starts a device that was not used yet, as PyTorch does, which takes it some hundred megabytes.
   *
   * @param device its index, default 0
   * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_CUDA_UNAVAILABLE, ERR_SENET_CUDA_LOST; ERR_SENET_CUDA
   *   with a LibTorch before 2.9, which does not tell
   */
  memory(device?: number): CudaMemory {
    return binding.cudaMemory(index(device, 'cuda.memory: device'));
  },
  /**
   * Gives the device memory that LibTorch keeps for the next allocation back, on every device: for other processes;
   * this one finds it by itself. `torch.cuda.empty_cache`.
   *
   * @throws ERR_SENET_CUDA, ERR_SENET_CUDA_LOST
   */
  emptyCache(): void {
    binding.emptyCudaCache();
  },
  /**
   * Waits until the jobs that were started before, and all that the device was given, are done. It is a job that no other
   * one runs beside, and blocks no thread of Node's. Needed to take times: what gives numbers to JavaScript waits by
   * itself.
   *
   * @param device its index, default 0
   * @throws (rejects) ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_CUDA_UNAVAILABLE; ERR_SENET_CUDA_LOST, also if
   *   what it waited for ended the device
   */
  async synchronize(device?: number): Promise<void> {
    const checked = index(device, 'cuda.synchronize: device');
    await runJob(() => binding.synchronizeCuda(checked));
  },
  /**
   * Whether convolutions of float32 may round their factors to TensorFloat-32 (10 bits of mantissa) on CUDA devices that
   * have it: several times as fast, and about 1e-3 off. Default true, as in PyTorch: it is
   * `torch.backends.cudnn.allow_tf32`. Holds for the whole process and whatever runs after it was set; matrix products
   * outside convolutions stay float32. A compiled model has its own (`compile({ allowTF32 })`).
   *
   * @throws ERR_SENET_ARG_TYPE when something else than a boolean is assigned
   */
  get allowTF32(): boolean {
    return binding.allowTF32();
  },
  set allowTF32(allow: boolean) {
    binding.setAllowTF32(checkBoolean(allow, 'cuda.allowTF32'));
  },
};
