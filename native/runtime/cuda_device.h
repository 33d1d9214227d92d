// What a CUDA device is and holds, and waiting for it. An index is of a device that is there: callers check
// it.
#pragma once

#include <cstdint>
#include <string>

namespace senet::runtime {

struct CudaDevice {
  std::string name;          // "NVIDIA H100 80GB HBM3"
  int capability_major = 0;  // 9 of sm_90
  int capability_minor = 0;
  int64_t total_bytes = 0;
};

/// Asked of the driver, so that a device that nobody uses is not started (that takes it hundreds of
/// megabytes). What the driver does not tell is empty or 0.
CudaDevice cuda_device(int index);

struct CudaMemory {
  int64_t allocated;  // by tensors
  int64_t reserved;   // by LibTorch's caching allocator, `allocated` included
  int64_t free;       // of the device, for every process
  int64_t total;
};

/// Throws ERR_SENET_CUDA if the runtime or this LibTorch does not tell.
CudaMemory cuda_memory(int index);

/// Bytes of tensors on all devices; 0 if none was used, NaN if this LibTorch does not tell.
double cuda_allocated_bytes();

/// Gives what LibTorch keeps for the next allocation back to every device.
void empty_cuda_cache();

/// Blocks until the device has done all that it was given.
void synchronize_cuda(int index);

}  // namespace senet::runtime
