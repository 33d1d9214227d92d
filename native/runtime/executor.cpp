#include "runtime/executor.h"

#include "core/error.h"
#include "runtime/machine.h"
#include "runtime/threads.h"

#include <algorithm>
#include <string>
#include <system_error>
#include <thread>

#ifdef __linux__
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace senet::runtime {
namespace {

// How long a worker looks for the next job before it sleeps: a caller that awaits one forward after the other
// comes back sooner, and waking a thread takes as long as a layer.
constexpr auto kSpin = std::chrono::microseconds(100);
// Workers, and the OpenMP teams that they start, yield to the JavaScript thread when the processors are all
// in use.
constexpr int kWorkerNiceness = 5;

void lower_priority() {
#ifdef __linux__
  setpriority(PRIO_PROCESS, static_cast<id_t>(syscall(SYS_gettid)), kWorkerNiceness);
#endif
}

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

Executor& Executor::instance() {
  static auto* executor = new Executor({1, available_processors()}, kSpin);
  return *executor;
}

Executor& Executor::decoders() {
  // An image takes much longer than waking a thread, and others want the processors.
  static auto* executor = new Executor({available_processors(), 1}, std::chrono::microseconds(0));
  return *executor;
}

Executor::Executor(Settings settings, std::chrono::microseconds spin) : spin_(spin), settings_(settings) {}

void Executor::configure(Settings settings) {
  std::lock_guard lock(mutex_);
  settings_ = settings;
  if (started_workers_ > 0) {
    start_workers();
  }
  wake_.notify_all();
}

Executor::Settings Executor::settings() {
  std::lock_guard lock(mutex_);
  return settings_;
}

Executor::Counts Executor::counts() {
  std::lock_guard lock(mutex_);
  // A job that has ended stays in running_ until its `done` returns; whoever awaited it may already look
  // here.
  const auto running = std::count_if(running_.begin(), running_.end(),
                                     [](const Job* job) { return job->state_ == Job::State::kRunning; });
  return {queue_.size(), static_cast<size_t>(running)};
}

void Executor::start_workers() {
  while (started_workers_ < static_cast<size_t>(settings_.workers)) {
    try {
      std::thread(&Executor::run_worker, this, started_workers_).detach();
    } catch (const std::system_error& error) {
      // Fewer workers do the same jobs, later; the next submission tries again.
      if (started_workers_ > 0) {
        return;
      }
      throw Error("ERR_SENET_THREADS",
                  std::string("the system gives no thread for jobs (") + error.code().message() +
                      "); raise the limit (ulimit -u, ulimit -v, the cgroup's pids.max)");
    }
    ++started_workers_;
  }
}

void Executor::submit(std::shared_ptr<Job> job) {
  {
    std::lock_guard lock(mutex_);
    check_open();
    start_workers();
    queue_.push_back(std::move(job));
    submitted_.fetch_add(1, std::memory_order_release);
  }
  // Not notify_one: a worker above the configured number would swallow it.
  wake_.notify_all();
}

void Executor::go_on(Job::Work work) {
  {
    std::lock_guard lock(mutex_);
    check_open();
    continuations_.push_back(std::move(work));
    submitted_.fetch_add(1, std::memory_order_release);
  }
  wake_.notify_all();
}

void Executor::check_open() const {
  if (closed_) {
    throw Error("ERR_SENET_CLOSING", "the process is ending and takes no new jobs");
  }
}

bool Executor::has_work() const {
  return !continuations_.empty() || may_start();
}

bool Executor::may_start() const {
  if (queue_.empty()) {
    return false;
  }
  // One that runs alone is the only one that runs.
  if (!running_.empty() && running_.front()->company_ == Company::kAlone) {
    return false;
  }
  return queue_.front()->company_ == Company::kShared || running_.empty();
}

template <typename Keep>
std::vector<std::shared_ptr<Job>> Executor::take_queued(Keep keep) {
  std::vector<std::shared_ptr<Job>> dropped;
  std::deque<std::shared_ptr<Job>> kept;
  for (auto& job : queue_) {
    if (keep(*job)) {
      kept.push_back(std::move(job));
    } else {
      job->state_ = Job::State::kEnded;
      dropped.push_back(std::move(job));
    }
  }
  queue_.swap(kept);
  ended_.notify_all();
  wake_.notify_all();  // what waited behind a dropped job may start
  return dropped;
}

bool Executor::cancel(const std::shared_ptr<Job>& job) {
  std::vector<std::shared_ptr<Job>> dropped;
  {
    std::lock_guard lock(mutex_);
    dropped = take_queued([&](const Job& other) { return &other != job.get(); });
  }
  // What the work captured (tensors, modules) is freed here, outside the lock.
  for (auto& gone : dropped) {
    gone->work_ = nullptr;
  }
  return !dropped.empty();
}

void Executor::wait(const std::shared_ptr<Job>& job) {
  std::unique_lock lock(mutex_);
  ended_.wait(lock, [&] { return job->state_ == Job::State::kEnded; });
}

void Executor::abandon(const void* owner) {
  std::vector<std::shared_ptr<Job>> dropped;
  std::unique_lock lock(mutex_);
  dropped = take_queued([&](const Job& job) { return job.owner_ != owner; });
  ended_.wait(lock, [&] {
    return std::none_of(running_.begin(), running_.end(),
                        [&](const Job* job) { return job->owner_ == owner; });
  });
  lock.unlock();
  for (auto& gone : dropped) {
    gone->work_ = nullptr;
  }
}

bool Executor::drain(std::chrono::milliseconds limit) {
  // The dropped jobs are leaked with all they hold: the process ends, and freeing a model takes time.
  std::unique_lock lock(mutex_);
  closed_ = true;
  auto* dropped = new std::vector<std::shared_ptr<Job>>(take_queued([](const Job&) { return false; }));
  (void)dropped;
  return ended_.wait_for(lock, limit, [&] { return running_.empty(); });
}

void Executor::settle(std::unique_lock<std::mutex>& lock, Job& job, std::exception_ptr failure) {
  if (failure) {
    job.failure_ = failure;
  }
  if (--job.missing_ > 0) {
    return;
  }
  job.state_ = Job::State::kEnded;
  lock.unlock();
  // Still counted as running: abandon() and drain() return only when nobody will call into the owner any
  // more.
  if (job.done_) {
    job.done_();
  }
  lock.lock();
  running_.erase(std::find(running_.begin(), running_.end(), &job));
  ended_.notify_all();
  wake_.notify_all();  // one that runs alone may have waited for this one, or others behind it
}

void Executor::finish(const std::shared_ptr<Job>& job, std::exception_ptr failure) {
  std::unique_lock lock(mutex_);
  settle(lock, *job, std::move(failure));
}

void Executor::run_worker(size_t index) {
  lower_priority();
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [&] { return index >= static_cast<size_t>(settings_.workers) || has_work(); });
    if (index >= static_cast<size_t>(settings_.workers)) {
      // configure() asked for fewer; the last started leave first, so that the count stays the next index.
      if (index + 1 == started_workers_) {
        --started_workers_;
        wake_.notify_all();
        return;
      }
      wake_.wait_for(lock, std::chrono::milliseconds(10));
      continue;
    }
    std::shared_ptr<Job> job;  // null: the work is of one that is running already
    Job::Work work;
    if (continuations_.empty()) {
      job = std::move(queue_.front());
      queue_.pop_front();
      job->state_ = Job::State::kRunning;
      running_.push_back(job.get());
      work = std::move(job->work_);
    } else {
      work = std::move(continuations_.front());
      continuations_.pop_front();
    }
    const int threads = settings_.threads_per_worker;
    lock.unlock();

    std::exception_ptr failure;
    bool has_begun = true;
    try {
      use_threads(threads);
    } catch (...) {
      failure = std::current_exception();
      has_begun = false;
    }
    try {
      if (!has_begun && job == nullptr) {
        use_threads(1);  // its job waits for it, and nobody would tell that why
        has_begun = true;
      }
      if (has_begun) {
        work();
      }
    } catch (...) {
      failure = std::current_exception();
    }
    work = nullptr;

    lock.lock();
    if (job != nullptr) {
      if (!has_begun) {
        job->missing_ = 1;  // nobody was told to finish it
      }
      settle(lock, *job, failure);
    }
    if (queue_.empty() && continuations_.empty() && spin_.count() > 0) {
      const uint64_t seen = submitted_.load(std::memory_order_relaxed);
      lock.unlock();
      const auto until = std::chrono::steady_clock::now() + spin_;
      while (submitted_.load(std::memory_order_acquire) == seen && std::chrono::steady_clock::now() < until) {
        pause();
      }
      lock.lock();
    }
  }
}

}  // namespace senet::runtime
