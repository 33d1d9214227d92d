// Blocks of memory, and the freed ones that are kept for the next allocation of their size: for a time, and
// up to a limit.
//
// Time is counted in ticks, by whoever owns the cache. A free block that nobody takes for an age goes back to
// the system, a large one sooner. A size that is wanted again soon after its block went back (a training step
// may take many seconds) is kept longer from then on, so steady work keeps its blocks whatever its pace.
//
// The limit of what is kept follows what was alive at most, lately. One round of steady work leaves behind up
// to twice that (measured: 1.2 times in training, 2 in a forward whose maps shrink from block to block),
// since its parts hold blocks of different sizes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <unordered_map>
#include <vector>

namespace senet::runtime {

class BlockCache {
 public:
  // In ticks.
  static constexpr int64_t kAge = 10;
  static constexpr int64_t kLargeAge = 2;
  static constexpr int64_t kLongestAge = 60;
  static constexpr int64_t kMemoryOfPeaks = 60;
  // From here on a block is large.
  static constexpr size_t kLarge = size_t{64} << 20;
  // From here on a block from the system must fit into what is free.
  static constexpr size_t kHuge = size_t{256} << 20;
  // The limit is no smaller, unless the constructor's is.
  static constexpr size_t kLeastLimit = size_t{64} << 20;

  struct Counts {
    size_t live_bytes;    // asked for, and not given back
    size_t cached_bytes;  // of free blocks
    size_t limit;         // of cached_bytes, at present
    uint64_t mappings;    // blocks that came from the system so far
  };

  /// Whatever is alive, no more than `limit` bytes are kept; with 0 the blocks are only counted.
  explicit BlockCache(size_t limit) : highest_limit_(limit) {}
  ~BlockCache() {
    trim();
  }

  /// Aligned to 64 bytes. Throws ERR_SENET_OUT_OF_MEMORY when the system has none, even for all that is
  /// cached; also where it would promise memory that is not there, and end the process when that is used.
  void* take(size_t bytes);
  /// Keeps the block for the next one of its size, if `keep` and the limit allow it; whether it did. A block
  /// that is not the cache's own was made by malloc, and is freed.
  bool give_back(void* block, bool keep);

  /// Lets a tick pass: what has been free for its age, or is above the limit, goes back to the system. False
  /// when nothing is left that time could change.
  bool tick();
  /// Gives every free block back to the system.
  void trim();

  Counts counts();

 private:
  static constexpr int64_t kNever = -1;
  struct FreeBlock {
    void* memory;
    int64_t since;
  };
  struct SizeClass {
    std::vector<FreeBlock> free;  // by time, the latest at the end, which is taken first
    int64_t age = 0;
    int64_t last_used = 0;
    int64_t missing_since =
        kNever;  // when a block became free that went back to the system and was not wanted since
  };
  using Sized = std::pair<void*, size_t>;

  void* map_if_it_fits(size_t size);
  // With mutex_ held.
  size_t limit() const;
  void* reuse(size_t size);
  void count_live(void* block, size_t bytes);
  void expire(size_t size, SizeClass& blocks, size_t count, std::vector<Sized>& gone);
  void expire_oldest(std::vector<Sized>& gone);

  std::mutex mutex_;
  std::unordered_map<void*, size_t> live_;  // block -> bytes that were asked for
  std::unordered_map<size_t, SizeClass> classes_;
  size_t live_bytes_ = 0;
  size_t cached_bytes_ = 0;
  size_t peak_ = 0;          // of live_bytes_ since peak_since_
  size_t earlier_peak_ = 0;  // and in as long a time before
  int64_t peak_since_ = 0;
  int64_t now_ = 0;
  uint64_t mappings_ = 0;
  const size_t highest_limit_;
};

}  // namespace senet::runtime
