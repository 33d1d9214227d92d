#ifdef SENET_HAS_C10D

#include "distributed/line.h"

#include "core/error.h"
#include "core/names.h"

#include <ATen/ops/tensor.h>

#include <string>

namespace senet::distributed {
namespace {

// "allReduce (sum) of 4 values of float32"
std::string text_of(const at::Tensor& said) {
  const auto* values = said.const_data_ptr<int64_t>();
  const std::string what = " of " + std::to_string(values[2]) + " values of " +
                           dtype_name(static_cast<at::ScalarType>(values[1])) +
                           (static_cast<Carrier>(values[4]) == Carrier::kNccl ? " on a GPU" : "");
  switch (static_cast<CollectiveKind>(values[0])) {
    case CollectiveKind::kAllReduce:
      return std::string("allReduce (") + kReductionNames[values[3]] + ")" + what;
    case CollectiveKind::kBroadcast:
      return "broadcast" + what + " from rank " + std::to_string(values[3]);
    case CollectiveKind::kAllGather:
      return "allGather" + what;
    case CollectiveKind::kBarrier:
      return "barrier";
  }
  return "?";
}

}  // namespace

Line::Line(std::shared_ptr<Watch> watch, Exchange exchange)
    : watch_(std::move(watch)), exchange_(std::move(exchange)) {}

Line::~Line() {
  {
    const std::lock_guard lock(mutex_);
    is_ending_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) {
    thread_.join();
  }
}

c10::intrusive_ptr<c10d::Work> Line::submit(std::optional<Announcement> announcement, Begin begin) {
  watch_->count();
  const Waiting next{c10::make_intrusive<ExplainedWork>(watch_), announcement, std::move(begin)};
  const std::lock_guard lock(mutex_);
  if (!announcement && line_.empty() && !is_busy_) {
    next.work->bind(next.begin());  // what that throws is the caller's
    return next.work;
  }
  line_.push_back(next);
  if (!thread_.joinable()) {
    thread_ = std::thread(&Line::run, this);
  }
  wake_.notify_all();
  return next.work;
}

void Line::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [&] { return is_ending_ || !line_.empty(); });
    if (line_.empty()) {
      return;
    }
    const Waiting next = std::move(line_.front());
    line_.pop_front();
    is_busy_ = true;
    lock.unlock();
    try {
      if (next.announcement) {
        compare(*next.announcement);
      }
      next.work->bind(next.begin());
    } catch (...) {
      next.work->fail(std::current_exception());
    }
    lock.lock();
    is_busy_ = false;
  }
}

// Throws ERR_SENET_DISTRIBUTED, on every process, unless all say the same.
void Line::compare(const Announcement& own) {
  const std::vector<at::Tensor> all =
      exchange_(at::tensor({static_cast<int64_t>(own.kind), static_cast<int64_t>(own.dtype), own.elements,
                            own.detail, static_cast<int64_t>(own.carrier)},
                           at::kLong));
  for (size_t rank = 1; rank < all.size(); ++rank) {
    if (!all[rank].equal(all[0])) {
      throw Error("ERR_SENET_DISTRIBUTED", "the processes call different collectives: rank 0 " +
                                               text_of(all[0]) + ", rank " + std::to_string(rank) + " " +
                                               text_of(all[rank]));
    }
  }
}

}  // namespace senet::distributed

#endif  // SENET_HAS_C10D
