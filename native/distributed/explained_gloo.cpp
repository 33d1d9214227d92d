#ifdef SENET_HAS_C10D

#include "distributed/explained_gloo.h"

#include "core/error.h"
#include "core/names.h"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/tensor.h>

#include <string>
#include <string_view>
#include <typeinfo>

namespace senet::distributed {
namespace {

// "allReduce (sum) of 4 values of float32"
std::string text_of(const at::Tensor& said) {
  const auto* values = said.const_data_ptr<int64_t>();
  const std::string what =
      " of " + std::to_string(values[2]) + " values of " + dtype_name(static_cast<at::ScalarType>(values[1]));
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

ExplainedGloo::~ExplainedGloo() {
  {
    const std::lock_guard lock(mutex_);
    is_ending_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) {
    thread_.join();
  }
}

void ExplainedGloo::close_connections() {
  for (const auto& context : contexts_) {
    for (int rank = 0; rank < getSize(); ++rank) {
      gloo::transport::Pair* pair = rank == getRank() ? nullptr : context->getPair(rank).get();
      // Of another transport, a wait ends with its timeout.
      if (pair != nullptr && std::string_view(typeid(*pair).name()) == "N4gloo9transport3tcp4PairE") {
        static_cast<gloo::transport::tcp::Pair*>(dynamic_cast<void*>(pair))
            ->signalExceptionExternal("closed");
      }
    }
  }
}

c10::intrusive_ptr<c10d::Work> ExplainedGloo::submit(std::optional<Announcement> announcement, Begin begin) {
  if (watch_ == nullptr) {
    return begin();  // nobody watches yet
  }
  watch_->count();
  auto work = c10::make_intrusive<ExplainedWork>(watch_);
  const std::lock_guard lock(mutex_);
  if (!announcement && line_.empty() && !is_busy_) {
    work->bind(begin());
    return work;
  }
  line_.push_back({work, announcement, std::move(begin)});
  if (!thread_.joinable()) {
    thread_ = std::thread(&ExplainedGloo::run, this);
  }
  wake_.notify_all();
  return work;
}

void ExplainedGloo::run() {
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
void ExplainedGloo::compare(const Announcement& own) {
  const at::Tensor said = at::tensor(
      {static_cast<int64_t>(own.kind), static_cast<int64_t>(own.dtype), own.elements, own.detail}, at::kLong);
  std::vector<std::vector<at::Tensor>> all(1);
  for (int rank = 0; rank < getSize(); ++rank) {
    all[0].push_back(at::empty_like(said));
  }
  begin_allgather(all, {said})->wait();
  for (int rank = 1; rank < getSize(); ++rank) {
    if (!all[0][rank].equal(all[0][0])) {
      throw Error("ERR_SENET_DISTRIBUTED", "the processes call different collectives: rank 0 " +
                                               text_of(all[0][0]) + ", rank " + std::to_string(rank) + " " +
                                               text_of(all[0][rank]));
    }
  }
}

}  // namespace senet::distributed

#endif  // SENET_HAS_C10D
