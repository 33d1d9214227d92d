// The names that processes find each other by in the store are those of Python's init_process_group
// (torch/distributed/distributed_c10d.py), so that processes of both take part in one group.
#ifdef SENET_HAS_C10D

#include "distributed/gloo_group.h"

#include "core/error.h"
#include "core/names.h"
#include "distributed/watch.h"

#include <ATen/core/ivalue.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/tensor.h>
#include <c10/util/Logging.h>
#include <torch/csrc/utils/tensor_flatten.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <optional>
#include <string_view>
#include <thread>
#include <typeinfo>
#include <utility>

namespace senet::distributed {
namespace {

using Clock = std::chrono::steady_clock;
using c10::intrusive_ptr;
using c10::ivalue::Future;

constexpr auto kPoll = std::chrono::milliseconds(10);

// The store, whose waiting can be ended.
class PatientStore : public c10d::PrefixStore {
 public:
  PatientStore(intrusive_ptr<c10d::Store> store, Stop stopped, Clock::time_point until)
      : PrefixStore("default_pg", std::move(store)), stopped_(std::move(stopped)), until_(until) {}

  std::vector<uint8_t> get(const std::string& key) override {
    await({key});
    return PrefixStore::get(key);
  }
  std::vector<std::vector<uint8_t>> multiGet(const std::vector<std::string>& keys) override {
    await(keys);
    return PrefixStore::multiGet(keys);
  }
  void wait(const std::vector<std::string>& keys) override {
    await(keys);
  }
  void wait(const std::vector<std::string>& keys, const std::chrono::milliseconds&) override {
    await(keys);
  }

 private:
  void await(const std::vector<std::string>& keys) {
    while (!PrefixStore::check(keys)) {
      if (*stopped_) {
        throw Error("ERR_SENET_ABORTED", "connecting was aborted");
      }
      if (Clock::now() > until_) {
        throw Error("ERR_SENET_DISTRIBUTED", "not all ranks came in time");
      }
      std::this_thread::sleep_for(kPoll);
    }
  }

  const Stop stopped_;
  const Clock::time_point until_;
};

// A collective that begins now or later, and whose failure is told by the watch. All of this file give
// tensors.
class ExplainedWork : public c10d::Work {
 public:
  explicit ExplainedWork(const std::shared_ptr<Watch>& watch)
      : watch_(watch), future_(c10::make_intrusive<Future>(c10::ListType::create(c10::TensorType::get()))) {}

  // It has begun.
  void bind(const intrusive_ptr<c10d::Work>& work) {
    work->getFuture()->addCallback([future = future_, watch = watch_](Future& done) {
      if (!done.hasError()) {
        future->markCompleted(done.constValue());
        return;
      }
      fail(future, watch, done.exception_ptr());
    });
  }
  // It will not begin.
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
  intrusive_ptr<Future> getFuture() override {
    return future_;
  }

 private:
  static void fail(const intrusive_ptr<Future>& future, const std::weak_ptr<Watch>& watch,
                   const std::exception_ptr& failure) {
    if (const std::shared_ptr<Watch> alive = watch.lock()) {
      alive->explain(failure, [future](std::exception_ptr error) { future->setError(error); });
    } else {
      future->setError(failure);
    }
  }

  const std::weak_ptr<Watch> watch_;
  const intrusive_ptr<Future> future_;
};

// What a process says of a collective before it begins.
struct Announcement {
  int64_t kind;  // of kKinds
  at::ScalarType dtype;
  int64_t elements;
  int64_t detail;  // which reduction, or the rank that broadcasts
};

constexpr const char* kKinds[] = {"allReduce", "broadcast", "allGather", "barrier"};

// gloo, with failures that name the rank, also where c10d itself begins a collective (the reducer of
// gradients).
//
// gloo ends a process that is sent more than it has room for. So where all processes are of this library,
// those of its own functions are announced first, and begin once all have said the same. Whatever is begun
// meanwhile waits in line: every process begins all of them in one order.
class ExplainedGloo : public c10d::ProcessGroupGloo {
 public:
  using Begin = std::function<intrusive_ptr<c10d::Work>()>;
  using ProcessGroupGloo::ProcessGroupGloo;

