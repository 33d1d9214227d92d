// What is kept of freed memory, for how long and how much. Time passes by ticks, so nothing here depends on
// the machine's pace; what came from the system and not from the cache is counted.
#include "runtime/block_cache.h"

#include "core/error.h"
#include "support.h"

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace senet::test {
namespace {

using runtime::BlockCache;

constexpr size_t kMiB = size_t{1} << 20;
constexpr size_t kAmple = size_t{4} << 30;

void expect_equal(const std::string& what, uint64_t actual, uint64_t expected) {
  REQUIRE_MESSAGE(actual == expected, what, ": expected ", expected, ", got ", actual);
}

void pass(BlockCache& cache, int64_t ticks) {
  for (int64_t i = 0; i < ticks; ++i) {
    cache.tick();
  }
}

/// Takes blocks of these sizes together, and gives all back.
void round_of(BlockCache& cache, const std::vector<size_t>& sizes) {
  std::vector<void*> blocks;
  for (const size_t size : sizes) {
    blocks.push_back(cache.take(size));
  }
  for (void* block : blocks) {
    cache.give_back(block, true);
  }
}

TEST_CASE("block cache: what nobody takes for its age goes back, large blocks sooner") {
  BlockCache cache(kAmple);
  round_of(cache, {kMiB, BlockCache::kLarge});
  expect_equal("cached", cache.counts().cached_bytes, kMiB + BlockCache::kLarge);
  pass(cache, BlockCache::kLargeAge);
  expect_equal("before the large one's age", cache.counts().cached_bytes, kMiB + BlockCache::kLarge);
  pass(cache, 1);
  expect_equal("after the large one's age", cache.counts().cached_bytes, kMiB);
  pass(cache, BlockCache::kAge - BlockCache::kLargeAge - 1);
  expect_equal("before the other's age", cache.counts().cached_bytes, kMiB);
  pass(cache, 1);
  expect_equal("after it", cache.counts().cached_bytes, 0);
  bool left = true;
  for (int64_t i = 0; i < BlockCache::kLongestAge && left; ++i) {
    left = cache.tick();
  }
  REQUIRE_MESSAGE(!left, "nothing is left that time could change, and it says so");
  expect_equal("alive", cache.counts().live_bytes, 0);
}

TEST_CASE("block cache: a burst goes back while jobs go on, and they keep their blocks") {
  BlockCache cache(kAmple);
  round_of(cache, {kMiB, kMiB});
  round_of(cache, {900 * kMiB, 30 * kMiB, 30 * kMiB});
  REQUIRE_MESSAGE(cache.counts().cached_bytes >= 900 * kMiB, "the burst is cached at first");
  const uint64_t before = cache.counts().mappings;
  for (int64_t i = 0; i < 2 * BlockCache::kMemoryOfPeaks; ++i) {
    round_of(cache, {kMiB, kMiB});  // jobs go on
    cache.tick();
    if (i == BlockCache::kLargeAge) {
      REQUIRE_MESSAGE(cache.counts().cached_bytes < 100 * kMiB, "the large block is gone");
    }
    if (i == BlockCache::kAge) {
      expect_equal("only what the jobs use is left", cache.counts().cached_bytes, 2 * kMiB);
    }
  }
  expect_equal("the jobs found their blocks", cache.counts().mappings, before);
  expect_equal("the burst is forgotten", cache.counts().limit, BlockCache::kLeastLimit);
}

TEST_CASE("block cache: steady work keeps its blocks at any pace") {
  // Whatever the pace, up to the longest age: after the round that misses what went back, none misses
  // anything.
  for (const int64_t pace : {int64_t{0}, BlockCache::kLargeAge + 1, BlockCache::kAge + 1, int64_t{30}}) {
    BlockCache cache(kAmple);
    const std::vector<size_t> sizes{3 * kMiB, 3 * kMiB, 100 * kMiB, 200 * kMiB, 1000};
    uint64_t before = 0;
    for (int round = 0; round < 12; ++round) {
      round_of(cache, sizes);
      pass(cache, pace);
      before = round == 1 ? cache.counts().mappings : before;
    }
    expect_equal(text("mappings at a pace of ", pace), cache.counts().mappings, before);
    pass(cache, BlockCache::kLongestAge + 1);
    expect_equal("and when it ends", cache.counts().cached_bytes, 0);
  }
}

TEST_CASE("block cache: the limit follows what was alive") {
  BlockCache cache(kAmple);
  expect_equal("the least", cache.counts().limit, BlockCache::kLeastLimit);
  std::vector<void*> held;
  for (int i = 0; i < 10; ++i) {
    held.push_back(cache.take(32 * kMiB));
  }
  expect_equal("twice the peak", cache.counts().limit, 2 * 320 * kMiB);
  for (void* block : held) {
    cache.give_back(block, true);
  }
  expect_equal("all of it is kept", cache.counts().cached_bytes, 320 * kMiB);
  // Sizes that never come again: together no more than the limit.
  for (size_t size = 33 * kMiB; size < 64 * kMiB; size += kMiB) {
    round_of(cache, {size, size});
    const BlockCache::Counts counts = cache.counts();
    REQUIRE_MESSAGE(counts.cached_bytes <= counts.limit, counts.cached_bytes, " bytes are above ",
                    counts.limit);
  }

  BlockCache bounded(8 * kMiB);
  round_of(bounded, {6 * kMiB, 6 * kMiB, 6 * kMiB});
  expect_equal("bounded", bounded.counts().cached_bytes, 6 * kMiB);
  BlockCache off(0);
  round_of(off, {kMiB, 10 * kMiB});
  expect_equal("switched off", off.counts().cached_bytes, 0);
  expect_equal("switched off, alive", off.counts().live_bytes, 0);
}

TEST_CASE("block cache: blocks") {
  BlockCache cache(kAmple);
  void* first = cache.take(5 * kMiB);
  std::memset(first, 1, 5 * kMiB);
  REQUIRE_MESSAGE(reinterpret_cast<uintptr_t>(first) % 64 == 0, "not aligned");
  REQUIRE_MESSAGE(cache.give_back(first, true), "kept");
  void* again = cache.take(5 * kMiB);
  REQUIRE_MESSAGE(again == first, "the same block again");
  REQUIRE_MESSAGE(!cache.give_back(again, false), "not kept where nobody wants it");
  REQUIRE_MESSAGE(!cache.give_back(std::malloc(8), true), "another's block is freed");
  round_of(cache, {kMiB});
  cache.trim();
  expect_equal("trimmed", cache.counts().cached_bytes, 0);
  for (const size_t impossible : {SIZE_MAX, SIZE_MAX / 4}) {
    try {
      cache.take(impossible);
    } catch (const Error& error) {
      REQUIRE_MESSAGE(std::string(error.code()) == "ERR_SENET_OUT_OF_MEMORY", error.code());
      continue;
    }
    REQUIRE_MESSAGE(false, "took ", impossible, " bytes");
  }
}

}  // namespace
}  // namespace senet::test
