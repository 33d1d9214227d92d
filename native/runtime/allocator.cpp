#include "runtime/allocator.h"

#include "core/error.h"
#include "runtime/machine.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

namespace senet::runtime {
namespace {

constexpr size_t kAlignment = 64;
// From here on a block is a mapping of its own, aligned so that the kernel can back it with huge pages.
constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kLargeBlock = size_t{4} << 20;
// The cache may hold this share of the memory that the process is granted.
constexpr size_t kCacheShare = 8;

// Four classes to a doubling, so that rounding up wastes at most a quarter, and a fifth on average less.
size_t class_size(size_t bytes) {
  if (bytes <= kAlignment) {
    return kAlignment;
  }
  const size_t step = std::max(std::bit_floor(bytes - 1) / 4, kAlignment);
  return (bytes + step - 1) / step * step;
}

class CachingAllocator final : public c10::Allocator {
 public:
  CachingAllocator() {
    const char* wish = std::getenv("SENET_CACHING_ALLOCATOR");
    limit_ = wish != nullptr && std::string(wish) == "0" ? 0 : available_memory() / kCacheShare;
  }

  c10::DataPtr allocate(size_t bytes) override {
    return allocate(bytes, &CachingAllocator::release_block);
  }

  c10::DataPtr allocate(size_t bytes, c10::DeleterFnPtr release) {
    void* block = bytes == 0 ? nullptr : take_block(bytes);
    return {block, block, release, c10::Device(c10::DeviceType::CPU)};
  }

  c10::DeleterFnPtr raw_deleter() const override {
    return &CachingAllocator::release_block;
  }

  void copy_data(void* destination, const void* source, std::size_t bytes) const override {
    std::memcpy(destination, source, bytes);
  }

  AllocatorCounts counts() {
    std::lock_guard lock(mutex_);
    return {live_bytes_, cached_bytes_};
  }

  void trim() {
    std::unordered_map<size_t, std::vector<void*>> free_blocks;
    {
      std::lock_guard lock(mutex_);
      free_blocks.swap(free_blocks_);
      cached_bytes_ = 0;
    }
    for (auto& [size, blocks] : free_blocks) {
      for (void* block : blocks) {
        unmap(block, size);
      }
    }
  }

  static void unmap_block(void* block) {
    if (block != nullptr) {
      instance().give_back(block, /*keep=*/false);
    }
  }

  static CachingAllocator& instance() {
    static auto* allocator =
        new CachingAllocator();  // leaked: tensors of static lifetime are freed after main
    return *allocator;
  }

 private:
  void* take_block(size_t bytes) {
    // A size near 2**64 (a shape that only overflows once it is rounded) must not wrap to a small one.
    if (bytes > SIZE_MAX / 2) {
      throw_out_of_memory(bytes);
    }
    const size_t size = class_size(bytes);
    {
      std::lock_guard lock(mutex_);
      auto found = free_blocks_.find(size);
      if (found != free_blocks_.end() && !found->second.empty()) {
        void* block = found->second.back();
        found->second.pop_back();
        cached_bytes_ -= size;
        live_bytes_ += bytes;
        live_.emplace(block, bytes);
        return block;
      }
    }
    void* block = map(size);
    if (block == nullptr) {
      trim();
      block = map(size);
      if (block == nullptr) {
        throw_out_of_memory(bytes);
      }
    }
    std::lock_guard lock(mutex_);
    live_bytes_ += bytes;
    live_.emplace(block, bytes);
    return block;
  }

  static void release_block(void* block) {
    if (block != nullptr) {
      instance().give_back(block, /*keep=*/true);
    }
  }

  void give_back(void* block, bool keep) {
    size_t size = 0;
    {
      std::lock_guard lock(mutex_);
      auto found = live_.find(block);
      if (found != live_.end()) {
        size = class_size(found->second);
        live_bytes_ -= found->second;
        live_.erase(found);
        if (keep && cached_bytes_ + size <= limit_) {
          free_blocks_[size].push_back(block);
          cached_bytes_ += size;
          return;
        }
      }
    }
    if (size == 0) {
      std::free(block);  // made by LibTorch's allocator before this one was installed
    } else {
      unmap(block, size);
    }
  }

  static void* map(size_t size) {
    if (size < kLargeBlock) {
      void* block = nullptr;
      return posix_memalign(&block, kAlignment, size) == 0 ? block : nullptr;
    }
    // Map a huge page more than needed, then cut the ends off to an aligned middle.
    const size_t mapped = size + kHugePage;
    void* raw = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (raw == MAP_FAILED) {
      return nullptr;
    }
    const auto start = reinterpret_cast<uintptr_t>(raw);
    const uintptr_t aligned = (start + kHugePage - 1) / kHugePage * kHugePage;
    if (aligned > start) {
      munmap(raw, aligned - start);
    }
    const uintptr_t end = aligned + size;
    if (start + mapped > end) {
      munmap(reinterpret_cast<void*>(end), start + mapped - end);
    }
    void* block = reinterpret_cast<void*>(aligned);
#ifdef MADV_HUGEPAGE
    madvise(block, size, MADV_HUGEPAGE);
#endif
    return block;
  }

  static void unmap(void* block, size_t size) {
    if (size < kLargeBlock) {
      std::free(block);
    } else {
      munmap(block, size);
    }
  }

  [[noreturn]] static void throw_out_of_memory(size_t bytes) {
    throw Error("ERR_SENET_OUT_OF_MEMORY", "could not allocate " + std::to_string(bytes) + " bytes");
  }

  std::mutex mutex_;
  std::unordered_map<void*, size_t> live_;  // block -> bytes that were asked for
  std::unordered_map<size_t, std::vector<void*>> free_blocks_;
  size_t live_bytes_ = 0;
  size_t cached_bytes_ = 0;
  size_t limit_ = 0;
};

}  // namespace

void install_cpu_allocator() {
  static const bool installed = [] {
    c10::SetCPUAllocator(&CachingAllocator::instance(), /*priority=*/1);
    return true;
  }();
  (void)installed;
}

c10::DataPtr allocate_uncached(size_t bytes) {
  return CachingAllocator::instance().allocate(bytes, &CachingAllocator::unmap_block);
}

AllocatorCounts allocator_counts() {
  return CachingAllocator::instance().counts();
}

void trim_cpu_allocator() {
  CachingAllocator::instance().trim();
}

}  // namespace senet::runtime
