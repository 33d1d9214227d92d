// gloo of one process, with failures that name the rank, also where c10d itself begins a collective (the
// reducer of gradients), and with collectives that are compared before they begin: the line of what was
// announced.
#pragma once

#include "core/error.h"
#include "distributed/process_group.h"
#include "distributed/watch.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

namespace senet::distributed {

enum class CollectiveKind : int64_t { kAllReduce, kBroadcast, kAllGather, kBarrier };

/// What a process says of a collective before it begins.
struct Announcement {
  CollectiveKind kind;
  at::ScalarType dtype = at::kByte;
  int64_t elements = 0;
  int64_t detail = 0;  // which Reduction, or the rank that broadcasts
};

/// A collective that begins now or later, and whose failure is told by the watch. All of gloo's give
/// tensors.
class ExplainedWork : public c10d::Work {
 public:
  explicit ExplainedWork(const std::shared_ptr<Watch>& watch)
      : watch_(watch),
        future_(c10::make_intrusive<c10::ivalue::Future>(c10::ListType::create(c10::TensorType::get()))) {}

  /// It has begun.
  void bind(const c10::intrusive_ptr<c10d::Work>& work) {
    work->getFuture()->addCallback([future = future_, watch = watch_](c10::ivalue::Future& done) {
      if (!done.hasError()) {
        future->markCompleted(done.constValue());
        return;
      }
      fail(future, watch, done.exception_ptr());
    });
  }
  /// It will not begin.
  void fail(const std::exception_ptr& failure) {
    try {
      std::rethrow_exception(failure);
    } catch (const Error&) {
      future_->setError(failure);
    } catch (...) {
      fail(future_, watch_, failure);
    }
  }

  bool isCompleted() override {
    return future_->completed();
  }
  bool isSuccess() const override {
    return future_->completed() && !future_->hasError();
  }
  std::exception_ptr exception() const override {
    return future_->hasError() ? future_->exception_ptr() : nullptr;
  }
  std::vector<at::Tensor> result() override {
    return future_->value().toTensorVector();
  }
  bool wait(std::chrono::milliseconds) override {
    future_->wait();
    if (future_->hasError()) {
      std::rethrow_exception(future_->exception_ptr());
    }
    return true;
  }
  void synchronize() override {}
  void abort() override {}
  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override {
    return future_;
  }

 private:
  static void fail(const c10::intrusive_ptr<c10::ivalue::Future>& future, const std::weak_ptr<Watch>& watch,
                   const std::exception_ptr& failure) {
    if (const std::shared_ptr<Watch> alive = watch.lock()) {
      alive->explain(failure, [future](std::exception_ptr error) { future->setError(error); });
    } else {
      future->setError(failure);
    }
  }

  const std::weak_ptr<Watch> watch_;
  const c10::intrusive_ptr<c10::ivalue::Future> future_;
};

/// gloo ends a process that is sent more than it has room for. So where all processes are of this library,
/// those of its own functions are announced first, and begin once all have said the same. Whatever is begun
/// meanwhile waits in line: every process begins all of them in one order.
class ExplainedGloo : public c10d::ProcessGroupGloo {
 public:
  using Begin = std::function<c10::intrusive_ptr<c10d::Work>()>;
  using ProcessGroupGloo::ProcessGroupGloo;

  ~ExplainedGloo() override;

  /// From now on failures are told by the watch, and collectives announced if `announces`.
  void start(std::shared_ptr<Watch> watch, bool announces) {
    watch_ = std::move(watch);
    announces_ = announces;
  }

  /// Whoever waits for another process fails, here and there.
  void close_connections();

  /// Begins once all processes have said the same; fails with ERR_SENET_DISTRIBUTED, on every process, if
  /// they say different things.
  c10::intrusive_ptr<c10d::Work> announced(const Announcement& announcement, Begin begin) {
    return submit(announces_ ? std::optional(announcement) : std::nullopt, std::move(begin));
  }

  /// As gloo has them, for what is announced.
  c10::intrusive_ptr<c10d::Work> begin_broadcast(std::vector<at::Tensor> tensors,
                                                 const c10d::BroadcastOptions& options) {
    return ProcessGroupGloo::broadcast(tensors, options);
  }
  c10::intrusive_ptr<c10d::Work> begin_allreduce(std::vector<at::Tensor> tensors,
                                                 const c10d::AllreduceOptions& options) {
    return ProcessGroupGloo::allreduce(tensors, options);
  }
  c10::intrusive_ptr<c10d::Work> begin_allgather(std::vector<std::vector<at::Tensor>> outputs,
                                                 std::vector<at::Tensor> inputs) {
    return ProcessGroupGloo::allgather(outputs, inputs, {});
  }
  c10::intrusive_ptr<c10d::Work> begin_barrier() {
    return ProcessGroupGloo::barrier({});
  }

  /// What c10d begins.
  c10::intrusive_ptr<c10d::Work> broadcast(std::vector<at::Tensor>& tensors,
                                           const c10d::BroadcastOptions& options) override {
    return submit(std::nullopt, [this, tensors, options] { return begin_broadcast(tensors, options); });
  }
  c10::intrusive_ptr<c10d::Work> allreduce(std::vector<at::Tensor>& tensors,
                                           const c10d::AllreduceOptions& options) override {
    return submit(std::nullopt, [this, tensors, options] { return begin_allreduce(tensors, options); });
  }
  c10::intrusive_ptr<c10d::Work> allgather(std::vector<std::vector<at::Tensor>>& outputs,
                                           std::vector<at::Tensor>& inputs,
                                           const c10d::AllgatherOptions&) override {
    return submit(std::nullopt, [this, outputs, inputs] { return begin_allgather(outputs, inputs); });
  }
  c10::intrusive_ptr<c10d::Work> barrier(const c10d::BarrierOptions&) override {
    return submit(std::nullopt, [this] { return begin_barrier(); });
  }

 private:
  struct Waiting {
    c10::intrusive_ptr<ExplainedWork> work;
    std::optional<Announcement> announcement;
    Begin begin;
  };

  c10::intrusive_ptr<c10d::Work> submit(std::optional<Announcement> announcement, Begin begin);
  void run();
  void compare(const Announcement& own);

  std::shared_ptr<Watch> watch_;
  bool announces_ = false;

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Waiting> line_;
  bool is_busy_ = false;
  bool is_ending_ = false;
  std::thread thread_;
};

}  // namespace senet::distributed
