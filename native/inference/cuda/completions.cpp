#include "inference/cuda/completions.h"

#include <sys/prctl.h>

#include <chrono>
#include <iterator>
#include <thread>
#include <utility>

namespace senet::inference::cuda {
namespace {

// Between two questions: a small part of what the shortest batch takes. Asking costs a microsecond or two.
constexpr auto kPause = std::chrono::microseconds(20);
// Who was watched for so long is no short batch.
constexpr auto kLong = std::chrono::milliseconds(4);
constexpr auto kLongPause = std::chrono::microseconds(100);

}  // namespace

Completions& Completions::instance() {
  static auto* const instance = new Completions;
  return *instance;
}

void Completions::watch(const Driver& driver, int device, Event event, Told told) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!has_thread_) {
      std::thread(&Completions::run, this).detach();
      has_thread_ = true;
    }
    watched_.push_back({&driver, device, event, std::move(told)});
  }
  wake_.notify_one();
}

void Completions::run() {
#ifdef PR_SET_TIMERSLACK
  prctl(PR_SET_TIMERSLACK, 1000UL);  // nanoseconds; the usual 50,000 would be most of a pause
#endif
  std::vector<Watched> asked;
  int current = -1;
  auto since = std::chrono::steady_clock::now();
  for (;;) {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      if (asked.empty()) {
        wake_.wait(lock, [&] { return !watched_.empty(); });
        since = std::chrono::steady_clock::now();
      }
      asked.insert(asked.end(), std::make_move_iterator(watched_.begin()),
                   std::make_move_iterator(watched_.end()));
      watched_.clear();
    }
    bool has_any_come = false;
    for (size_t i = 0; i < asked.size();) {
      const Driver& driver = *asked[i].driver;
      // Without it the first question would start the first device for this thread.
      if (asked[i].device != current && driver.cudaSetDevice(asked[i].device) == 0) {
        current = asked[i].device;
      }
      const int status = driver.cudaEventQuery(asked[i].event);
      if (status == runtime::kCudaErrorNotReady) {
        driver.cudaGetLastError();
        ++i;
        continue;
      }
      const Told told = std::move(asked[i].told);
      asked.erase(asked.begin() + static_cast<std::ptrdiff_t>(i));
      has_any_come = true;
      told(status);
    }
    const auto now = std::chrono::steady_clock::now();
    since = has_any_come ? now : since;
    if (!asked.empty()) {
      std::this_thread::sleep_for(now - since > kLong ? kLongPause : kPause);
    }
  }
}

}  // namespace senet::inference::cuda
