#include "distributed/nccl.h"

#include "runtime/cuda_library.h"

#include <dlfcn.h>

namespace senet::distributed {

Nccl find_nccl(void* library) {
  Nccl nccl;
  if (library == nullptr) {
    nccl.missing = "no libnccl";
    return nccl;
  }
  const auto find = [&](const char* name, auto& function) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
    if (function == nullptr) {
      nccl.missing += (nccl.missing.empty() ? "" : ", ") + std::string(name) + " of libnccl";
    }
  };
#define SENET_FIND(function, parameters) find(#function, nccl.function);
  SENET_NCCL(SENET_FIND)
#undef SENET_FIND
  find("ncclGetErrorString", nccl.ncclGetErrorString);
  find("ncclGetLastError", nccl.ncclGetLastError);
  if (nccl.ncclGetVersion != nullptr && nccl.ncclGetVersion(&nccl.version) != kNcclSuccess) {
    nccl.version = 0;
  }
  if (nccl.missing.empty() && nccl.version < kOldestNccl) {
    nccl.missing = "NCCL 2.18 or later: this is " + std::to_string(nccl.version);
  }
  return nccl;
}

const Nccl& nccl_of_libtorch() {
  static const auto* const nccl = [] {
    void* library = runtime::cuda_library_handle();
    // A LibTorch that has it inside shows its functions or none.
    if (library != nullptr && dlsym(library, "ncclGetVersion") == nullptr) {
      library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    }
    return new Nccl(find_nccl(library));
  }();
  return *nccl;
}

}  // namespace senet::distributed
