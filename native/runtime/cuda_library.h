// Finding LibTorch's own folder and loading its CUDA library, so that one binary serves CPU and CUDA; what
// can be said of CUDA on this machine.
#pragma once

#include <dlfcn.h>

#include <string>

namespace senet::runtime {

/// The folder that libtorch_cpu was loaded from; empty if the loader does not say.
std::string libtorch_folder();

/// Loads libtorch_cuda from that folder if it is there, once. LibTorch keeps its first answer to whether CUDA
/// exists for ever, and much asks without saying so (at::show_config() does), so whatever here asks LibTorch
/// anything calls this first.
void load_cuda_library();

/// Its handle of dlopen, which also finds what the CUDA libraries that it brought have; null without it.
void* cuda_library_handle();

/// A function of the CUDA runtime that came with LibTorch's CUDA library; null if that has none to share.
template <class Function>
Function* find_in_cuda_runtime(const char* name) {
  void* const handle = cuda_library_handle();
  return handle == nullptr ? nullptr : reinterpret_cast<Function*>(dlsym(handle, name));
}

/// A function of the NVIDIA driver's library; null without a driver.
template <class Function>
Function* find_in_cuda_driver(const char* name) {
  void* const handle = dlopen("libcuda.so.1", RTLD_LAZY);
  return handle == nullptr ? nullptr : reinterpret_cast<Function*>(dlsym(handle, name));
}

/// What the runtime says of a cudaError_t: "device-side assert triggered".
std::string cuda_error_text(int status);

struct CudaState {
  std::string library;  // path of libtorch_cuda; empty if it is not there or does not load
  bool is_seen;         // whether LibTorch knows that it is loaded
  int devices;          // that can be used
  std::string reason;   // why there are none; empty if there are
  int driver;           // the newest CUDA that the driver serves, as 1000 x major + 10 x minor; 0: unknown
  int runtime;          // the CUDA that LibTorch was built for, likewise
};

CudaState cuda_state();

/// CUDA devices that can be used; 0 without the library, a driver or a device.
int cuda_device_count();

/// LibTorch's version as the loaded library reports it ("2.13.0").
std::string loaded_libtorch_version();

/// How LibTorch was built, several lines.
std::string libtorch_build();

}  // namespace senet::runtime
