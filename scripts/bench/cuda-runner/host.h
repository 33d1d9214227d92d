// What the runner needs of a device besides the driver table: memory, copies, numbers of 16 bits. Knows no
// LibTorch.
#pragma once

#include "inference/cuda/sequence.h"
#include "runtime/cuda_driver.h"

#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

namespace senet::runner {

using namespace inference::cuda;
using Half = _Float16;

/// The libraries, from `folder` if it is given, and a device that was started. Throws std::runtime_error that
/// says what is not there.
class Device {
 public:
  explicit Device(const std::string& folder) {
    libraries_.cuda = open({"libcuda.so.1"}, "");
    // A LibTorch has them under names of its own.
    const Library torch = folder.empty() ? Library{} : open({"libtorch_cuda.so"}, folder);
    if (torch.handle != nullptr) {
      libraries_.cudart = libraries_.cudnn = torch;
      libraries_.nvrtc = open({"libcaffe2_nvrtc.so"}, folder);
    } else {
      libraries_.cudart = open({"libcudart.so.13", "libcudart.so.12", "libcudart.so"}, folder);
      libraries_.nvrtc = open({"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"}, folder);
      libraries_.cudnn = open({"libcudnn.so.9", "libcudnn.so"}, folder);
    }
    driver_ = std::make_unique<Driver>(find_functions(libraries_));
    if (!driver_->missing.empty()) {
      throw std::runtime_error("missing: " + driver_->missing);
    }
    int count = 0;
    if (find<int(int*)>("cudaGetDeviceCount")(&count) != 0 || count == 0) {
      throw std::runtime_error("the NVIDIA driver finds no device");
    }
    check_cuda(*driver_, driver_->cudaSetDevice(0), "the first device");
    malloc_ = find<int(void**, size_t)>("cudaMalloc");
    free_ = find<int(void*)>("cudaFree");
  }

  const Driver& driver() const {
    return *driver_;
  }
  int attribute(int which) const {
    int value = 0;
    check_cuda(*driver_, driver_->cudaDeviceGetAttribute(&value, which, 0), "an attribute of the device");
    return value;
  }
  std::string name() const {
    char text[256] = "?";
    if (auto* const ask =
            reinterpret_cast<int (*)(char*, int, int)>(dlsym(libraries_.cuda.handle, "cuDeviceGetName"))) {
      ask(text, sizeof text, 0);
    }
    return text;
  }

  std::shared_ptr<void> allocate(size_t bytes) const {
    void* memory = nullptr;
    check_cuda(*driver_, malloc_(&memory, bytes == 0 ? 256 : bytes), "memory of the device");
    return {memory, free_};
  }
  void copy(void* to, const void* from, size_t bytes) const {
    constexpr int kDefault = 4;  // cudaMemcpyDefault: the driver sees where each lies
    check_cuda(*driver_, driver_->cudaMemcpyAsync(to, from, bytes, kDefault, nullptr), "a copy");
    check_cuda(*driver_, driver_->cudaStreamSynchronize(nullptr), "a copy");
  }
  template <class T>
  std::shared_ptr<void> upload(const std::vector<T>& values) const {
    auto memory = allocate(values.size() * sizeof(T));
    copy(memory.get(), values.data(), values.size() * sizeof(T));
    return memory;
  }
  template <class T>
  std::vector<T> download(const void* from, size_t count) const {
    std::vector<T> values(count);
    copy(values.data(), from, count * sizeof(T));
    return values;
  }

 private:
  static Library open(const std::vector<std::string>& names, const std::string& folder) {
    Library library;
    for (const std::string& name : names) {
      const std::string path = folder.empty() ? name : folder + '/' + name;
      library.handle = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
      if (library.handle != nullptr) {
        return library;
      }
      const char* const error = dlerror();
      library.error = library.error.empty() ? (error == nullptr ? name : error) : library.error;
    }
    return library;
  }
  template <class Function>
  Function* find(const char* name) const {
    auto* const found = reinterpret_cast<Function*>(dlsym(libraries_.cudart.handle, name));
    if (found == nullptr) {
      throw std::runtime_error(std::string(name) + " is not in libcudart");
    }
    return found;
  }

  Libraries libraries_;
  std::unique_ptr<Driver> driver_;
  int (*malloc_)(void**, size_t) = nullptr;
  int (*free_)(void*) = nullptr;
};

/// Numbers that are the same in each run.
class Numbers {
 public:
  std::vector<Half> halves(size_t count, double scale) {
    std::vector<Half> values(count);
    for (Half& value : values) {
      value = static_cast<Half>(scale * draw_(random_));
    }
    return values;
  }
  std::vector<float> floats(size_t count, double scale) {
    std::vector<float> values(count);
    for (float& value : values) {
      value = static_cast<float>(scale * draw_(random_));
    }
    return values;
  }

 private:
  std::mt19937 random_{1};
  std::uniform_real_distribution<double> draw_{-1, 1};
};

}  // namespace senet::runner