  ~ExplainedGloo() override {
    {
      const std::lock_guard lock(mutex_);
      is_ending_ = true;
    }
    wake_.notify_all();
    if (thread_.joinable()) {
      thread_.join();
    }
  }

  void start(std::shared_ptr<Watch> watch, bool announces) {
    watch_ = std::move(watch);
    announces_ = announces;
  }

  // Whoever waits for another process fails, here and there.
  void close_connections() {
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

  intrusive_ptr<c10d::Work> announced(const Announcement& announcement, Begin begin) {
    return submit(announces_ ? std::optional(announcement) : std::nullopt, std::move(begin));
  }

  // As gloo has them, for what is announced.
  intrusive_ptr<c10d::Work> begin_broadcast(std::vector<at::Tensor> tensors,
                                            const c10d::BroadcastOptions& options) {
    return ProcessGroupGloo::broadcast(tensors, options);
  }
  intrusive_ptr<c10d::Work> begin_allreduce(std::vector<at::Tensor> tensors,
                                            const c10d::AllreduceOptions& options) {
    return ProcessGroupGloo::allreduce(tensors, options);
  }
  intrusive_ptr<c10d::Work> begin_allgather(std::vector<std::vector<at::Tensor>> outputs,
                                            std::vector<at::Tensor> inputs) {
    return ProcessGroupGloo::allgather(outputs, inputs, {});
  }
  intrusive_ptr<c10d::Work> begin_barrier() {
    return ProcessGroupGloo::barrier({});
  }

  // What c10d begins.
  intrusive_ptr<c10d::Work> broadcast(std::vector<at::Tensor>& tensors,
                                      const c10d::BroadcastOptions& options) override {
    return submit(std::nullopt, [this, tensors, options] { return begin_broadcast(tensors, options); });
  }
  intrusive_ptr<c10d::Work> allreduce(std::vector<at::Tensor>& tensors,
                                      const c10d::AllreduceOptions& options) override {
    return submit(std::nullopt, [this, tensors, options] { return begin_allreduce(tensors, options); });
  }
  intrusive_ptr<c10d::Work> allgather(std::vector<std::vector<at::Tensor>>& outputs,
                                      std::vector<at::Tensor>& inputs,
                                      const c10d::AllgatherOptions&) override {
    return submit(std::nullopt, [this, outputs, inputs] { return begin_allgather(outputs, inputs); });
  }
  intrusive_ptr<c10d::Work> barrier(const c10d::BarrierOptions&) override {
    return submit(std::nullopt, [this] { return begin_barrier(); });
  }

 private:
  struct Waiting {
    intrusive_ptr<ExplainedWork> work;
    std::optional<Announcement> announcement;
    Begin begin;
  };

  intrusive_ptr<c10d::Work> submit(std::optional<Announcement> announcement, Begin begin) {
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

  void run() {
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
  void compare(const Announcement& own) {
    const at::Tensor said =
        at::tensor({own.kind, static_cast<int64_t>(own.dtype), own.elements, own.detail}, at::kLong);
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

  static std::string text_of(const at::Tensor& said) {
    const auto* values = said.const_data_ptr<int64_t>();
    const std::string name = kKinds[values[0]];
    if (name == "barrier") {
      return name;
    }
    const std::string what = name + " of " + std::to_string(values[2]) + " values of " +
                             dtype_name(static_cast<at::ScalarType>(values[1]));
    return name == "broadcast" ? what + " from rank " + std::to_string(values[3]) : what;
  }

  std::shared_ptr<Watch> watch_;
  bool announces_ = false;

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Waiting> line_;
  bool is_busy_ = false;
  bool is_ending_ = false;
  std::thread thread_;
};

// What gloo reduces (GENERATE_ALL_TYPES of ProcessGroupGloo), but for bool, whose bytes it would add.
void check_reducible(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
    case at::kDouble:
    case at::kHalf:
    case at::kBFloat16:
    case at::kChar:
    case at::kByte:
    case at::kInt:
    case at::kLong:
      return;
    default:
      throw Error(
          "ERR_SENET_DTYPE",
          std::string("allReduce: expected float32, float64, float16, bfloat16, int64, int32, int8 or uint8, "
                      "got ") +
              dtype_name(tensor.scalar_type()));
  }
}

c10d::ReduceOp operation_of(Reduction reduction) {
  switch (reduction) {
    case Reduction::kProduct:
      return c10d::ReduceOp::PRODUCT;
    case Reduction::kMinimum:
      return c10d::ReduceOp::MIN;
    case Reduction::kMaximum:
      return c10d::ReduceOp::MAX;
    default:
      return c10d::ReduceOp::SUM;
  }
}

// Calls `then` when the work has ended, with what went wrong; what that throws is taken for it.
void when_done(const intrusive_ptr<c10d::Work>& work, const std::function<void()>& finish, const Done& done) {
  work->getFuture()->addCallback([work, finish, done](Future& future) {
    std::exception_ptr failure = future.hasError() ? future.exception_ptr() : nullptr;
    try {
      if (failure == nullptr) {
        finish();
      }
    } catch (...) {
      failure = std::current_exception();
    }
    done(failure);
  });
}

class GlooGroup : public ProcessGroup {
 public:
  GlooGroup(intrusive_ptr<ExplainedGloo> gloo, intrusive_ptr<c10d::ProcessGroup> group,
            std::shared_ptr<Watch> watch, intrusive_ptr<c10d::Store> store)
      : gloo_(std::move(gloo)),
        group_(std::move(group)),
        watch_(std::move(watch)),
        store_(std::move(store)) {}

  ~GlooGroup() override {
    close("ERR_SENET_DISTRIBUTED", "the process group was destroyed");
  }

  int rank() const override {
    return gloo_->getRank();
  }
  int size() const override {
    return gloo_->getSize();
  }

  void all_reduce(const at::Tensor& tensor, Reduction reduction, Done done) override {
    check_reducible(tensor);
    const at::NoGradGuard no_grad;
    const at::Tensor given = tensor.detach();
    std::vector<at::Tensor> values{given.contiguous()};
    c10d::AllreduceOptions options;
    options.reduceOp = operation_of(reduction);
    const auto work = gloo_->announced(
        {0, given.scalar_type(), given.numel(), static_cast<int64_t>(reduction)},
        [gloo = gloo_.get(), values, options] { return gloo->begin_allreduce(values, options); });
    const int divisor = reduction == Reduction::kAverage ? size() : 1;
    when_done(
        work,
        [given, result = values[0], divisor] {
          const at::NoGradGuard quiet;
          if (divisor != 1) {
            result.div_(divisor);
          }
          if (!result.is_same(given) && result.data_ptr() != given.data_ptr()) {
            given.copy_(result);
          }
        },
        done);
  }

  void broadcast(const std::vector<at::Tensor>& tensors, int root, Done done) override {
    if (tensors.empty()) {
      done(nullptr);
      return;
    }
    const at::NoGradGuard no_grad;
    std::vector<at::Tensor> given;
    for (const at::Tensor& tensor : tensors) {
      given.push_back(tensor.detach());
    }
    std::vector<at::Tensor> values{given.size() == 1 ? given[0].contiguous()
                                                     : torch::utils::flatten_dense_tensors(given)};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    const auto work = gloo_->announced(
        {1, values[0].scalar_type(), values[0].numel(), root},
        [gloo = gloo_.get(), values, options] { return gloo->begin_broadcast(values, options); });
    const bool is_root = root == rank();
    when_done(
        work,
        [given, value = values[0], is_root] {
          if (is_root) {
            return;
          }
          const at::NoGradGuard quiet;
          if (given.size() == 1) {
            if (value.data_ptr() != given[0].data_ptr()) {
              given[0].copy_(value);
            }
            return;
          }
          const auto parts = torch::utils::unflatten_dense_tensors(value, given);
          for (size_t i = 0; i < given.size(); ++i) {
            given[i].copy_(parts[i]);
          }
        },
        done);
  }

  void all_gather(const at::Tensor& tensor,
                  std::function<void(std::vector<at::Tensor>, std::exception_ptr)> done) override {
    const at::NoGradGuard no_grad;
    std::vector<at::Tensor> inputs{tensor.detach().contiguous()};
    std::vector<std::vector<at::Tensor>> outputs(1);
    for (int i = 0; i < size(); ++i) {
      outputs[0].push_back(at::empty_like(inputs[0]));
    }
    const auto work = gloo_->announced(
        {2, inputs[0].scalar_type(), inputs[0].numel(), 0},
        [gloo = gloo_.get(), outputs, inputs] { return gloo->begin_allgather(outputs, inputs); });
    when_done(
        work, [] {}, [outputs, done](std::exception_ptr failure) { done(outputs[0], failure); });
  }

  void barrier(Done done) override {
    const auto work =
        gloo_->announced({3, at::kByte, 0, 0}, [gloo = gloo_.get()] { return gloo->begin_barrier(); });
    when_done(
        work, [] {}, done);
  }

  std::vector<at::Tensor> gather(const at::Tensor& tensor) override {
    std::vector<at::Tensor> inputs{tensor.contiguous()};
    std::vector<std::vector<at::Tensor>> outputs(1);
    for (int i = 0; i < size(); ++i) {
      outputs[0].push_back(at::empty_like(inputs[0]));
    }
    gloo_->allgather(outputs, inputs, {})->wait();
    return outputs[0];
  }

  at::Tensor sum(const at::Tensor& tensor) override {
    std::vector<at::Tensor> values{tensor.clone()};
    gloo_->allreduce(values, {})->wait();
    return values[0];
  }

  void fail(const std::string& reason) override {
    watch_->fail(reason);
  }

  void close(const char* code, const std::string& why) override {
    watch_->close(code, why);
    gloo_->close_connections();
  }

  const intrusive_ptr<c10d::ProcessGroup>& group() const {
    return group_;
  }

 private:
  const intrusive_ptr<ExplainedGloo> gloo_;
  const intrusive_ptr<c10d::ProcessGroup> group_;
  const std::shared_ptr<Watch> watch_;
  const intrusive_ptr<c10d::Store> store_;
};

std::string first_line(const std::exception& error) {
  const auto* torch_error = dynamic_cast<const c10::Error*>(&error);
  const std::string text = torch_error == nullptr ? error.what() : torch_error->what_without_backtrace();
  return text.substr(0, text.find('\n'));
}

// Tries until the store answers: the process that has it may begin later.
intrusive_ptr<c10d::TCPStore> reach_store(const Rendezvous& rendezvous, uint16_t port, bool hosts, bool joins,
                                          const Stop& stopped, Clock::time_point until) {
  while (true) {
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = hosts;
    // Who hosts the store for Python's processes waits until each has said that it is there.
    options.numWorkers = joins ? std::optional<size_t>(rendezvous.size) : std::nullopt;
    options.waitWorkers = joins && !hosts;
    options.timeout = std::chrono::seconds(1);
    options.multiTenant = hosts;
    try {
      auto store = c10::make_intrusive<c10d::TCPStore>(rendezvous.host, options);
      store->setTimeout(rendezvous.timeout);
      return store;
    } catch (const std::exception& error) {
      const std::string where = rendezvous.host + ":" + std::to_string(port);
      if (*stopped) {
        throw Error("ERR_SENET_ABORTED", "connecting was aborted");
      }
      if (hosts) {
        throw Error("ERR_SENET_DISTRIBUTED",
                    "rank 0 cannot open the group's store at " + where + ": " + first_line(error));
      }
      if (Clock::now() > until) {
        throw Error("ERR_SENET_DISTRIBUTED", "rank " + std::to_string(rendezvous.rank) +
                                                 ": nobody answers at " + where +
                                                 ", where the group's store should be: " + first_line(error));
      }
    }
  }
}

// Those that did not come, or are processes of Python's.
std::string absent_ranks(c10d::Store& store, int size) {
  std::string names;
  for (int rank = 0; rank < size; ++rank) {
    if (!store.check({"senet/joined/" + std::to_string(rank)})) {
      names += (names.empty() ? "" : ", ") + std::to_string(rank);
    }
  }
  return names;
}

}  // namespace

const char* absence() {
  return "";
}

std::shared_ptr<ProcessGroup> connect(const Rendezvous& rendezvous, const Stop& stopped) {
  // c10d's own lines about connections that end, with their stacks: the errors here say it.
  if (std::getenv("TORCH_CPP_LOG_LEVEL") == nullptr) {
    FLAGS_caffe2_log_level = std::max(FLAGS_caffe2_log_level, static_cast<int>(c10::GLOG_ERROR));
  }
  const auto until = Clock::now() + rendezvous.timeout;
  const bool hosts = rendezvous.rank_0_hosts_store && rendezvous.rank == 0;
  const auto store = reach_store(rendezvous, rendezvous.port, hosts, /*joins=*/true, stopped, until);
  static_cast<c10d::Store&>(*store).set("senet/joined/" + std::to_string(rendezvous.rank), std::string("1"));
  auto patient = c10::make_intrusive<PatientStore>(store, stopped, until);
  auto named = c10::make_intrusive<c10d::PrefixStore>("0/", patient);
  auto options = c10d::ProcessGroupGloo::Options::create_default(rendezvous.timeout);
  intrusive_ptr<ExplainedGloo> gloo;
  try {
    gloo = c10::make_intrusive<ExplainedGloo>(c10::make_intrusive<c10d::PrefixStore>("cpu/", named),
                                              rendezvous.rank, rendezvous.size, options);
    gloo->setSequenceNumberForGroup();
  } catch (const std::exception& error) {
    if (*stopped) {
      throw Error("ERR_SENET_ABORTED", "connecting was aborted");
    }
    std::string absent;
    try {
      absent = absent_ranks(*store, rendezvous.size);
    } catch (const std::exception&) {
      // the store is gone; the first error says more
    }
    throw Error(
        "ERR_SENET_DISTRIBUTED",
        "rank " + std::to_string(rendezvous.rank) + " could not connect to the group of " +
            std::to_string(rendezvous.size) + " within " +
            std::to_string(std::chrono::duration_cast<std::chrono::seconds>(rendezvous.timeout).count()) +
            " s" + (absent.empty() ? "" : " (not there: rank " + absent + ")") + ": " + first_line(error));
  }
  auto group = c10::make_intrusive<c10d::ProcessGroup>(named, rendezvous.rank, rendezvous.size);
  group->setDefaultBackend(c10d::ProcessGroup::BackendType::GLOO);
  // gloo serves both, as in Python.
  group->setBackend(c10::DeviceType::CUDA, c10d::ProcessGroup::BackendType::GLOO, gloo);
  group->setBackend(c10::DeviceType::CPU, c10d::ProcessGroup::BackendType::GLOO, gloo);
  // A connection of the watch's own: one request at a time goes over each.
  auto watch = std::make_shared<Watch>(
      reach_store(rendezvous, store->getPort(), /*hosts=*/false, /*joins=*/false, stopped, until),
      rendezvous.rank, rendezvous.size, hosts, rendezvous.rank_0_hosts_store,
      [raw = gloo.get()] { raw->close_connections(); });
  gloo->start(watch, rendezvous.size > 1 && absent_ranks(*store, rendezvous.size).empty());
  return std::make_shared<GlooGroup>(std::move(gloo), std::move(group), std::move(watch), store);
}

intrusive_ptr<c10d::ProcessGroup> c10d_group(const ProcessGroup& group) {
  return dynamic_cast<const GlooGroup&>(group).group();
}

}  // namespace senet::distributed

#endif
