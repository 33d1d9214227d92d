// The order in which a process begins its collectives, whatever carries them: those of the library's own
// functions are compared with the other processes' before they begin, and a failure of any names the rank,
// also where c10d itself began it (the reducer of gradients).
#pragma once

#include "core/error.h"
#include "distributed/future_work.h"
#include "distributed/process_group.h"
#include "distributed/watch.h"

#include <ATen/core/Tensor.h>

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
  Carrier carrier = Carrier::kGloo;
};

/// A collective that begins now or later, and whose failure is told by the watch.
class ExplainedWork : public FutureWork {
 public:
  explicit ExplainedWork(const std::shared_ptr<Watch>& watch) : watch_(watch) {}

  /// It has begun.
  void bind(const c10::intrusive_ptr<c10d::Work>& work) {
    work->getFuture()->addCallback([future = getFuture(), watch = watch_](c10::ivalue::Future& done) {
      if (!done.hasError()) {
        future->markCompleted(done.constValue());
        return;
      }
      fail(future, watch, done.exception_ptr());
    });
  }
  /// It will not begin.
  void fail(const std::exception_ptr& failure) {
    fail(getFuture(), watch_, failure);
  }

 private:
  // What has a code already says what is wrong.
  static void fail(const Future& future, const std::weak_ptr<Watch>& watch,
                   const std::exception_ptr& failure) {
    try {
      std::rethrow_exception(failure);
    } catch (const Error&) {
      future->setError(failure);
      return;
    } catch (...) {
      // told below
    }
    if (const std::shared_ptr<Watch> alive = watch.lock()) {
      alive->explain(failure, [future](std::exception_ptr error) { future->setError(error); });
    } else {
      future->setError(failure);
    }
  }

  const std::weak_ptr<Watch> watch_;
};

/// gloo ends a process that is sent more than it has room for, and NCCL waits for ever for one that does
/// something else. So where all processes are of this library, those of its own functions are announced
/// first, and begin once all have said the same. Whatever is begun meanwhile waits in line: every process
/// begins all of them in one order.
class Line {
 public:
  using Begin = std::function<c10::intrusive_ptr<c10d::Work>()>;
  /// Gives what each process says, in the order of their ranks; blocks.
  using Exchange = std::function<std::vector<at::Tensor>(const at::Tensor& said)>;

  /// Without an exchange nothing is announced.
  Line(std::shared_ptr<Watch> watch, Exchange exchange);
  ~Line();
  Line(const Line&) = delete;
  Line& operator=(const Line&) = delete;

  /// What c10d begins, at once if nobody waits.
  c10::intrusive_ptr<c10d::Work> submit(Begin begin) {
    return submit(std::nullopt, std::move(begin));
  }
  /// Begins once all processes have said the same; fails with ERR_SENET_DISTRIBUTED, on every process, if
  /// they say different things.
  c10::intrusive_ptr<c10d::Work> announce(const Announcement& announcement, Begin begin) {
    return submit(exchange_ == nullptr ? std::nullopt : std::optional(announcement), std::move(begin));
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

  const std::shared_ptr<Watch> watch_;
  const Exchange exchange_;

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Waiting> line_;
  bool is_busy_ = false;
  bool is_ending_ = false;
  std::thread thread_;
};

}  // namespace senet::distributed
