// Batches on their way through lanes without a device (fake_cuda_driver.h): how many at once, who waits, what
// a large batch is cut into, who is told what went wrong, and that nothing is lost when a call fails.
#include "core/error.h"
#include "cuda_fakes.h"
#include "inference/cuda/lanes.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <deque>
#include <future>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace senet::test {
namespace {

using namespace fakes;
using namespace inference::cuda;

constexpr Pair kSize = {7, 5};
constexpr int64_t kMostImages = 4;

// A thread for what lanes let run later.
class Poster {
 public:
  ~Poster() {
    wait();
  }
  void operator()(std::function<void()> work) {
    if (refuses) {
      throw Error("ERR_SENET_CLOSING", "no more");
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    threads_.emplace_back(std::move(work));
  }
  void wait() {
    for (;;) {
      std::thread next;
      {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (threads_.empty()) {
          return;
        }
        next = std::move(threads_.front());
        threads_.pop_front();
      }
      next.join();
    }
  }
  std::atomic<bool> refuses = false;

 private:
  std::mutex mutex_;
  std::deque<std::thread> threads_;
};

struct Batch {
  std::promise<void> promise;
  std::future<void> future = promise.get_future();
  std::vector<int64_t> written, read;  // firsts
};

struct LaneMachine {
  explicit LaneMachine(size_t lanes) {
    this->lanes = std::make_shared<Lanes>(
        fake_driver(), 1, Lanes::Limits{lanes, kMostImages, 16, int64_t{1} << 30},
        [](int64_t n) { return n == 3 ? 4 : n; },
        [this](const LaneKey& key, Stream stream) {
          const std::lock_guard<std::mutex> lock(mutex);
          made.push_back(key.count);
          const std::vector<Pair> sizes(3, kSize);
          auto sequence = make_sequence(*fake.machine, fake.host, steps, sizes, key.count,
                                        {stream, &key.images, choices});
          return sequence;
        });
  }

  std::shared_ptr<Batch> start(int64_t count) {
    auto batch = std::make_shared<Batch>();
    auto request = std::make_shared<Request>();
    request->images = {true, true, 8};
    request->size = kSize;
    request->count = count;
    request->write = [batch](int64_t first, int64_t n, void* to) {
      batch->written.push_back(first);
      std::fill_n(static_cast<char*>(to), n * 7 * 5 * 8, 'x');
    };
    request->read = [batch](int64_t first, int64_t n, const float* from) {
      CHECK(from[n * 7 * 5 * 8 - 1] == 0);
      batch->read.push_back(first);
    };
    request->done = [batch, keep = lanes](std::exception_ptr failure) mutable {
      keep.reset();
      if (failure) {
        batch->promise.set_exception(failure);
      } else {
        batch->promise.set_value();
      }
    };
    request->post = [this](std::function<void()> work) { poster(std::move(work)); };
    lanes->run(std::move(request));
    return batch;
  }

