#include "runtime/block_cache.h"

#include "core/error.h"
#include "runtime/machine.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <string>
#include <utility>

namespace senet::runtime {
namespace {

constexpr size_t kAlignment = 64;
// From here on a block is a mapping of its own, aligned so that the kernel can back it with huge pages.
constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kOwnMapping = size_t{4} << 20;

// Four classes to a doubling, so that rounding up wastes at most a quarter, and a fifth on average less.
size_t class_size(size_t bytes) {
  if (bytes <= kAlignment) {
    return kAlignment;
  }
  const size_t step = std::max(std::bit_floor(bytes - 1) / 4, kAlignment);
  return (bytes + step - 1) / step * step;
}

int64_t usual_age(size_t size) {
  return size >= BlockCache::kLarge ? BlockCache::kLargeAge : BlockCache::kAge;
}

void* map(size_t size) {
  if (size < kOwnMapping) {
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

void unmap(void* block, size_t size) {
  if (size < kOwnMapping) {
    std::free(block);
  } else {
    munmap(block, size);
  }
}

void unmap_all(const std::vector<std::pair<void*, size_t>>& blocks) {
  for (const auto& [block, size] : blocks) {
    unmap(block, size);
  }
}

[[noreturn]] void throw_out_of_memory(size_t bytes) {
  throw Error("ERR_SENET_OUT_OF_MEMORY", "could not allocate " + std::to_string(bytes) + " bytes");
}

}  // namespace

size_t BlockCache::limit() const {
  return std::min(highest_limit_, std::max(kLeastLimit, 2 * std::max(peak_, earlier_peak_)));
}

void BlockCache::count_live(void* block, size_t bytes) {
  live_.emplace(block, bytes);
  live_bytes_ += bytes;
  peak_ = std::max(peak_, live_bytes_);
}

void* BlockCache::reuse(size_t size) {
  const auto found = classes_.find(size);
  if (found == classes_.end()) {
    return nullptr;
  }
  SizeClass& blocks = found->second;
  blocks.last_used = now_;
  if (!blocks.free.empty()) {
    void* block = blocks.free.back().memory;
    blocks.free.pop_back();
    cached_bytes_ -= size;
    return block;
  }
  if (blocks.missing_since != kNever) {
    blocks.age = std::clamp(2 * (now_ - blocks.missing_since), blocks.age, kLongestAge);
    blocks.missing_since = kNever;
  }
  return nullptr;
}

void* BlockCache::map_if_it_fits(size_t size) {
  static const size_t granted = available_memory();
  {
    std::lock_guard lock(mutex_);
    if (size > granted || live_bytes_ > granted - size) {
      return nullptr;
    }
  }
  return size < kHuge || size <= free_memory() ? map(size) : nullptr;
}

void* BlockCache::take(size_t bytes) {
  // A size near 2**64 (a shape that only overflows once it is rounded) must not wrap to a small one.
  if (bytes > SIZE_MAX / 2) {
    throw_out_of_memory(bytes);
  }
  const size_t size = class_size(bytes);
  {
    std::lock_guard lock(mutex_);
    if (void* block = reuse(size)) {
      count_live(block, bytes);
      return block;
    }
  }
  void* block = map_if_it_fits(size);
  if (block == nullptr) {
    trim();
    block = map_if_it_fits(size);
    if (block == nullptr) {
      throw_out_of_memory(bytes);
    }
  }
  std::lock_guard lock(mutex_);
  ++mappings_;
  count_live(block, bytes);
  return block;
}

bool BlockCache::give_back(void* block, bool keep) {
  size_t size = 0;
  {
    std::lock_guard lock(mutex_);
    const auto found = live_.find(block);
    if (found != live_.end()) {
      size = class_size(found->second);
      live_bytes_ -= found->second;
      live_.erase(found);
      // Not an older one in its place: work that goes round would find none of its blocks when it needs them.
      if (keep && cached_bytes_ + size <= limit()) {
        SizeClass& blocks = classes_.try_emplace(size, SizeClass{{}, usual_age(size)}).first->second;
        blocks.free.push_back({block, now_});
        blocks.last_used = now_;
        cached_bytes_ += size;
        return true;
      }
    }
  }
  if (size == 0) {
    std::free(block);
  } else {
    unmap(block, size);
  }
  return false;
}

// The first `count` of a class.
void BlockCache::expire(size_t size, SizeClass& blocks, size_t count, std::vector<Sized>& gone) {
  if (count == 0) {
    return;
  }
  blocks.missing_since = blocks.free[count - 1].since;
  for (size_t i = 0; i < count; ++i) {
    gone.emplace_back(blocks.free[i].memory, size);
  }
  blocks.free.erase(blocks.free.begin(), blocks.free.begin() + static_cast<ptrdiff_t>(count));
  cached_bytes_ -= count * size;
}

void BlockCache::expire_oldest(std::vector<Sized>& gone) {
  const auto since = [](const auto& entry) {
    return entry.second.free.empty() ? INT64_MAX : entry.second.free.front().since;
  };
  const auto oldest = std::min_element(classes_.begin(), classes_.end(),
                                       [&](const auto& a, const auto& b) { return since(a) < since(b); });
  expire(oldest->first, oldest->second, 1, gone);
}

bool BlockCache::tick() {
  std::vector<Sized> gone;
  bool left = false;
  {
    std::lock_guard lock(mutex_);
    ++now_;
    if (now_ - peak_since_ >= kMemoryOfPeaks) {
      earlier_peak_ = std::exchange(peak_, live_bytes_);
      peak_since_ = now_;
    }
    for (auto& [size, blocks] : classes_) {
      const auto young =
          std::find_if(blocks.free.begin(), blocks.free.end(),
                       [&, age = blocks.age](const FreeBlock& block) { return now_ - block.since <= age; });
      expire(size, blocks, static_cast<size_t>(young - blocks.free.begin()), gone);
    }
    while (cached_bytes_ > limit()) {
      expire_oldest(gone);
    }
    std::erase_if(classes_, [&](const auto& entry) {
      return entry.second.free.empty() && now_ - entry.second.last_used > kLongestAge;
    });
    left = !classes_.empty();
    if (!left) {
      // Nobody may count the ticks from here on.
      peak_ = earlier_peak_ = live_bytes_;
    }
  }
  unmap_all(gone);
  return left;
}

void BlockCache::trim() {
  std::vector<Sized> gone;
  {
    std::lock_guard lock(mutex_);
    for (const auto& [size, blocks] : classes_) {
      for (const FreeBlock& block : blocks.free) {
        gone.emplace_back(block.memory, size);
      }
    }
    classes_.clear();
    cached_bytes_ = 0;
  }
  unmap_all(gone);
}

BlockCache::Counts BlockCache::counts() {
  std::lock_guard lock(mutex_);
  return {live_bytes_, cached_bytes_, limit(), mappings_};
}

}  // namespace senet::runtime
