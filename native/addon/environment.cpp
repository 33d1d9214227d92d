#include "addon/environment.h"

#include "addon/distributed.h"

#include "core/error.h"
#include "runtime/cuda_failure.h"

#include <c10/util/Exception.h>

#include <cxxabi.h>

#include <cstdlib>
#include <new>
#include <string_view>
#include <system_error>
#include <typeinfo>

namespace senet::addon {
namespace {

std::string without_backtrace(const c10::Error& error) {
  std::string message = error.what_without_backtrace();
  // LibTorch appends where in its own sources it threw.
  const size_t origin = message.find("\nException raised from ");
  if (origin != std::string::npos) {
    message.resize(origin);
  }
  return message;
}

// An exception of no type of ours or of LibTorch's. The standard library's come from code of ours that is
// wrong (an index, an empty function): LibTorch and oneDNN throw types of their own and std::runtime_error,
// which nothing here throws, and what operators throw beside those, operators.cpp has turned into ours.
Failure describe_foreign(const std::exception& error) {
  int status = 0;
  char* demangled = abi::__cxa_demangle(typeid(error).name(), nullptr, nullptr, &status);
  const std::string type = demangled == nullptr ? typeid(error).name() : demangled;
  std::free(demangled);
  if (std::string_view(type).substr(0, 5) == "std::" &&
      dynamic_cast<const std::runtime_error*>(&error) == nullptr) {
    return {"ERR_SENET_INTERNAL", type + ": " + error.what()};
  }
  return {"ERR_SENET_LIBTORCH", error.what()};
}

Failure describe_any(const std::exception_ptr& exception) {
  try {
    std::rethrow_exception(exception);
  } catch (const Error& error) {
    return {error.code(), error.what()};
  } catch (const c10::OutOfMemoryError& error) {
    return {"ERR_SENET_OUT_OF_MEMORY", without_backtrace(error)};
  } catch (const c10::Error& error) {
    return {"ERR_SENET_LIBTORCH", without_backtrace(error)};
  } catch (const std::bad_alloc&) {
    return {"ERR_SENET_OUT_OF_MEMORY", "out of memory"};
  } catch (const std::system_error& error) {
    if (error.code() == std::errc::resource_unavailable_try_again) {
      return {"ERR_SENET_THREADS", "the system gives this process no more threads"};
    }
    return describe_foreign(error);
  } catch (const std::exception& error) {
    return describe_foreign(error);
  } catch (...) {
    return {"ERR_SENET_INTERNAL", "an unknown C++ exception"};
  }
}

}  // namespace

Failure describe(std::exception_ptr exception) {
  const Failure failure = describe_any(exception);
  if (failure.code != "ERR_SENET_CUDA" &&
      !(failure.code == "ERR_SENET_LIBTORCH" && runtime::is_cuda_message(failure.message))) {
    return failure;
  }
  const runtime::CudaFailure cuda = runtime::cuda_failure(failure.message);
  return {cuda.code, cuda.message};
}

Environment::Environment(Napi::Env env) : env_(env) {
  napi_value name = Napi::String::New(env, "senet-torch");
  napi_threadsafe_function wake = nullptr;
  const napi_status status = napi_create_threadsafe_function(
      env, nullptr, nullptr, name, /*max_queue_size=*/0, /*initial_thread_count=*/1, nullptr, nullptr, this,
      &Environment::on_wake, &wake);
  if (status != napi_ok) {
    throw Error("ERR_SENET_INTERNAL", "could not create a thread-safe function");
  }
  napi_unref_threadsafe_function(env, wake);  // referenced only while a job is pending
  mailbox_->wake = wake;
  // Added after the thread-safe function's own hook, so it runs before it.
  napi_add_env_cleanup_hook(env, &Environment::on_close, this);
}

void Environment::set_callbacks(Napi::Function make_error, Napi::Function settle) {
  make_error_ = Napi::Persistent(make_error);
  settle_ = Napi::Persistent(settle);
}

Napi::Error Environment::make_error(const Failure& failure) {
  if (make_error_.IsEmpty()) {
    return Napi::Error::New(env_, failure.code + ": " + failure.message);
  }
  return Napi::Error(env_, make_error_.Call({Napi::String::New(env_, failure.code),
                                             Napi::String::New(env_, failure.message)}));
}

int64_t Environment::submit(JobWork work, const char* libtorch_code, runtime::Company company,
                            runtime::Executor& executor) {
  auto deliver = std::make_shared<Deliver>();
  return enqueue([work = std::move(work), deliver] { *deliver = work(); }, deliver, libtorch_code, company,
                 runtime::Ending::kWithWork, executor, [](const auto&) {});
}

int64_t Environment::submit_later(LaterWork work) {
  auto deliver = std::make_shared<Deliver>();
  // The job holds its work, so that does not hold the job until it runs.
  auto self = std::make_shared<std::weak_ptr<runtime::Job>>();
  return enqueue(
      [work = std::move(work), deliver, self] {
        work([deliver, job = self->lock()](Deliver result, std::exception_ptr failure) {
          *deliver = std::move(result);
          runtime::Executor::instance().finish(job, std::move(failure));
        });
      },
      deliver, nullptr, runtime::Company::kShared, runtime::Ending::kLater, runtime::Executor::instance(),
      [&](const std::shared_ptr<runtime::Job>& job) { *self = job; });
}

int64_t Environment::enqueue(runtime::Job::Work work, std::shared_ptr<Deliver> deliver,
                             const char* libtorch_code, runtime::Company company, runtime::Ending ending,
                             runtime::Executor& executor,
                             const std::function<void(const std::shared_ptr<runtime::Job>&)>& made) {
  const int64_t id = next_id_++;
  auto job = std::make_shared<runtime::Job>(
      this, std::move(work),
      [mailbox = mailbox_, id] {
        std::lock_guard lock(mailbox->mutex);
        if (mailbox->wake == nullptr) {
          return;
        }
        mailbox->finished.push_back(id);
        napi_call_threadsafe_function(mailbox->wake, nullptr, napi_tsfn_nonblocking);
      },
      company, ending);
  made(job);
  executor.submit(job);
  if (pending_.empty()) {
    napi_ref_threadsafe_function(env_, mailbox_->wake);
  }
  pending_.emplace(id, Pending{std::move(job), &executor, std::move(deliver), libtorch_code});
  return id;
}

void Environment::keep(int64_t id, Napi::ObjectReference value) {
  pending_.at(id).kept = std::make_shared<Napi::ObjectReference>(std::move(value));
}

void Environment::forget(int64_t id) {
  pending_.erase(id);
  if (pending_.empty()) {
    napi_unref_threadsafe_function(env_, mailbox_->wake);
  }
}

bool Environment::cancel(int64_t id) {
  const auto found = pending_.find(id);
  if (found == pending_.end() || !found->second.executor->cancel(found->second.job)) {
    return false;
  }
  forget(id);
  return true;
}

Failure Environment::failure_of(const Pending& pending) const {
  Failure failure = describe(pending.job->failure());
  if (pending.libtorch_code != nullptr && failure.code == "ERR_SENET_LIBTORCH") {
    failure.code = pending.libtorch_code;
  }
  return failure;
}

Napi::Value Environment::wait(int64_t id) {
  const auto found = pending_.find(id);
  if (found == pending_.end()) {
    throw Error("ERR_SENET_INTERNAL", "no such job");
  }
  const Pending pending = found->second;
  pending.executor->wait(pending.job);
  forget(id);
  if (pending.job->failure()) {
    throw make_error(failure_of(pending));
  }
  // Dropped while waiting: the process is being drained.
  if (!*pending.deliver) {
    throw Error("ERR_SENET_CLOSING", "the process is ending and dropped the job");
  }
  return (*pending.deliver)(*this);
}

void Environment::on_wake(napi_env env, napi_value, void* context, void*) {
  if (env == nullptr) {
    return;  // the environment is closing
  }
  static_cast<Environment*>(context)->settle_next();
}

void Environment::settle_next() {
  int64_t id = 0;
  {
    std::lock_guard lock(mailbox_->mutex);
    if (mailbox_->finished.empty()) {
      return;
    }
    id = mailbox_->finished.front();
    mailbox_->finished.pop_front();
  }
  const auto found = pending_.find(id);
  if (found == pending_.end()) {
    return;  // waited for
  }
  const Pending pending = found->second;
  forget(id);
  try {
    Napi::HandleScope scope(env_);
    Napi::Value error = env_.Null();
    Napi::Value value = env_.Undefined();
    try {
      if (pending.job->failure()) {
        error = make_error(failure_of(pending)).Value();
      } else {
        value = (*pending.deliver)(*this);
      }
    } catch (const Napi::Error& failure) {
      error = failure.Value();
    } catch (...) {
      error = make_error(describe(std::current_exception())).Value();
    }
    settle_.Call({job_number(id), error, value});
  } catch (const Napi::Error&) {
    // settle only resolves or rejects a promise. While a Worker is terminated every call throws.
  }
}

void Environment::on_close(void* self) {
  auto* environment = static_cast<Environment*>(self);
  napi_threadsafe_function wake = nullptr;
  {
    std::lock_guard lock(environment->mailbox_->mutex);
    wake = std::exchange(environment->mailbox_->wake, nullptr);
  }
  close_group(environment);
  runtime::Executor::instance().abandon(environment);
  runtime::Executor::decoders().abandon(environment);
  napi_release_threadsafe_function(wake, napi_tsfn_abort);
  environment->pending_.clear();
}

}  // namespace senet::addon
