#include "runtime/cuda_device.h"

#include "core/error.h"
#include "runtime/cuda_library.h"

#include <ATen/Context.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/DeviceGuard.h>
#include <torch/version.h>

#include <array>
#include <limits>

// The interface of every device's caching allocator, without CUDA's headers. In LibTorch since 2.9.
#define SENET_HAS_DEVICE_ALLOCATOR \
  (TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 9))
#if SENET_HAS_DEVICE_ALLOCATOR
#include <c10/core/CachingDeviceAllocator.h>
#endif

namespace senet::runtime {
namespace {

// Of the CUDA driver (CUdevice_attribute).
constexpr int kCapabilityMajor = 75;
constexpr int kCapabilityMinor = 76;

#if SENET_HAS_DEVICE_ALLOCATOR
// Null before CUDA was used: its allocator knows no device then.
c10::DeviceAllocator* used_allocator() {
  if (cuda_device_count() == 0) {
    return nullptr;
  }
  c10::DeviceAllocator* const allocator = c10::getDeviceAllocator(c10::DeviceType::CUDA);
  return allocator->initialized() ? allocator : nullptr;
}

constexpr auto kAggregate = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
#endif

}  // namespace

CudaDevice cuda_device(int index) {
  CudaDevice result;
  auto* const initialize = find_in_cuda_driver<int(unsigned)>("cuInit");
  auto* const find_device = find_in_cuda_driver<int(int*, int)>("cuDeviceGet");
  int device = 0;
  if (initialize == nullptr || find_device == nullptr || initialize(0) != 0 ||
      find_device(&device, index) != 0) {
    return result;
  }
  std::array<char, 256> name{};
  auto* const find_name = find_in_cuda_driver<int(char*, int, int)>("cuDeviceGetName");
  if (find_name != nullptr && find_name(name.data(), static_cast<int>(name.size()) - 1, device) == 0) {
    result.name = name.data();
  }
  if (auto* const find = find_in_cuda_driver<int(int*, int, int)>("cuDeviceGetAttribute")) {
    find(&result.capability_major, kCapabilityMajor, device);
    find(&result.capability_minor, kCapabilityMinor, device);
  }
  size_t bytes = 0;
  auto* const find_bytes = find_in_cuda_driver<int(size_t*, int)>("cuDeviceTotalMem_v2");
  if (find_bytes != nullptr && find_bytes(&bytes, device) == 0) {
    result.total_bytes = static_cast<int64_t>(bytes);
  }
  return result;
}

CudaMemory cuda_memory(int index) {
#if SENET_HAS_DEVICE_ALLOCATOR
  CudaMemory result{};
  if (c10::DeviceAllocator* const allocator = used_allocator()) {
    const auto stats = allocator->getDeviceStats(static_cast<c10::DeviceIndex>(index));
    result.allocated = stats.allocated_bytes[kAggregate].current;
    result.reserved = stats.reserved_bytes[kAggregate].current;
  }
  auto* const find = find_in_cuda_runtime<int(size_t*, size_t*)>("cudaMemGetInfo");
  if (find == nullptr) {
    throw Error("ERR_SENET_CUDA", "LibTorch's CUDA library shares no cudaMemGetInfo");
  }
  const c10::DeviceGuard guard(c10::Device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index)));
  size_t free = 0;
  size_t total = 0;
  const int status = find(&free, &total);
  if (status != 0) {
    throw Error("ERR_SENET_CUDA", "CUDA error: " + cuda_error_text(status));
  }
  result.free = static_cast<int64_t>(free);
  result.total = static_cast<int64_t>(total);
  return result;
#else
  (void)index;
  throw Error("ERR_SENET_CUDA", "this LibTorch does not tell how much memory of a device it holds; 2.9 does");
#endif
}

double cuda_allocated_bytes() {
  double bytes = 0;
#if SENET_HAS_DEVICE_ALLOCATOR
  if (c10::DeviceAllocator* const allocator = used_allocator()) {
    for (int index = 0, count = cuda_device_count(); index < count; ++index) {
      const auto stats = allocator->getDeviceStats(static_cast<c10::DeviceIndex>(index));
      bytes += static_cast<double>(stats.allocated_bytes[kAggregate].current);
    }
  }
#else
  if (cuda_device_count() > 0) {
    bytes = std::numeric_limits<double>::quiet_NaN();
  }
#endif
  return bytes;
}

void empty_cuda_cache() {
#if SENET_HAS_DEVICE_ALLOCATOR
  if (c10::DeviceAllocator* const allocator = used_allocator()) {
    allocator->emptyCache();
  }
#else
  throw Error("ERR_SENET_CUDA", "this LibTorch's cache of device memory cannot be emptied; that of 2.9 can");
#endif
}

void synchronize_cuda(int index) {
  at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);
  at::detail::getCUDAHooks().deviceSynchronize(static_cast<c10::DeviceIndex>(index));
}

}  // namespace senet::runtime
