// Numbers that come from a device without a thread that waits, without a device (fake_cuda_driver.h).
#include "core/error.h"
#include "cuda_fakes.h"
#include "inference/cuda/downloads.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <future>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

namespace senet::test {
namespace {

using namespace fakes;
using namespace inference::cuda;

constexpr std::string_view kNeeded[] = {"cudaHostAlloc", "cudaEventCreateWithFlags", "cudaMemcpyAsync",
                                        "cudaEventRecord", "cudaEventQuery"};

// The last byte that came; throws what went wrong.
char last_byte_of(size_t bytes) {
  const std::vector<char> from(bytes, 'x');
  std::promise<char> come;
  download(fake_driver(), 0, from.data(), bytes, [&](const void* data, std::exception_ptr failure) {
    if (failure) {
      come.set_exception(failure);
    } else {
      come.set_value(static_cast<const char*>(data)[bytes - 1]);
    }
  });
  return come.get_future().get();
}

// The thread that asks the device gives the memory back behind the answer.
void wait_for_books() {
  for (size_t pinned = 0; pinned == 0;) {
    drop_download_memory(fake_driver());
    const std::lock_guard<std::mutex> lock(fake_mutex());
    pinned = fake_device().pinned.empty() ? 1 : 0;
  }
}

TEST_CASE("cuda downloads: bytes come behind what was enqueued, and their memory is used again") {
  fake_device().clear();
  {
    const std::lock_guard<std::mutex> lock(fake_mutex());
    fake_device().not_ready = 3;
  }
  CHECK(last_byte_of(16) == 0);  // as the stand-in fills what it copies
  CHECK(last_byte_of(100'000) == 0);
  for (int i = 0; i < 20; ++i) {
    CHECK(last_byte_of(16) == 0);
  }
  {
    const std::lock_guard<std::mutex> lock(fake_mutex());
    CHECK(fake_device().pinned.size() <= 4);
  }
  wait_for_books();
  expect_clean();
}

TEST_CASE("cuda downloads: whichever call fails is told once, and nothing is lost") {
  for (int i = 0; i < 8; ++i) {
    fake_device().clear();
    {
      const std::lock_guard<std::mutex> lock(fake_mutex());
      fake_device().fail_at = i;
    }
    bool is_told = false;
    try {
      last_byte_of(64);
    } catch (const Error& error) {
      is_told = std::string(error.code()) == "ERR_SENET_CUDA";
    }
    wait_for_books();
    const std::string failed = fake_device().failed;
    INFO("call ", i, ", ", failed);
    const bool is_needed = std::find(std::begin(kNeeded), std::end(kNeeded), failed) != std::end(kNeeded);
    // The first change of the device counts, that back to the one before does not.
    CHECK(is_told == (is_needed || (i == 0 && failed == "cudaSetDevice")));
    expect_clean();
  }
}

}  // namespace
}  // namespace senet::test
