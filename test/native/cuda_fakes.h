// A machine without a device, for sequences and lanes: kernels that say which ran, memory of the processor,
// and the tail of a bottleneck.
#pragma once

#include "fake_cuda_driver.h"
#include "inference/cuda/sequence.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace senet::test {

namespace fakes {

using namespace inference::cuda;

// Says which kernel ran.
class FakeKernels : public Kernels {
 public:
  void run(const Import&, Stream) const override {
    note("import");
  }
  void run(const Unpack&, Stream) const override {
    note("unpack");
  }
  void run(const Pointwise& task, Stream) const override {
    note(task.factors != nullptr ? "scale" : "pointwise");
  }
  void run(const Mean& task, Stream) const override {
    // As far as a real one writes.
    std::fill(task.parts, task.parts + task.x.n * task.part_count * task.x.channels, 0.f);
    note("mean");
  }
  void run(const Excite&, Stream) const override {
    note("excite");
  }
  bool serves(const Conv1x1&) const override {
    return has_matrix;
  }
  void run(const Conv1x1&, int, Stream) const override {
    note("conv1x1");
  }
  void run(const Dense&, Stream) const override {
    note("dense");
  }
  void run(const Pool&, Stream) const override {
    note("pool");
  }
  void run(const Export&, Stream) const override {
    note("export");
  }

  bool has_matrix = false;

 private:
  static void note(const char* what) {
    const std::lock_guard<std::mutex> lock(fake_mutex());
    fake_device().log.push_back(what);
  }
};

class FakeHost : public Host {
 public:
  std::shared_ptr<void> allocate(int64_t bytes) const override {
    return {std::aligned_alloc(256, static_cast<size_t>((bytes + 255) / 256 * 256)), std::free};
  }
  void operate(const Step&, const std::vector<Activation>&, const Activation&) const override {
    fake_device().log.push_back("host");
  }
};

// The tail of a bottleneck: %0 -conv2-> %1 -mean, excite, conv3 + %0 -> %2.
inline Steps bottleneck() {
  static const float weights[64] = {};
  Steps steps;
  steps.values = {{"%0", 8, 8, 0},
                  {"%1", 8, 8, 1},
                  {"%2", 8, 8, 2},
                  {"means", 8, 8, kNone, Value::Kind::kParts},
                  {"factors", 8, 8}};
  steps.input = 0;
  steps.output = 2;
  const auto convolution = [&](const char* name, Id from, Id to) {
    Step step{Step::Kind::kConvolution, name, {from}, to};
    step.weight = step.bias = weights;
    step.shift = weights;
    step.relu = true;
    return step;
  };
  steps.steps.push_back(convolution("conv2", 0, 1));
  steps.steps.push_back({Step::Kind::kMean, "se", {1}, 3});
  Step excite{Step::Kind::kExcite, "se", {3}, 4};
  excite.w1 = excite.w2 = weights;
  excite.hidden = 4;
  steps.steps.push_back(excite);
  Step last = convolution("conv3", 1, 2);
  last.factors = 4;
  last.residual = 0;
  steps.steps.push_back(last);
  return steps;
}

// A machine with its handles; everything else is the test's.
struct FakeMachine {
  explicit FakeMachine(const std::string& folder = "", int measured = 4) : cache(folder) {
    for (CudnnHandle* each : {&handle, &planners[0], &planners[1]}) {
      REQUIRE(fake_driver().cudnnCreate(each) == 0);
    }
    machine = std::make_unique<Machine>(Machine{fake_driver(), kernels, 0, 132, Type::kHalf, false, handle,
                                                handle_mutex, planners, cache, measured});
  }
  ~FakeMachine() {
    for (CudnnHandle each : {handle, planners[0], planners[1]}) {
      fake_driver().cudnnDestroy(each);
    }
  }

  std::unique_ptr<const Sequence> make(const Steps& steps, int64_t n = 1, const Setup& setup = {}) {
    return make_sequence(*machine, host, steps, {{7, 5}, {7, 5}, {7, 5}}, n, setup);
  }

  FakeKernels kernels;
  FakeHost host;
  DiskCache cache;
  CudnnHandle handle = nullptr;
  std::mutex handle_mutex;
  std::vector<CudnnHandle> planners{2};
  std::unique_ptr<Machine> machine;
};

inline std::vector<std::string> captured() {
  const auto& log = fake_device().log;
  const auto begin = std::find(log.begin(), log.end(), "begin");
  const auto end = std::find(begin, log.end(), "end");
  return begin == log.end() ? std::vector<std::string>() : std::vector<std::string>(begin + 1, end);
}

inline void expect_clean() {
  CHECK_MESSAGE(fake_device().wrong.empty(), fake_device().wrong);
  CHECK(fake_device().alive.empty());
  CHECK(fake_device().pinned.empty());
  CHECK(!fake_device().is_capturing);
}

}  // namespace fakes
}  // namespace senet::test
