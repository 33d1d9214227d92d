// CUDA programs made ready without a device (fake_cuda_driver.h): order of capture, places in memory, what is
// given back and when, plans that are remembered, and every call failing once.
#include "core/error.h"
#include "cuda_fakes.h"
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

using namespace fakes;
using namespace inference::cuda;
using inference::ArenaBlock;

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
      const Machine machine{fake_driver(),     fake.kernels, 0,          132, Type::kHalf, false, fake.handle,
                            fake.handle_mutex, one,          fake.cache, 4};
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

TEST_CASE("cuda sequence: with the host's memory, upload and download are part of the graph") {
  for (const bool is_bytes : {true, false}) {
    fake_device().clear();
    {
      FakeMachine fake;
      const Steps steps = bottleneck();
      const HostImages images{is_bytes, true, 8};
      const auto sequence = fake.make(steps, 2, {nullptr, &images});
      const std::string bytes = std::to_string(2 * 7 * 5 * 8 * (is_bytes ? 1 : 4));
      CHECK(captured() == std::vector<std::string>{"upload " + bytes, is_bytes ? "unpack" : "import",
                                                   "convolution", "mean", "excite", "convolution", "scale",
                                                   "export",
                                                   "download " + std::to_string(2 * 7 * 5 * 8 * 4)});
      CHECK(sequence->host_output()[2 * 7 * 5 * 8 - 1] == 0);
      static_cast<char*>(sequence->host_input())[0] = 1;
      CHECK(fake_device().pinned.size() == 2);
      fake_device().log.clear();
      sequence->run();
      CHECK(fake_device().log == std::vector<std::string>{"launch"});
    }
    expect_clean();
  }
}

TEST_CASE("cuda sequence: another of the same number and size takes its choices, and measures nothing") {
  fake_device().clear();
  {
    FakeMachine fake;
    const Steps steps = bottleneck();
    auto first = fake.make(steps, 2);
    const std::string kernel = first->kernel_of(3);
    fake_device().log.clear();
    const auto second = fake.make(steps, 2, {nullptr, nullptr, first->choices()});
    first.reset();  // its plans stay
    const auto& log = fake_device().log;
    CHECK(std::count(log.begin(), log.end(), "convolution") == 2);
    CHECK(second->kernel_of(3) == kernel);
    second->run();
  }
  expect_clean();
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
