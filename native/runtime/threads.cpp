#include "runtime/threads.h"

#include "core/error.h"

#include <ATen/Parallel.h>

#include <condition_variable>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

namespace senet::runtime {
namespace {

// Lets `count` threads be alive at once, of the same kind and stack as OpenMP's.
void try_threads(int count) {
  std::mutex mutex;
  std::condition_variable wake;
  bool all = false;
  std::vector<std::thread> threads;
  threads.reserve(static_cast<size_t>(count));
  std::string refusal;
  try {
    while (threads.size() < static_cast<size_t>(count)) {
      threads.emplace_back([&] {
        std::unique_lock lock(mutex);
        wake.wait(lock, [&] { return all; });
      });
    }
  } catch (const std::system_error& error) {
    refusal = error.code().message();
  }
  {
    const std::lock_guard lock(mutex);
    all = true;
  }
  wake.notify_all();
  for (std::thread& thread : threads) {
    thread.join();
  }
  if (!refusal.empty()) {
    throw Error("ERR_SENET_THREADS",
                "a job needs " + std::to_string(count) + " threads beside its own, and the system gave " +
                    std::to_string(threads.size()) + " (" + refusal +
                    "); raise the limit (ulimit -u, ulimit -v, the cgroup's pids.max) or configure({ "
                    "threadsPerWorker: " +
                    std::to_string(threads.size() + 1) + " })");
  }
}

}  // namespace

void use_threads(int count) {
  thread_local int current = 0;
  if (current == count) {
    return;
  }
  if (count > current) {
    try_threads(count - 1);
  }
  at::internal::lazy_init_num_threads();
  at::get_num_threads();
  at::set_num_threads(count);
  at::parallel_for(0, count, 1, [](int64_t, int64_t) {});
  current = count;
}

}  // namespace senet::runtime
