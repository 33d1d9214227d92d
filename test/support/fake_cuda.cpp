// A stand-in for libtorch_cuda.so: it registers itself as LibTorch's CUDA library does, and answers for the CUDA
// runtime what the environment says. For cuda-library.test.ts.
#include <ATen/detail/CUDAHooksInterface.h>

#include <cstdlib>

namespace {

int number(const char* name) {
  const char* const text = std::getenv(name);
  return text == nullptr ? 0 : std::atoi(text);
}

struct CUDAHooks : at::CUDAHooksInterface {
  explicit CUDAHooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override {
    return deviceCount() > 0;
  }
  bool hasCUDART() const override {
    return true;
  }
  c10::DeviceIndex deviceCount() const override {
    return static_cast<c10::DeviceIndex>(number("FAKE_CUDA_DEVICES"));
  }
  int getNumGPUs() const override {
    return number("FAKE_CUDA_DEVICES");
  }
  std::string showConfig() const override {
    return "a stand-in for CUDA";
  }
};

}  // namespace

namespace at {
REGISTER_CUDA_HOOKS(CUDAHooks)
}  // namespace at

extern "C" {

int cudaGetDeviceCount(int* count) {
  *count = number("FAKE_CUDA_DEVICES");
  return number("FAKE_CUDA_STATUS");
}

int cudaDriverGetVersion(int* version) {
  *version = number("FAKE_CUDA_DRIVER");
  return 0;
}

int cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return 0;
}

const char* cudaGetErrorString(int) {
  return "an error of the stand-in";
}
}
