// State of one JavaScript environment (the main thread or a Worker) and the way jobs come back to it.
// Process-wide state lives in runtime/; nothing here is static.
#pragma once

#include <napi.h>

#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>

#include "runtime/executor.h"

namespace senet::addon {

class Environment;

/// Makes the JavaScript value of a job's result, on the JavaScript thread.
using Deliver = std::function<Napi::Value(Environment&)>;
/// Runs on the executor; holds no JavaScript.
using JobWork = std::function<Deliver()>;
/// Ends a job, once: with its result, or with what went wrong.
using JobFinish = std::function<void(Deliver, std::exception_ptr)>;
/// Runs on the executor and lets somebody finish the job later, on any thread; throws nothing.
using LaterWork = std::function<void(JobFinish)>;

/// What went wrong, in terms of lib/errors.ts.
struct Failure {
  std::string code;
  std::string message;
};

/// The one catch ladder: turns any exception into a code and a message without a C++ backtrace.
Failure describe(std::exception_ptr exception);

class Environment {
 public:
  explicit Environment(Napi::Env env);
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

  static Environment& of(Napi::Env env) {
    return *env.GetInstanceData<Environment>();
  }

  Napi::Env env() const {
    return env_;
  }

  /// lib/tensor/jobs.ts gives `make_error(code, message)` and `settle(job, error | null, value)` once.
  void set_callbacks(Napi::Function make_error, Napi::Function settle);
  Napi::Error make_error(const Failure& failure);

  /// Queues work and returns the job's number; `settle` is called with it in a macrotask of its own. A
  /// failure whose code is ERR_SENET_LIBTORCH is reported with `libtorch_code` instead if one is given.
  int64_t submit(JobWork work, const char* libtorch_code = nullptr,
                 runtime::Company company = runtime::Company::kShared,
                 runtime::Executor& executor = runtime::Executor::instance());
  /// The same, of work that ends later than its call and occupies no thread meanwhile.
  int64_t submit_later(LaterWork work);
  /// A job's number as JavaScript has it.
  Napi::Number job_number(int64_t id) const {
    return Napi::Number::New(env_, static_cast<double>(id));
  }
  /// Keeps a value from being collected while a job that was submitted may read its memory.
  void keep(int64_t id, Napi::ObjectReference value);
  /// True if the job had not started: it never will, and will not settle.
  bool cancel(int64_t id);
  /// Blocks until the job has ended; its value, or its error thrown. It will not settle.
  Napi::Value wait(int64_t id);

 private:
  // Where finished jobs wait for the JavaScript thread. Shared with the jobs, which may end after the
  // environment.
  struct Mailbox {
    std::mutex mutex;
    std::deque<int64_t> finished;
    napi_threadsafe_function wake = nullptr;  // null once the environment closes
  };
  struct Pending {
    std::shared_ptr<runtime::Job> job;
    runtime::Executor* executor;
    std::shared_ptr<Deliver> deliver;
    const char* libtorch_code;
    std::shared_ptr<Napi::ObjectReference> kept = nullptr;
  };

  int64_t enqueue(runtime::Job::Work work, std::shared_ptr<Deliver> deliver, const char* libtorch_code,
                  runtime::Company company, runtime::Ending ending, runtime::Executor& executor,
                  const std::function<void(const std::shared_ptr<runtime::Job>&)>& made);
  static void on_wake(napi_env env, napi_value callback, void* context, void* data);
  static void on_close(void* self);
  void settle_next();
  Failure failure_of(const Pending& pending) const;
  void forget(int64_t id);

  Napi::Env env_;
  Napi::FunctionReference make_error_;
  Napi::FunctionReference settle_;
  std::shared_ptr<Mailbox> mailbox_ = std::make_shared<Mailbox>();
  std::unordered_map<int64_t, Pending> pending_;
  int64_t next_id_ = 1;
};

/// Throws `error` in JavaScript when the callback returns. While a Worker is terminated nothing can be thrown
/// and nobody would catch it: node-addon-api's own conversion then throws a C++ exception out of the
/// callback, which ends the process, so no callback may leave a Napi::Error to it.
inline void raise(Napi::Env env, const Napi::Error& error) noexcept {
  try {
    napi_throw(env, error.Value());
  } catch (const Napi::Error&) {
    // the environment is terminating
  }
}

/// Wraps a function of the export table: every C++ exception becomes a JavaScript error.
template <Napi::Value (*function)(Environment&, const Napi::CallbackInfo&)>
Napi::Value guarded(const Napi::CallbackInfo& info) {
  Environment& environment = Environment::of(info.Env());
  try {
    return function(environment, info);
  } catch (const Napi::Error& error) {
    raise(info.Env(), error);
  } catch (...) {
    const std::exception_ptr failure = std::current_exception();
    try {
      raise(info.Env(), environment.make_error(describe(failure)));
    } catch (const Napi::Error& error) {
      raise(info.Env(), error);
    }
  }
  return {};
}

}  // namespace senet::addon
