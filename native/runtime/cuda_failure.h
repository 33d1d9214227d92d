// What a failure of a CUDA library means for the process. Some end the device's context (a kernel's assert,
// an address out of bounds, a GPU that is gone): CUDA then answers every call with the same error, until the
// process ends. Such a device is lost, and is remembered, so that later calls say it at once and what to do.
#pragma once

#include <optional>
#include <string>

namespace senet::runtime {

struct CudaFailure {
  const char* code;  // ERR_SENET_CUDA_LOST, ERR_SENET_OUT_OF_MEMORY or ERR_SENET_CUDA
  std::string message;
};

/// Whether this is how LibTorch reports a failure of CUDA or its libraries ("CUDA error: ...", "cuDNN error:
/// ...").
bool is_cuda_message(const std::string& message);

/// What such a failure means. Asks the devices in use whether they still answer, and remembers those that are
/// lost.
CudaFailure cuda_failure(const std::string& message);

/// Throws ERR_SENET_CUDA_LOST if the device was lost. Costs one load of an atomic as long as none was.
void check_not_lost(int index);

}  // namespace senet::runtime
