// Finding LibTorch's own folder and loading its CUDA library, so that one binary serves CPU and CUDA.
#pragma once

#include <string>

namespace senet::runtime {

/// The folder that libtorch_cpu was loaded from; empty if the loader does not say.
std::string libtorch_folder();

/// Loads libtorch_cuda from that folder if it is there. Must run before anything asks whether CUDA exists,
/// since LibTorch caches the answer. Returns its path, or an empty string.
std::string load_cuda_library();

/// CUDA devices that can be used; 0 without the library, a driver or a device.
int cuda_device_count();

/// LibTorch's version as the loaded library reports it ("2.13.0").
std::string loaded_libtorch_version();

}  // namespace senet::runtime
