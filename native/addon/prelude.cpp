// A tiny addon of its own, required before the one that is linked to LibTorch: it makes room for what
// LibTorch registers while it is loaded, some 50 MB of small objects. The heap grows by one page after the
// other for these, and in a virtual machine the page faults take as long as the registration itself. Made of
// huge pages beforehand, loading takes about half the time. Links neither LibTorch nor anything else of this
// library.
#include <napi.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>

#if defined(__GLIBC__)
#include <sys/mman.h>
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25  // Linux 6.1, newer than some headers
#endif
#endif

namespace {

// What LibTorch 2.13 allocates; another version's difference costs page faults, or is left to the rest of the
// process.
constexpr size_t kRoom = size_t{52} << 20;
// Below the size from which malloc maps blocks of their own (128 KiB, unless it has grown).
constexpr size_t kBlock = size_t{100} << 10;
constexpr size_t kBlocks = kRoom / kBlock;
constexpr uintptr_t kHugePage = uintptr_t{2} << 20;

// Grows the heap, has the kernel put huge pages under it (an older kernel refuses, and nothing is lost), and
// frees all but the last block, below which the free memory stays with the heap.
void make_room() {
#if defined(__GLIBC__)
  const auto blocks = std::make_unique<void*[]>(kBlocks);
  size_t count = 0;
  while (count < kBlocks && (blocks[count] = std::malloc(kBlock)) != nullptr) {
    ++count;
  }
  if (count == kBlocks) {
    const uintptr_t start = (reinterpret_cast<uintptr_t>(blocks[0]) + kHugePage - 1) & ~(kHugePage - 1);
    const uintptr_t end = reinterpret_cast<uintptr_t>(blocks[kBlocks - 1]) & ~(kHugePage - 1);
    // The blocks lie in a row unless the heap was in pieces; advice about anything else would be harmless,
    // but not cheap.
    if (start < end && end - start <= 2 * kRoom) {
      madvise(reinterpret_cast<void*>(start), end - start, MADV_COLLAPSE);
    }
    --count;
  }
  for (size_t i = 0; i < count; ++i) {
    std::free(blocks[i]);
  }
#endif
}

Napi::Object initialise(Napi::Env /*env*/, Napi::Object exports) {
  static std::once_flag once;
  std::call_once(once, make_room);
  return exports;
}

}  // namespace

NODE_API_MODULE(senet_prelude, initialise)