  const Steps steps = bottleneck();
  FakeMachine fake{"", 1};
  std::shared_ptr<const Choices> choices;
  std::mutex mutex;
  std::vector<int64_t> made;
  Poster poster;
  std::shared_ptr<Lanes> lanes;
};

bool has_come(const std::shared_ptr<Batch>& batch) {
  return batch->future.wait_for(std::chrono::milliseconds(30)) == std::future_status::ready;
}
void hold_events(bool holds) {
  const std::lock_guard<std::mutex> lock(fake_mutex());
  fake_device().holds_events = holds;
}
size_t launches() {
  const std::lock_guard<std::mutex> lock(fake_mutex());
  const auto& log = fake_device().log;
  return static_cast<size_t>(std::count(log.begin(), log.end(), "launch"));
}

TEST_CASE("cuda lanes: a batch is written, run, read and told of, and the device of the thread stays") {
  fake_device().clear();
  {
    LaneMachine machine(2);
    fake_device().not_ready = 5;
    const auto batch = machine.start(3);
    batch->future.get();
    CHECK(batch->written == std::vector<int64_t>{0});
    CHECK(batch->read == std::vector<int64_t>{0});
    CHECK(machine.made == std::vector<int64_t>{4});
    machine.start(3)->future.get();
    CHECK(machine.made == std::vector<int64_t>{4});  // the first lane's again
    int device = -1;
    fake_driver().cudaGetDevice(&device);
    CHECK(device == 0);
  }
  expect_clean();
}

TEST_CASE("cuda lanes: as many batches as lanes compute at once, and the next waits without a thread") {
  fake_device().clear();
  {
    LaneMachine machine(2);
    hold_events(true);
    std::vector<std::shared_ptr<Batch>> batches;
    for (int i = 0; i < 5; ++i) {
      batches.push_back(machine.start(1));  // returns at once, also without a lane
    }
    CHECK(launches() == 2);
    CHECK(!has_come(batches[0]));
    hold_events(false);
    for (const auto& batch : batches) {
      batch->future.get();
    }
    CHECK(launches() == 5);
    CHECK(machine.made.size() == 2);
    machine.poster.wait();
  }
  expect_clean();
}

TEST_CASE("cuda lanes: a large batch is several runs of one lane, one after the other") {
  fake_device().clear();
  {
    LaneMachine machine(2);
    const auto batch = machine.start(2 * kMostImages + 1);
    batch->future.get();
    CHECK(batch->written == std::vector<int64_t>{0, 4, 8});
    CHECK(batch->read == batch->written);
    CHECK(machine.made == std::vector<int64_t>{4, 1});
    machine.poster.wait();
  }
  expect_clean();
}

TEST_CASE(
    "cuda lanes: they may go with the last batch that is told of its end, and on the thread that tells") {
  for (const int64_t count : {int64_t{1}, kMostImages + 1}) {
    for (const bool fails : {false, true}) {
      fake_device().clear();
      {
        LaneMachine machine(2);
        hold_events(true);
        const std::vector<std::shared_ptr<Batch>> batches{machine.start(count), machine.start(count),
                                                          machine.start(count)};
        machine.lanes.reset();
        machine.poster.refuses = fails;
        hold_events(false);
        int told = 0;
        for (const auto& batch : batches) {
          try {
            batch->future.get();
          } catch (const Error&) {
            ++told;
          }
        }
        CHECK(told == (fails ? count > 1 ? 3 : 1 : 0));
        machine.poster.wait();
      }
      expect_clean();
    }
  }
}

TEST_CASE("cuda lanes: where nothing can be run later, those that wait are told so") {
  fake_device().clear();
  {
    LaneMachine machine(1);
    hold_events(true);
    const auto running = machine.start(1);
    const std::vector<std::shared_ptr<Batch>> waiting{machine.start(1), machine.start(1)};
    machine.poster.refuses = true;
    hold_events(false);
    running->future.get();
    for (const auto& batch : waiting) {
      CHECK_THROWS_AS(batch->future.get(), Error);
    }
    machine.poster.refuses = false;
    machine.start(1)->future.get();  // the lane is free again
  }
  expect_clean();
}

TEST_CASE("cuda lanes: whichever call fails, the caller is told, and the lane serves the next") {
  fake_device().clear();
  int calls = 0;
  {
    LaneMachine machine(1);
    const int before = fake_device().calls;
    machine.start(kMostImages + 1)->future.get();
    machine.poster.wait();
    calls = fake_device().calls - before;
  }
  REQUIRE(calls > 50);
  int refused = 0;
  int tried = 0;
  // Calls come in rounds that are alike; each kind is met by steps of a prime number.
  for (int i = 0; i < calls; i += 7) {
    ++tried;
    fake_device().clear();
    std::string failed;
    {
      LaneMachine machine(1);
      {
        const std::lock_guard<std::mutex> lock(fake_mutex());
        fake_device().fail_at = fake_device().calls + i;
      }
      try {
        machine.start(kMostImages + 1)->future.get();
      } catch (const Error& error) {
        CHECK(std::string(error.code()) == "ERR_SENET_CUDA");
        ++refused;
      }
      machine.poster.wait();
      {
        const std::lock_guard<std::mutex> lock(fake_mutex());
        fake_device().fail_at = -1;
        failed = fake_device().failed;
      }
      INFO("call ", i, ", ", failed);
      machine.start(1)->future.get();
    }
    INFO("call ", i, ", ", failed);
    expect_clean();
  }
  CHECK(refused > tried / 4);
}

}  // namespace
}  // namespace senet::test
