// Memory of the host for a device. Knows no LibTorch.
#pragma once

#include "runtime/cuda_driver.h"

#include <cstdint>

namespace senet::inference::cuda {

using namespace runtime::cuda;

/// Memory of the host that the device reads and writes by itself.
class PinnedMemory {
 public:
  PinnedMemory(const Driver& driver, int64_t bytes) : driver_(driver) {
    check_cuda(driver,
               driver.cudaHostAlloc(&data_, static_cast<size_t>(bytes), runtime::kCudaHostAllocPortable),
               "pinned memory of the host");
  }
  ~PinnedMemory() {
    driver_.cudaFreeHost(data_);
  }
  PinnedMemory(const PinnedMemory&) = delete;
  PinnedMemory& operator=(const PinnedMemory&) = delete;

  void* data() const {
    return data_;
  }

 private:
  const Driver& driver_;
  void* data_ = nullptr;
};

}  // namespace senet::inference::cuda
