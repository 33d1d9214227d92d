#include "runtime/cuda_library.h"

#include <ATen/Context.h>
#include <ATen/Version.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <dlfcn.h>
#include <unistd.h>

namespace senet::runtime {

std::string libtorch_folder() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<void*>(&at::globalContext), &info) == 0 || info.dli_fname == nullptr) {
    return "";
  }
  const std::string file = info.dli_fname;
  const size_t slash = file.rfind('/');
  return slash == std::string::npos ? "" : file.substr(0, slash);
}

std::string load_cuda_library() {
  static const std::string* const path = [] {
    const std::string file = libtorch_folder() + "/libtorch_cuda.so";
    const bool loaded =
        access(file.c_str(), R_OK) == 0 && dlopen(file.c_str(), RTLD_NOW | RTLD_GLOBAL) != nullptr;
    return new std::string(loaded ? file : "");
  }();
  return *path;
}

int cuda_device_count() {
  return at::hasCUDA() ? static_cast<int>(at::detail::getCUDAHooks().deviceCount()) : 0;
}

std::string loaded_libtorch_version() {
  const std::string config = at::show_config();
  const std::string key = "TORCH_VERSION=";
  const size_t start = config.find(key);
  if (start == std::string::npos) {
    return "";
  }
  const size_t first = start + key.size();
  return config.substr(first, config.find_first_of(", \n", first) - first);
}

}  // namespace senet::runtime
