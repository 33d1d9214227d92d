#include "runtime/cuda_library.h"
#include "runtime/cuda_numbers.h"

#include <ATen/Context.h>
#include <ATen/Version.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <unistd.h>

#include <cstdlib>

namespace senet::runtime {
namespace {

struct CudaLibrary {
  std::string file;        // where it should be
  void* handle = nullptr;  // null: it is not there, or does not load
  std::string load_error;  // empty: it is not there
};

const CudaLibrary& cuda_library() {
  static const auto* const library = [] {
    auto* const result = new CudaLibrary;
    result->file = libtorch_folder() + "/libtorch_cuda.so";
    if (access(result->file.c_str(), F_OK) == 0) {
      result->handle = dlopen(result->file.c_str(), RTLD_NOW | RTLD_GLOBAL);
      const char* const error = result->handle == nullptr ? dlerror() : nullptr;
      result->load_error = error == nullptr ? "" : error;
    }
    return result;
  }();
  return *library;
}

int version_by(const char* function) {
  auto* const ask = find_in_cuda_runtime<int(int*)>(function);
  int version = 0;
  return ask != nullptr && ask(&version) == kCudaSuccess ? version : 0;
}

std::string version_text(int version) {
  return "CUDA " + std::to_string(version / 1000) + '.' + std::to_string(version % 1000 / 10);
}

// Asked only where no device can be used.
std::string why_no_device(const CudaState& state) {
  const CudaLibrary& library = cuda_library();
  if (library.handle == nullptr) {
    return library.load_error.empty() ? "this LibTorch has no CUDA library (there is no " + library.file + ')'
                                      : "LibTorch's CUDA library does not load: " + library.load_error;
  }
  if (!state.is_seen) {
    return "LibTorch was asked for CUDA before its CUDA library was loaded, by whoever loaded it first in "
           "this "
           "process";
  }
  if (dlopen("libcuda.so.1", RTLD_LAZY) == nullptr) {
    const char* const error = dlerror();
    return std::string("there is no NVIDIA driver: ") + (error == nullptr ? "libcuda.so.1" : error);
  }
  auto* const count_devices = find_in_cuda_runtime<int(int*)>("cudaGetDeviceCount");
  if (count_devices == nullptr) {
    return "LibTorch sees no device";
  }
  int count = 0;
  const int status = count_devices(&count);
  if (status == kCudaErrorInsufficientDriver) {
    return "the NVIDIA driver is too old: it serves " + version_text(state.driver) +
           " at most, and this LibTorch was built for " + version_text(state.runtime);
  }
  const char* const visible = std::getenv("CUDA_VISIBLE_DEVICES");
  if ((status == kCudaSuccess || status == kCudaErrorNoDevice) && visible != nullptr) {
    return std::string("CUDA_VISIBLE_DEVICES='") + visible + "' hides every device";
  }
  if (status == kCudaSuccess || status == kCudaErrorNoDevice) {
    return "the NVIDIA driver finds no device";
  }
  return "CUDA does not start: " + cuda_error_text(status);
}

}  // namespace

std::string libtorch_folder() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<void*>(&at::globalContext), &info) == 0 || info.dli_fname == nullptr) {
    return "";
  }
  const std::string file = info.dli_fname;
  const size_t slash = file.rfind('/');
  return slash == std::string::npos ? "" : file.substr(0, slash);
}

void load_cuda_library() {
  cuda_library();
}

void* cuda_library_handle() {
  return cuda_library().handle;
}

std::string cuda_error_text(int status) {
  auto* const describe = find_in_cuda_runtime<const char*(int)>("cudaGetErrorString");
  return describe == nullptr ? "error " + std::to_string(status) : describe(status);
}

CudaState cuda_state() {
  const CudaLibrary& library = cuda_library();
  CudaState state{};
  state.library = library.handle == nullptr ? "" : library.file;
  state.is_seen = at::detail::getCUDAHooks().hasCUDART();
  state.devices = cuda_device_count();
  state.driver = version_by("cudaDriverGetVersion");
  state.runtime = version_by("cudaRuntimeGetVersion");
  state.reason = state.devices == 0 ? why_no_device(state) : "";
  return state;
}

int cuda_device_count() {
  load_cuda_library();
  return at::hasCUDA() ? static_cast<int>(at::detail::getCUDAHooks().deviceCount()) : 0;
}

std::string loaded_libtorch_version() {
  const std::string config = libtorch_build();
  const std::string key = "TORCH_VERSION=";
  const size_t start = config.find(key);
  if (start == std::string::npos) {
    return "";
  }
  const size_t first = start + key.size();
  return config.substr(first, config.find_first_of(", \n", first) - first);
}

std::string libtorch_build() {
  load_cuda_library();
  return at::show_config();
}

}  // namespace senet::runtime
