// CUDA programs made ready without a device (fake_cuda_driver.h): order of capture, places in memory, what is
// given back and when, plans that are remembered, and every call failing once.
#include "core/error.h"
#include "fake_cuda_driver.h"
#include "inference/arena.h"
#include "inference/cuda/sequence.h"

#include <doctest/doctest.h>

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <thread>

namespace senet::test {
namespace {

using namespace inference::cuda;
using inference::ArenaBlock;

// Says which kernel ran.
class FakeKernels : public Kernels {
 public:
  void run(const Import&, Stream) const override {
    note("import");
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
Steps bottleneck() {
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
    machine = std::make_unique<Machine>(
        Machine{fake_driver(), kernels, 0, 132, Type::kHalf, false, handle, planners, cache, measured});
  }
  ~FakeMachine() {
    for (CudnnHandle each : {handle, planners[0], planners[1]}) {
      fake_driver().cudnnDestroy(each);
    }
  }

  std::unique_ptr<const Sequence> make(const Steps& steps, int64_t n = 1) {
    return make_sequence(*machine, host, steps, {{7, 5}, {7, 5}, {7, 5}}, n);
  }

  FakeKernels kernels;
  FakeHost host;
  DiskCache cache;
  CudnnHandle handle = nullptr;
  std::vector<CudnnHandle> planners{2};
  std::unique_ptr<Machine> machine;
};

std::vector<std::string> captured() {
  const auto& log = fake_device().log;
  const auto begin = std::find(log.begin(), log.end(), "begin");
  const auto end = std::find(begin, log.end(), "end");
  return begin == log.end() ? std::vector<std::string>() : std::vector<std::string>(begin + 1, end);
}

void expect_clean() {
  CHECK_MESSAGE(fake_device().wrong.empty(), fake_device().wrong);
  CHECK(fake_device().alive.empty());
  CHECK(!fake_device().is_capturing);
}

TEST_CASE("cuda sequence: captures its steps in their order, once, and launches them") {
  fake_device().clear();
  {
    FakeMachine fake;
    const Steps steps = bottleneck();
    const auto sequence = fake.make(steps);
    CHECK(captured() == std::vector<std::string>{"convolution", "mean", "excite", "convolution"});
    CHECK(sequence->is_graph());
    CHECK(sequence->kernel_of(3).starts_with("cudnn whole "));
    CHECK(sequence->kernel_of(1) == "ours");
    fake_device().log.clear();
    sequence->run();
    sequence->run();
    CHECK(fake_device().log == std::vector<std::string>{"launch", "launch"});
    CHECK(sequence->profile().size() == 4);
  }
  expect_clean();
}

TEST_CASE("cuda sequence: factors of several images are our kernel's, or a pass behind the convolution") {
  for (const bool has_matrix : {false, true}) {
    fake_device().clear();
    {
      FakeMachine fake;
      fake.kernels.has_matrix = has_matrix;
      const Steps steps = bottleneck();
      const auto sequence = fake.make(steps, 3);
      const std::string kernel = sequence->kernel_of(3);
      CHECK_MESSAGE((kernel.starts_with("cudnn bias ") || (has_matrix && kernel.starts_with("ours"))),
                    kernel);
    }
    expect_clean();
  }
}

TEST_CASE("cuda sequence: a convolution without a plan is the host's, and then nothing is captured") {
  fake_device().clear();
  {
    FakeMachine fake;
    fake_device().plans = 0;
    const Steps steps = bottleneck();
    const auto sequence = fake.make(steps);
    CHECK(!sequence->is_graph());
    CHECK(captured().empty());
    fake_device().log.clear();
    sequence->run();
    // Bias and ReLU, then factors, residual and ReLU, are left to our kernel.
    CHECK(fake_device().log ==
          std::vector<std::string>{"host", "pointwise", "mean", "excite", "host", "scale"});
    CHECK(sequence->kernel_of(0) == "libtorch");
  }
  expect_clean();
}

TEST_CASE("cuda sequence: what was measured is remembered, and then nothing is measured") {
  const auto folder = std::filesystem::temp_directory_path() / ("senet-plans-" + std::to_string(getpid()));
  const Steps steps = bottleneck();
  std::string first;
  {
    fake_device().clear();
    FakeMachine fake(folder);
    first = fake.make(steps)->kernel_of(3);
    const auto& log = fake_device().log;
    CHECK(std::count(log.begin(), log.end(), "convolution") > 2);
  }
  const auto again = [&] {
    fake_device().clear();
    FakeMachine fake(folder);
    CHECK(fake.make(steps)->is_graph());
    const auto& log = fake_device().log;
    return std::count(log.begin(), log.end(), "convolution");
  };
  CHECK(again() == 2);
  for (const char* damage : {"", "senet-torch", "senet-torch a b\nwhole\nplan"}) {
    for (const auto& file : std::filesystem::directory_iterator(folder)) {
      std::ofstream(file.path(), std::ios::trunc) << damage;
    }
    CHECK(again() > 2);
    CHECK(again() == 2);
  }
  std::filesystem::remove_all(folder);
}

TEST_CASE("cuda sequence: every call fails once, and nothing is lost or given back twice") {
  const Steps steps = bottleneck();
  fake_device().clear();
  int calls = 0;
  {
    FakeMachine fake;
    const int before = fake_device().calls;
    fake.make(steps)->run();
    calls = fake_device().calls - before;
  }
  CHECK(calls > 100);
  int refused = 0;
  for (int i = 0; i < calls; ++i) {
    fake_device().clear();
    {
      FakeMachine fake;
      fake_device().fail_at = fake_device().calls + i;
      try {
        fake.make(steps)->run();
      } catch (const Error& error) {
        CHECK(std::string(error.code()) == "ERR_SENET_CUDA");
        ++refused;
      }
      fake_device().fail_at = -1;
    }
    INFO("call ", i, ", ", fake_device().failed);
    expect_clean();
  }
  CHECK(refused > calls / 4);
}

TEST_CASE("cuda sequence: programs that share handles make their plans one after the other") {
  for (int round = 0; round < 20; ++round) {
    fake_device().clear();
    {
      FakeMachine fake;
      const std::vector<CudnnHandle> one{fake.planners.front()};  // no threads but those of the callers
      const Machine machine{fake_driver(), fake.kernels, 0,   132,        Type::kHalf,
                            false,         fake.handle,  one, fake.cache, 4};
      const std::vector<Pair> sizes(3, Pair{7, 5});
      const Steps steps = bottleneck();
      std::vector<std::unique_ptr<const Sequence>> made(2);
      std::thread other([&] { made[1] = make_sequence(machine, fake.host, steps, sizes, 2); });
      made[0] = make_sequence(machine, fake.host, steps, sizes, 1);
      other.join();
      auto& planners = fake_device().planners;
      REQUIRE(planners.size() > 2);
      CHECK(std::unique(planners.begin(), planners.end()) - planners.begin() == 2);
    }
  }
}

TEST_CASE("arena: blocks that live together never overlap, and memory is shared") {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    std::vector<ArenaBlock> blocks(1 + random() % 30);
    int64_t sum = 0;
    for (ArenaBlock& block : blocks) {
      if (random() % 8 != 0) {
        block.life.first = static_cast<int64_t>(random() % 20);
        block.life.last = block.life.first + static_cast<int64_t>(random() % 5);
        block.bytes = 256 * static_cast<int64_t>(1 + random() % 9);
        sum += block.bytes;
      }
    }
    const int64_t total = inference::lay_out(blocks);
    CHECK(total <= sum);
    for (size_t i = 0; i < blocks.size(); ++i) {
      CHECK(blocks[i].offset + blocks[i].bytes <= total);
      for (size_t j = 0; j < i; ++j) {
        const bool live =
            !blocks[i].life.is_empty() && !blocks[j].life.is_empty() && blocks[i].life.meets(blocks[j].life);
        const bool overlap = blocks[i].offset < blocks[j].offset + blocks[j].bytes &&
                             blocks[j].offset < blocks[i].offset + blocks[i].bytes;
        CHECK(!(live && overlap));
      }
    }
  }
  std::vector<ArenaBlock> chain = {{{0, 1}, 256}, {{1, 2}, 256}, {{2, 3}, 256}};
  CHECK(inference::lay_out(chain) == 512);
}

}  // namespace
}  // namespace senet::test
