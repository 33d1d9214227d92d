// How long a device works on something. Knows no LibTorch.
#pragma once

#include "runtime/cuda_driver.h"

namespace senet::inference::cuda {

using namespace runtime::cuda;

class TimedEvent {
 public:
  explicit TimedEvent(const Driver& driver) : driver_(driver) {
    check_cuda(driver, driver.cudaEventCreateWithFlags(&event_, 0), "an event");
  }
  ~TimedEvent() {
    driver_.cudaEventDestroy(event_);
  }
  TimedEvent(const TimedEvent&) = delete;
  TimedEvent& operator=(const TimedEvent&) = delete;

  void record(Stream stream) const {
    check_cuda(driver_, driver_.cudaEventRecord(event_, stream), "an event");
  }
  /// Waits for it; milliseconds since `first`.
  float since(const TimedEvent& first) const {
    float milliseconds = 0;
    check_cuda(driver_, driver_.cudaEventSynchronize(event_), "a measurement");
    check_cuda(driver_, driver_.cudaEventElapsedTime(&milliseconds, first.event_, event_), "an event");
    return milliseconds;
  }

 private:
  const Driver& driver_;
  Event event_ = nullptr;
};

/// How long the device works on what is enqueued between start() and stop().
class Stopwatch {
 public:
  explicit Stopwatch(const Driver& driver) : start_(driver), stop_(driver) {}

  void start(Stream stream) const {
    start_.record(stream);
  }
  /// Waits; milliseconds.
  float stop(Stream stream) const {
    stop_.record(stream);
    return stop_.since(start_);
  }

 private:
  const TimedEvent start_;
  const TimedEvent stop_;
};

}  // namespace senet::inference::cuda
