// A device as the current one of a thread, for a while. Knows no LibTorch.
#pragma once

#include "runtime/cuda_driver.h"

namespace senet::runtime::cuda {

/// The device is this thread's as long as it lives, and then the one before again, which LibTorch takes for
/// its own.
class DeviceScope {
 public:
  DeviceScope(const Driver& driver, int device) : driver_(driver) {
    driver.cudaGetDevice(&before_);
    check_cuda(driver, driver.cudaSetDevice(device), "a device");
  }
  ~DeviceScope() {
    driver_.cudaSetDevice(before_);
  }
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  const Driver& driver_;
  int before_ = 0;
};

}  // namespace senet::runtime::cuda
