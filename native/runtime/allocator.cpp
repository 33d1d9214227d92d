#include "runtime/allocator.h"

#include "runtime/block_cache.h"
#include "runtime/machine.h"

#include <c10/core/CPUAllocator.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>

namespace senet::runtime {
namespace {

constexpr auto kTick = std::chrono::milliseconds(500);
// The cache may hold this share of the memory that the process is granted, however much is alive.
constexpr size_t kCacheShare = 8;

size_t highest_limit() {
  const char* wish = std::getenv("SENET_CACHING_ALLOCATOR");
  return wish != nullptr && std::string(wish) == "0" ? 0 : available_memory() / kCacheShare;
}

class CachingAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    return allocate(bytes, &CachingAllocator::release);
  }

  c10::DataPtr allocate(size_t bytes, c10::DeleterFnPtr release) {
    void* block = bytes == 0 ? nullptr : cache_.take(bytes);
    return {block, block, release, c10::Device(c10::DeviceType::CPU)};
  }

  c10::DeleterFnPtr raw_deleter() const override {
    return &CachingAllocator::release;
  }

  void copy_data(void* destination, const void* source, std::size_t bytes) const override {
    std::memcpy(destination, source, bytes);
  }

  BlockCache& cache() {
    return cache_;
  }

  static void release(void* block) {
    if (block != nullptr && instance().cache_.give_back(block, /*keep=*/true)) {
      instance().keep_time();
    }
  }

  static void release_uncached(void* block) {
    if (block != nullptr) {
      instance().cache_.give_back(block, /*keep=*/false);
    }
  }

  static CachingAllocator& instance() {
    static auto* allocator =
        new CachingAllocator();  // leaked: tensors of static lifetime are freed after main
    return *allocator;
  }

 private:
  // A block was kept: somebody has to see it grow old.
  void keep_time() {
    if (resting_.load()) {
      std::lock_guard lock(mutex_);
      if (!started_) {
        start();
      }
      wake_.notify_one();
    }
  }

  void start() {
    started_ = true;
    try {
      std::thread(&CachingAllocator::run_timer, this).detach();
    } catch (const std::system_error&) {
      started_ = false;  // the system has no thread to spare: the next block that is kept tries again
    }
  }

  // The thread that counts the cache's ticks, for as long as there is something to age.
  void run_timer() {
    std::unique_lock lock(mutex_);
    while (true) {
      resting_ = true;  // before it looks: whoever keeps a block after that sees it
      wake_.wait(lock, [&] { return cache_.counts().cached_bytes > 0; });
      resting_ = false;
      lock.unlock();
      do {
        std::this_thread::sleep_for(kTick);
      } while (cache_.tick());
      lock.lock();
    }
  }

  BlockCache cache_{highest_limit()};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<bool> resting_ = true;
  bool started_ = false;
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
  return CachingAllocator::instance().allocate(bytes, &CachingAllocator::release_uncached);
}

BlockCache::Counts allocator_counts() {
  return CachingAllocator::instance().cache().counts();
}

}  // namespace senet::runtime
