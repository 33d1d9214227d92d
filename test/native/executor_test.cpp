// Jobs that end later than their work returns: they occupy no thread, and count as running until they have
// ended.
#include "runtime/executor.h"
#include "core/error.h"

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace senet::test {
namespace {

using runtime::Company;
using runtime::Ending;
using runtime::Executor;
using runtime::Job;

std::shared_ptr<Job> job_of(const void* owner, Job::Work work, Job::Done done = nullptr,
                            Company company = Company::kShared, Ending ending = Ending::kWithWork) {
  return std::make_shared<Job>(owner, std::move(work), std::move(done), company, ending);
}
std::shared_ptr<Job> later(const void* owner, Job::Work work, Job::Done done = nullptr) {
  return job_of(owner, std::move(work), std::move(done), Company::kShared, Ending::kLater);
}
bool is_ready(std::future<void>& future) {
  return future.wait_for(std::chrono::milliseconds(30)) == std::future_status::ready;
}

TEST_CASE("executor: a job that ends later leaves its thread to others, and ends when it is finished") {
  Executor& executor = Executor::instance();
  executor.configure({1, 1});
  const int owner = 0;
  std::atomic<int> done = 0;
  std::promise<void> returned;
  const auto job = later(
      &owner, [&] { returned.set_value(); }, [&] { ++done; });
  executor.submit(job);
  returned.get_future().get();
  const auto other = job_of(&owner, [] {});
  executor.submit(other);
  executor.wait(other);
  CHECK(done == 0);
  CHECK(executor.counts().running == 1);

  std::promise<void> alone;
  auto has_run = alone.get_future();
  executor.submit(job_of(
      &owner, [&] { alone.set_value(); }, nullptr, Company::kAlone));
  CHECK(!is_ready(has_run));  // one that runs alone waits for it
  executor.finish(job, nullptr);
  executor.wait(job);
  CHECK(done == 1);
  CHECK(job->failure() == nullptr);
  has_run.get();
}

TEST_CASE("executor: it may be finished before its work returns, with what went wrong") {
  Executor& executor = Executor::instance();
  executor.configure({2, 1});
  const int owner = 0;
  std::atomic<bool> is_working = true;
  std::shared_ptr<Job> job;
  job = later(&owner, [&] {
    executor.finish(job, std::make_exception_ptr(std::runtime_error("no")));
    is_working = false;
  });
  executor.submit(job);
  executor.wait(job);
  CHECK(!is_working);  // what its work captured may go only then
  CHECK_THROWS_AS(std::rethrow_exception(job->failure()), std::runtime_error);
}

TEST_CASE("executor: what a job that ends later has still to do goes before one that runs alone") {
  Executor& executor = Executor::instance();
  executor.configure({1, 1});
  const int owner = 0;
  std::promise<void> returned;
  const auto job = later(&owner, [&] { returned.set_value(); });
  executor.submit(job);
  returned.get_future().get();
  std::vector<int> order;
  const auto alone = job_of(
      &owner, [&] { order.push_back(3); }, nullptr, Company::kAlone);
  executor.submit(alone);
  const auto behind = job_of(&owner, [&] { order.push_back(4); });
  executor.submit(behind);
  executor.go_on([&] {
    order.push_back(1);
    CHECK(executor.counts().running == 1);
    executor.go_on([&] {
      order.push_back(2);
      executor.finish(job, nullptr);
    });
  });
  executor.wait(behind);
  CHECK(order == std::vector<int>{1, 2, 3, 4});
}

TEST_CASE("executor: whoever abandons its jobs waits for those that end later") {
  Executor& executor = Executor::instance();
  const int owner = 0;
  std::promise<void> returned;
  const auto job = later(&owner, [&] { returned.set_value(); });
  executor.submit(job);
  returned.get_future().get();
  auto abandoned = std::async(std::launch::async, [&] { executor.abandon(&owner); });
  CHECK(!is_ready(abandoned));
  executor.finish(job, nullptr);
  abandoned.get();
}

// The decoders' executor, which nobody here needs any more.
TEST_CASE("executor: at the end of the process a job that ends later goes on, but begins nothing new") {
  Executor& executor = Executor::decoders();
  executor.configure({1, 1});
  const int owner = 0;
  std::promise<void> returned, let_go;
  const auto job = later(&owner, [&] {
    returned.set_value();
    let_go.get_future().get();
  });
  executor.submit(job);
  returned.get_future().get();
  const auto dropped = job_of(&owner, [] { FAIL("it was dropped"); });
  executor.submit(dropped);
  std::string refusal;
  executor.go_on([&] {  // queued, when the end begins
    try {
      executor.go_on([] { FAIL("it was refused"); });
    } catch (const Error& error) {
      refusal = error.code();
    }
    executor.finish(job, nullptr);
  });
  auto drained = std::async(std::launch::async, [&] { return executor.drain(std::chrono::seconds(20)); });
  executor.wait(dropped);  // so the end has begun
  let_go.set_value();
  CHECK(drained.get());
  CHECK(refusal == "ERR_SENET_CLOSING");
  CHECK_THROWS_AS(executor.submit(job_of(&owner, [] {})), Error);
}

}  // namespace
}  // namespace senet::test
