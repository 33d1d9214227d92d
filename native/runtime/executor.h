// The threads that run forwards, backwards and file reads: never the JavaScript thread, never libuv's pool.
//
// Two per process, shared by every environment (the main thread and each Worker): one for all of these, and
// one whose threads decode images beside them. They are leaked on purpose: their threads outlive LibTorch's
// statics at exit otherwise. Jobs hold no JavaScript and never wait for it.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

namespace senet::runtime {

/// Beside which other jobs a job may run.
enum class Company {
  kShared,
  /// None: it starts when all jobs before it have ended, and those after it wait for it.
  kAlone,
};

/// When a job has ended.
enum class Ending {
  kWithWork,
  /// When its work has returned and finish() was called: it occupies no thread meanwhile, and counts as
  /// running. Its work throws nothing, and finish() is called once, during it or later.
  kLater,
};

/// A unit of work. Its state is guarded by the executor's mutex.
class Job {
 public:
  using Work = std::function<void()>;
  /// Called once, on the thread that ended the job, after the work and all it captured are gone; never for a
  /// job that was dropped.
  using Done = std::function<void()>;

  /// `owner` identifies the environment that submitted the job.
  Job(const void* owner, Work work, Done done, Company company = Company::kShared,
      Ending ending = Ending::kWithWork)
      : owner_(owner),
        work_(std::move(work)),
        done_(std::move(done)),
        company_(company),
        missing_(ending == Ending::kLater ? 2 : 1) {}

  /// What the work threw, or finish() was given, once the job has ended.
  std::exception_ptr failure() const {
    return failure_;
  }

 private:
  friend class Executor;
  enum class State { kQueued, kRunning, kEnded };

  const void* owner_;
  Work work_;
  Done done_;
  Company company_;
  int missing_;  // the return of its work, and finish()
  State state_ = State::kQueued;
  std::exception_ptr failure_;
};

class Executor {
 public:
  struct Settings {
    int workers;
    int threads_per_worker;
  };
  struct Counts {
    size_t queued;
    size_t running;
  };

  static Executor& instance();
  /// A thread for each processor, of one thread each: as many images are decoded at the same time.
  static Executor& decoders();

  /// Takes effect for jobs that start from now on.
  void configure(Settings settings);
  Settings settings();
  Counts counts();

  /// Queues a job; jobs start in the order of submission, one that runs alone when all before it have ended.
  /// Throws ERR_SENET_CLOSING after drain(), ERR_SENET_THREADS if no worker can be made.
  void submit(std::shared_ptr<Job> job);
  /// Runs what a job that ends later has still to do, before all that is queued: also before one that runs
  /// alone, which waits for that job. `work` throws nothing. Throws ERR_SENET_CLOSING after drain(), and the
  /// job is to end without it then.
  void go_on(Job::Work work);
  /// Ends a job that ends later; on any thread.
  void finish(const std::shared_ptr<Job>& job, std::exception_ptr failure);
  /// Drops the job if it has not started: it will never run, and its `done` is not called.
  bool cancel(const std::shared_ptr<Job>& job);
  /// Blocks until the job has ended or was dropped.
  void wait(const std::shared_ptr<Job>& job);

  /// Drops the owner's queued jobs and waits for its running ones.
  void abandon(const void* owner);
  /// Refuses new jobs, drops the queued ones and waits for the running ones, at most `limit`; true if none is
  /// left.
  bool drain(std::chrono::milliseconds limit);

 private:
  /// `spin`: how long a worker looks for the next job before it sleeps.
  Executor(Settings settings, std::chrono::microseconds spin);
  void run_worker(size_t index);
  // One of the two things that a job waits for has happened; with mutex_ held, which it lets go meanwhile.
  void settle(std::unique_lock<std::mutex>& lock, Job& job, std::exception_ptr failure);
  void check_open() const;  // throws ERR_SENET_CLOSING after drain(); with mutex_ held
  // Throws ERR_SENET_THREADS if there is none and none can be made; with mutex_ held.
  void start_workers();
  bool may_start() const;  // whether the first queued job may start now; with mutex_ held
  bool has_work() const;   // whether there is something for a worker to do now; with mutex_ held
  template <typename Keep>
  std::vector<std::shared_ptr<Job>> take_queued(Keep keep);  // with mutex_ held

  const std::chrono::microseconds spin_;
  std::mutex mutex_;
  std::condition_variable wake_;   // a job or new settings for the workers
  std::condition_variable ended_;  // a job has ended
  std::deque<std::shared_ptr<Job>> queue_;
  std::deque<Job::Work> continuations_;  // of jobs that are running
  std::atomic<uint64_t> submitted_ = 0;  // of both so far, for who looks without the mutex
  std::vector<const Job*> running_;
  Settings settings_;
  size_t started_workers_ = 0;
  bool closed_ = false;
};

}  // namespace senet::runtime
