#include "runtime/cuda_driver.h"

#include "core/error.h"

#include <dlfcn.h>
#include <glob.h>

namespace senet::runtime::cuda {
namespace {

Library open(const std::string& name) {
  Library library{dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL)};
  if (library.handle == nullptr) {
    const char* const error = dlerror();
    library.error = error == nullptr ? name + " does not load" : error;
  }
  return library;
}

// NVRTC looks for its builtins on the library path alone, where LibTorch's folder is not: they are loaded
// from where it lies itself.
void load_builtins(const Library& nvrtc) {
  void* const any = nvrtc.handle == nullptr ? nullptr : dlsym(nvrtc.handle, "nvrtcVersion");
  Dl_info info{};
  if (any == nullptr || dladdr(any, &info) == 0 || info.dli_fname == nullptr) {
    return;
  }
  const std::string file = info.dli_fname;
  const std::string pattern = file.substr(0, file.rfind('/') + 1) + "libnvrtc-builtins*.so*";
  glob_t found{};
  if (glob(pattern.c_str(), 0, nullptr, &found) == 0) {
    for (size_t i = 0; i < found.gl_pathc; ++i) {
      dlopen(found.gl_pathv[i], RTLD_NOW | RTLD_GLOBAL);
    }
  }
  globfree(&found);
}

class Finder {
 public:
  Finder(const Library& library, const char* name, std::string& missing)
      : library_(library), name_(name), missing_(missing) {
    if (library.handle == nullptr) {
      miss(std::string(name) + ": " + library.error);
    }
  }

  template <class Pointer>
  void find(const char* function, Pointer& pointer) {
    if (library_.handle == nullptr) {
      return;
    }
    pointer = reinterpret_cast<Pointer>(dlsym(library_.handle, function));
    if (pointer == nullptr) {
      miss(std::string(function) + " of " + name_);
    }
  }

 private:
  void miss(const std::string& what) {
    missing_ += (missing_.empty() ? "" : ", ") + what;
  }

  const Library& library_;
  const char* const name_;
  std::string& missing_;
};

[[noreturn]] void fail(const char* code, const char* library, int status, const char* what,
                       const char* text) {
  throw Error(code, std::string(what) + ": " + (text == nullptr ? "unknown error" : text) + " (" + library +
                        " status " + std::to_string(status) + ')');
}

}  // namespace

Driver find_functions(const Libraries& libraries) {
  Driver driver;
  load_builtins(libraries.nvrtc);
#define SENET_FIND(function, parameters) finder.find(#function, driver.function);
  {
    Finder finder(libraries.cudart, "libcudart", driver.missing);
    SENET_CUDART(SENET_FIND)
    finder.find("cudaGetErrorString", driver.cudaGetErrorString);
  }
  driver.missing_of_runtime = driver.missing;
  {
    Finder finder(libraries.cuda, "libcuda", driver.missing);
    SENET_LIBCUDA(SENET_FIND)
  }
  {
    Finder finder(libraries.nvrtc, "libnvrtc", driver.missing);
    SENET_NVRTC(SENET_FIND)
  }
  {
    Finder finder(libraries.cudnn, "libcudnn", driver.missing);
    SENET_CUDNN(SENET_FIND)
    finder.find("cudnnGetErrorString", driver.cudnnGetErrorString);
    finder.find("cudnnGetVersion", driver.cudnnGetVersion);
  }
#undef SENET_FIND
  int major = 0;
  int minor = 0;
  if (driver.nvrtcVersion != nullptr && driver.nvrtcVersion(&major, &minor) == 0) {
    driver.nvrtc_version = 1000 * major + 10 * minor;
  }
  if (driver.cudnnGetVersion != nullptr) {
    driver.cudnn_version = driver.cudnnGetVersion();
  }
  return driver;
}

const Driver& driver_of(const std::string& folder, void* libtorch_cuda) {
  static const auto* const driver = [&] {
    Libraries libraries;
    libraries.cudart.handle = libtorch_cuda;  // which needs both
    libraries.cudnn.handle = libtorch_cuda;
    libraries.cuda = open("libcuda.so.1");
    libraries.nvrtc = open(folder + "/libcaffe2_nvrtc.so");  // LibTorch's own way to it
    return new Driver(find_functions(libraries));
  }();
  return *driver;
}

void check_cuda(const Driver& driver, int status, const char* what) {
  if (status != 0) {
    driver.cudaGetLastError();  // which would answer every later call else
    fail(status == kCudaErrorMemoryAllocation ? "ERR_SENET_OUT_OF_MEMORY" : "ERR_SENET_CUDA", "CUDA", status,
         what, driver.cudaGetErrorString(status));
  }
}

void check_cudnn(const Driver& driver, int status, const char* what) {
  if (status != 0) {
    fail("ERR_SENET_CUDA", "cuDNN", status, what, driver.cudnnGetErrorString(status));
  }
}

}  // namespace senet::runtime::cuda
