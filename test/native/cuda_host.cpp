#include "cuda_host.h"

#include <ucontext.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <vector>

namespace senet::test {

Index3 threadIdx;
Index3 blockIdx;
Index3 blockDim;
Index3 gridDim;
alignas(16) float scratch[kSharedFloats];

namespace {

constexpr size_t kStackBytes = size_t{32} << 10;  // the sanitizer clears all of it at each switch
constexpr unsigned kWarp = 32;

// What a thread waits for.
enum class Wait { kNothing, kBlock, kWarp, kEnded };

// The stack of a thread that waits. A thread that never waits needs none of its own: the next begins on its
// stack.
struct Fiber {
  std::unique_ptr<char[]> stack{new char[kStackBytes]};
  ucontext_t context{};
  void* asan = nullptr;
  unsigned thread = 0;
  Wait wait = Wait::kNothing;
};

class BlockRun {
 public:
  BlockRun(const std::function<void()>& kernel, std::vector<std::unique_ptr<Fiber>>& fibers)
      : kernel_(kernel), fibers_(fibers), count_(blockDim.x * blockDim.y * blockDim.z) {}

  void run() {
    while (next_ < count_) {
      if (used_ == fibers_.size()) {
        fibers_.push_back(std::make_unique<Fiber>());
      }
      start(*fibers_[used_++]);
    }
    while (release()) {
      for (size_t i = 0; i < used_; ++i) {
        if (fibers_[i]->wait == Wait::kNothing) {
          resume(*fibers_[i]);
        }
      }
    }
  }

  void wait(Wait what) {
    Fiber& fiber = *running_;
    fiber.wait = what;
    leave(fiber, &fiber.asan);
    place(fiber.thread);
  }

  float shuffle(float value, unsigned other) {
    if (shuffles_.empty()) {
      shuffles_.resize(count_);
      slots_[0].resize(count_);
      slots_[1].resize(count_);
    }
    // The next shuffle's values must not take the place of those that other lanes still read.
    std::vector<float>& slots = slots_[shuffles_[running_->thread]++ % 2];
    const unsigned thread = running_->thread;
    slots[thread] = value;
    wait(Wait::kWarp);
    return slots.at(thread ^ other);
  }

  static BlockRun* current;

 private:
  // Lets go on who waits for nobody any more; false when all have ended.
  bool release() {
    std::vector<unsigned> here((count_ + kWarp - 1) / kWarp);  // threads of each warp that wait to shuffle
    unsigned at_barrier = 0;
    bool is_over = true;
    for (size_t i = 0; i < used_; ++i) {
      here[fibers_[i]->thread / kWarp] += fibers_[i]->wait == Wait::kWarp ? 1 : 0;
      at_barrier += fibers_[i]->wait == Wait::kBlock ? 1 : 0;
      is_over = is_over && fibers_[i]->wait == Wait::kEnded;
    }
    bool any = false;
    for (size_t i = 0; i < used_; ++i) {
      Fiber& fiber = *fibers_[i];
      const unsigned warp = fiber.thread / kWarp;
      const bool is_warp_here = here[warp] == std::min(kWarp, count_ - warp * kWarp);
      if (at_barrier == count_ || (is_warp_here && fiber.wait == Wait::kWarp)) {
        fiber.wait = Wait::kNothing;
        any = true;
      }
    }
    if (!any && !is_over) {
      throw std::logic_error("threads of a block wait for others that never come");
    }
    return any;
  }

  void place(unsigned thread) {
    threadIdx = {thread % blockDim.x, thread / blockDim.x % blockDim.y, thread / blockDim.x / blockDim.y};
  }

  static void enter() {
    BlockRun& run = *current;
    run.arrived(nullptr);
    Fiber& fiber = *run.running_;
    while (run.next_ < run.count_) {
      fiber.thread = run.next_++;
      run.place(fiber.thread);
      run.kernel_();
    }
    fiber.wait = Wait::kEnded;
    run.leave(fiber, nullptr);
  }

  void start(Fiber& fiber) {
    fiber.wait = Wait::kNothing;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStackBytes;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, &BlockRun::enter, 0);
    resume(fiber);
  }

  void resume(Fiber& fiber) {
    running_ = &fiber;
#ifdef __SANITIZE_ADDRESS__
    void* own = nullptr;
    __sanitizer_start_switch_fiber(&own, fiber.stack.get(), kStackBytes);
#endif
    swapcontext(&scheduler_, &fiber.context);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(own, nullptr, nullptr);
#endif
  }

  // Back to the scheduler; `asan` is where to keep what the sanitizer knows of this stack, null if it ends.
  void leave(Fiber& fiber, [[maybe_unused]] void** asan) {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(asan, scheduler_stack_, scheduler_bytes_);
#endif
    swapcontext(&fiber.context, &scheduler_);
    arrived(fiber.asan);
  }

  void arrived([[maybe_unused]] void* asan) {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(asan, &scheduler_stack_, &scheduler_bytes_);
#endif
  }

  const std::function<void()>& kernel_;
  std::vector<std::unique_ptr<Fiber>>& fibers_;
  const unsigned count_;
  std::vector<float> slots_[2];
  std::vector<unsigned> shuffles_;
  unsigned next_ = 0;  // thread to begin
  size_t used_ = 0;    // fibers
  Fiber* running_ = nullptr;
  ucontext_t scheduler_{};
  const void* scheduler_stack_ = nullptr;
  size_t scheduler_bytes_ = 0;
};

BlockRun* BlockRun::current = nullptr;

// Only so many bytes of shared memory may be touched.
void allow_shared([[maybe_unused]] size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
  ASAN_UNPOISON_MEMORY_REGION(scratch, sizeof scratch);
#endif
  std::fill(std::begin(scratch), std::end(scratch), std::nanf(""));
#ifdef __SANITIZE_ADDRESS__
  ASAN_POISON_MEMORY_REGION(reinterpret_cast<char*>(scratch) + bytes, sizeof scratch - bytes);
#endif
}

}  // namespace

void __syncthreads() {
  BlockRun::current->wait(Wait::kBlock);
}

float __shfl_xor_sync(unsigned mask, float value, int other) {
  if (mask != 0xffffffff) {
    throw std::logic_error("a shuffle of a part of a warp");
  }
  return BlockRun::current->shuffle(value, static_cast<unsigned>(other));
}

void launch(const std::function<void()>& kernel, Index3 grid, Index3 block, size_t shared_bytes) {
  static std::vector<std::unique_ptr<Fiber>> fibers;
  gridDim = grid;
  blockDim = block;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        blockIdx = {x, y, z};
        if (shared_bytes > 0) {
          allow_shared(shared_bytes);
        }
        BlockRun run(kernel, fibers);
        BlockRun::current = &run;
        run.run();
      }
    }
  }
  allow_shared(0);
}

}  // namespace senet::test
