// Who is told when a device has come to an event, without a thread that waits for it: one thread of the
// process asks, as long as there is anything to ask for. (A function that CUDA calls itself,
// cudaLaunchHostFunc, is never called on a device that was lost, so whoever waits for it would wait for
// ever.) Knows no LibTorch.
#pragma once

#include "runtime/cuda_driver.h"

#include <condition_variable>
#include <functional>
#include <mutex>
#include <vector>

namespace senet::inference::cuda {

using namespace runtime::cuda;

class Completions {
 public:
  /// What cudaEventQuery answered at last: 0, or what became of the device.
  using Told = std::function<void(int status)>;

  /// There is one, for ever.
  static Completions& instance();

  /// Calls `told` once, on a thread of its own, when `event`, which was recorded on `device`, has come or
  /// will never come. It should be short: all others wait meanwhile. The event stays until then.
  void watch(const Driver& driver, int device, Event event, Told told);

 private:
  struct Watched {
    const Driver* driver;
    int device;
    Event event;
    Told told;
  };

  Completions() = default;
  void run();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Watched> watched_;  // that the thread has not taken yet
  bool has_thread_ = false;
};

}  // namespace senet::inference::cuda
