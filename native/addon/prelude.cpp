// A tiny addon of its own, required before the one that is linked to LibTorch: what has to be done before
// LibTorch is loaded. Links neither LibTorch nor anything else of this library; without it everything works,
// only slower.
//
// It has that one loaded by a thread of its own, while Node compiles the library's JavaScript
// (lib/preload.ts).
//
// It makes room for what LibTorch registers while it is loaded, some 50 MB of small objects. The heap grows
// by one page after the other for these, and in a virtual machine the page faults take about as long as the
// registration itself.
//
// And it tells OpenMP's threads to wait patiently. By default a thread of libgomp spins for milliseconds at a
// barrier; beside other busy threads (an image decoder, another process) that is time taken from the one it
// waits for, and a forward takes several times as long. A thousand turns cost nothing measurable on an idle
// machine (see CONTRIBUTING.md). libgomp reads the variable when it is loaded and never again; a user's own
// choice stands. It is set here since the process.env of a Worker is a copy.
#include <dlfcn.h>
#include <napi.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>

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

std::atomic<bool> limits_spinning = false;

void limit_spinning() {
  if (std::getenv("OMP_WAIT_POLICY") == nullptr && std::getenv("GOMP_SPINCOUNT") == nullptr) {
    limits_spinning = setenv("GOMP_SPINCOUNT", "1000", 0) == 0;
  }
}

std::mutex loading_mutex;
// Never freed: a process may end while it runs.
std::thread* loading = nullptr;

// Loads the addon at the path, once for the process. Its heap is that of the thread, so the room is made
// there. Whoever requires the addon later finds it loaded, or meets the error that is passed over here.
void begin_loading(const Napi::CallbackInfo& info) {
  const std::string path = info[0].As<Napi::String>();
  static std::once_flag once;
  std::call_once(once, [&path] {
    limit_spinning();
    const std::lock_guard lock(loading_mutex);
    try {
      loading = new std::thread([path] {
        make_room();
        dlopen(path.c_str(), RTLD_LAZY);
      });
    } catch (const std::system_error&) {
      // no thread to be had: it is loaded when it is required
    }
  });
}

// Waits until the addon is loaded. Child processes are not to inherit what it was told by the environment.
void end_loading(const Napi::CallbackInfo&) {
  const std::lock_guard lock(loading_mutex);
  if (loading != nullptr && loading->joinable()) {
    loading->join();
  }
  if (limits_spinning.exchange(false)) {
    unsetenv("GOMP_SPINCOUNT");
  }
}

Napi::Object initialise(Napi::Env env, Napi::Object exports) {
  exports.Set("beginLoading", Napi::Function::New(env, begin_loading));
  exports.Set("endLoading", Napi::Function::New(env, end_loading));
  return exports;
}

}  // namespace

NODE_API_MODULE(senet_prelude, initialise)
