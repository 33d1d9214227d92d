// A stand-in for libtorch_cuda.so: it registers itself as LibTorch's CUDA library does, with devices whose memory is
// the host's and that can do no more than make tensors and copy them, and answers for the CUDA runtime what the
// environment says. For cuda-library.test.ts.
//
// FAKE_CUDA_DEVICES, FAKE_CUDA_DRIVER, FAKE_CUDA_STATUS: what cudaGetDeviceCount and cudaDriverGetVersion answer.
// FAKE_CUDA_FAILURE: what waiting for device 0 throws. FAKE_CUDA_SILENT: the device that answers nothing from then on.
#include <ATen/Context.h>
#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/FakeGuardImpl.h>
#include <torch/library.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

using FakeGuard = c10::impl::FakeGuardImpl<c10::DeviceType::CUDA>;
constexpr int kAssert = 710;
constexpr size_t kTotal = size_t{1} << 30;

const char* setting(const char* name) {
  const char* const text = std::getenv(name);
  return text == nullptr ? "" : text;
}

int number(const char* name) {
  return std::atoi(setting(name));
}

std::atomic<bool> has_failed{false};
std::atomic<int64_t> allocated[c10::impl::kFakeGuardImplMaxDevices];
std::atomic<int64_t> reserved[c10::impl::kFakeGuardImplMaxDevices];

bool is_silent(int device) {
  return has_failed && device == number("FAKE_CUDA_SILENT");
}

// Keeps what is freed, as far as the numbers tell.
struct Allocator : c10::DeviceAllocator {
  struct Block {
    void* data;
    size_t bytes;
    int device;
  };
  static void release(void* context) {
    auto* const block = static_cast<Block*>(context);
    allocated[block->device] -= static_cast<int64_t>(block->bytes);
    std::free(block->data);
    delete block;
  }
  c10::DataPtr allocate(size_t bytes) override {
    const c10::DeviceIndex device = FakeGuard::getDeviceIndex();
    auto* const block = new Block{std::malloc(bytes + 1), bytes, device};
    allocated[device] += static_cast<int64_t>(bytes);
    if (reserved[device] < allocated[device]) {
      reserved[device] = allocated[device].load();
    }
    return {block->data, block, &release, c10::Device(c10::DeviceType::CUDA, device)};
  }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    std::memcpy(to, from, bytes);
  }
  bool initialized() override {
    return true;
  }
  void emptyCache(c10::MempoolId_t) override {
    for (int device = 0; device < number("FAKE_CUDA_DEVICES"); ++device) {
      reserved[device] = allocated[device].load();
    }
  }
  void recordStream(const c10::DataPtr&, c10::Stream) override {}
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex device) override {
    c10::CachingDeviceAllocator::DeviceStats stats;
    stats.allocated_bytes[0].current = allocated[device];
    stats.reserved_bytes[0].current = reserved[device];
    return stats;
  }
  void resetAccumulatedStats(c10::DeviceIndex) override {}
  void resetPeakStats(c10::DeviceIndex) override {}
};
Allocator allocator;
REGISTER_ALLOCATOR(c10::DeviceType::CUDA, &allocator)
C10_REGISTER_GUARD_IMPL(CUDA, FakeGuard)

struct CUDAHooks : at::CUDAHooksInterface {
  explicit CUDAHooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override {
    return deviceCount() > 0;
  }
  bool hasCUDART() const override {
    return true;
  }
  bool hasPrimaryContext(c10::DeviceIndex) const override {
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
  void deviceSynchronize(c10::DeviceIndex device) const override {
    const std::string failure = setting("FAKE_CUDA_FAILURE");
    if (device == 0 && !failure.empty()) {
      has_failed = true;
      TORCH_CHECK(false, failure);
    }
  }
};

at::Tensor empty(c10::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                 std::optional<at::Device> device, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  const c10::OptionalDeviceGuard guard(device);
  return at::detail::empty_generic(size, &allocator, c10::DispatchKeySet(c10::DispatchKey::CUDA),
                                   dtype.value_or(at::kFloat), format);
}

at::Tensor empty_strided(c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<at::ScalarType> dtype,
                         std::optional<at::Layout>, std::optional<at::Device> device, std::optional<bool>) {
  const c10::OptionalDeviceGuard guard(device);
  return at::detail::empty_strided_generic(size, stride, &allocator,
                                           c10::DispatchKeySet(c10::DispatchKey::CUDA),
                                           dtype.value_or(at::kFloat));
}

at::Tensor& copy_(at::Tensor& to, const at::Tensor& from, bool) {
  TORCH_CHECK(to.scalar_type() == from.scalar_type() && to.is_contiguous() && from.is_contiguous());
  std::memcpy(to.mutable_data_ptr(), from.const_data_ptr(), to.nbytes());
  return to;
}

at::Tensor& zero_(at::Tensor& tensor) {
  std::memset(tensor.mutable_data_ptr(), 0, tensor.nbytes());
  return tensor;
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, CUDA, library) {
  library.impl("empty.memory_format", &empty);
  library.impl("empty_strided", &empty_strided);
  library.impl("copy_", &copy_);
  library.impl("zero_", &zero_);
}

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

const char* cudaGetErrorString(int status) {
  return status == kAssert ? "device-side assert triggered"
         : status == 2     ? "out of memory"
                           : "an error of the stand-in";
}

int cudaGetDevice(int* device) {
  *device = FakeGuard::getDeviceIndex();
  return 0;
}

int cudaSetDevice(int device) {
  FakeGuard::setDeviceIndex(static_cast<c10::DeviceIndex>(device));
  return 0;
}

int cudaMemGetInfo(size_t* free, size_t* total) {
  const c10::DeviceIndex device = FakeGuard::getDeviceIndex();
  *free = kTotal - static_cast<size_t>(reserved[device]);
  *total = kTotal;
  return is_silent(device) ? kAssert : 0;
}

int cudaGetLastError() {
  return 0;
}
}
