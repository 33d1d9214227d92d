// Where the threads of a run wait for each other between steps. OpenMP's own barrier spins for as long as its
// environment says, and hardly at all once the process has more OpenMP threads than processors (the
// JavaScript thread has a team of its own); sleeping and waking costs as much as a small step. This one spins
// for about as long as a step may differ between threads, and then sleeps, so that other processes lose
// little.
#pragma once

#include <atomic>
#include <cstdint>

namespace senet::inference {

class Barrier {
 public:
  /// Returns when all `members` have called it. They may call it again at once.
  void wait(int32_t members) noexcept {
    const uint32_t phase = phase_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == members) {
      arrived_.store(0, std::memory_order_relaxed);
      phase_.store(phase + 1, std::memory_order_release);
      phase_.notify_all();
      return;
    }
    for (int spins = 0; spins < kSpins; ++spins) {
      if (phase_.load(std::memory_order_acquire) != phase) {
        return;
      }
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
    phase_.wait(phase, std::memory_order_acquire);
  }

 private:
  static constexpr int kSpins = 4000;  // 50 to 100 microseconds

  std::atomic<int32_t> arrived_ = 0;
  std::atomic<uint32_t> phase_ = 0;
};

}  // namespace senet::inference
