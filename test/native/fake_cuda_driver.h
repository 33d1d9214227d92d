// NVIDIA's libraries without a device: a table of functions that keep books of what was made and given back,
// answer success, and fail once where a test asks for it. cuDNN's plans exist and compute nothing.
#pragma once

#include "runtime/cuda_driver.h"

#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace senet::test {

struct FakeDevice {
  int calls = 0;
  int fail_at = -1;              // the call that fails
  std::string failed;            // its name
  std::vector<std::string> log;  // what was done that a test may ask for, in order
  std::set<void*> alive;         // streams, events, graphs, handles, descriptors
  std::string wrong;  // what was given back twice, used dead, or done in a capture that must not be
  bool is_capturing = false;
  std::vector<std::thread::id> planners;  // the threads that described a graph to cuDNN, in order
  int plans = 3;                          // that cuDNN has for a convolution
  int not_ready = 0;                      // answers of cudaEventQuery until an event has come
  bool holds_events = false;              // none comes
  std::set<void*> pinned;                 // memory of the host
  char touched = 0;

  void clear(int fail = -1) {
    *this = FakeDevice();
    fail_at = fail;
  }
};

/// There is one, for this thread and all others.
FakeDevice& fake_device();
/// Guards it where several threads use it.
std::mutex& fake_mutex();

/// Its functions.
const runtime::cuda::Driver& fake_driver();

}  // namespace senet::test
