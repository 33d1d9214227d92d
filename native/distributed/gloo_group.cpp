// The names that processes find each other by in the store are those of Python's init_process_group
// (torch/distributed/distributed_c10d.py), so that processes of both take part in one group.
#ifdef SENET_HAS_C10D

#include "distributed/gloo_group.h"

#include "core/error.h"
#include "core/names.h"
#include "distributed/explained_gloo.h"
#include "distributed/watch.h"

#include <ATen/core/ivalue.h>
#include <ATen/ops/empty_like.h>
#include <c10/util/Logging.h>
#include <torch/csrc/utils/tensor_flatten.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <thread>
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
        {CollectiveKind::kAllReduce, given.scalar_type(), given.numel(), static_cast<int64_t>(reduction)},
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
        {CollectiveKind::kBroadcast, values[0].scalar_type(), values[0].numel(), root},
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
        {CollectiveKind::kAllGather, inputs[0].scalar_type(), inputs[0].numel()},
        [gloo = gloo_.get(), outputs, inputs] { return gloo->begin_allgather(outputs, inputs); });
    when_done(
        work, [] {}, [outputs, done](std::exception_ptr failure) { done(outputs[0], failure); });
  }

  void barrier(Done done) override {
    const auto work =
        gloo_->announced({CollectiveKind::kBarrier}, [gloo = gloo_.get()] { return gloo->begin_barrier(); });
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
    } catch (const std::exception&) {
      const std::string where = rendezvous.host + ":" + std::to_string(port);
      if (*stopped) {
        throw Error("ERR_SENET_ABORTED", "connecting was aborted");
      }
      if (hosts) {
        throw Error("ERR_SENET_DISTRIBUTED", "rank 0 cannot open the group's store at " + where + ": " +
                                                 first_line(std::current_exception()));
      }
      if (Clock::now() > until) {
        throw Error("ERR_SENET_DISTRIBUTED",
                    "rank " + std::to_string(rendezvous.rank) + ": nobody answers at " + where +
                        ", where the group's store should be: " + first_line(std::current_exception()));
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
  } catch (const std::exception&) {
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
            " s" + (absent.empty() ? "" : " (not there: rank " + absent + ")") + ": " +
            first_line(std::current_exception()));
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
