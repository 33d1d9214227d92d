// The names that processes find each other by in the store are those of Python's init_process_group
// (torch/distributed/distributed_c10d.py), so that processes of both take part in one group.
#ifdef SENET_HAS_C10D

#include "distributed/c10d_group.h"

#include "core/error.h"
#include "core/names.h"
#include "distributed/explained_backend.h"
#include "distributed/line.h"
#include "distributed/nccl_backend.h"
#include "distributed/watch.h"
#include "runtime/cuda_library.h"

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

// gloo, whose connections can be ended.
class Gloo : public c10d::ProcessGroupGloo {
 public:
  using ProcessGroupGloo::ProcessGroupGloo;

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
};

// What carries the tensors: gloo those of the processor, and NCCL those of GPUs where it was asked for.
struct Carriers {
  intrusive_ptr<Gloo> gloo;
  intrusive_ptr<NcclBackend> nccl;  // may be null
};

std::vector<std::vector<at::Tensor>> places_for_all(const at::Tensor& tensor, int size) {
  std::vector<std::vector<at::Tensor>> places(1);
  for (int rank = 0; rank < size; ++rank) {
    places[0].push_back(at::empty_like(tensor));
  }
  return places;
}

// What gloo (GENERATE_ALL_TYPES of ProcessGroupGloo) and NCCL reduce, but for bool, whose bytes gloo would
// add.
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

class C10dGroup : public ProcessGroup {
 public:
  C10dGroup(Carriers carriers, std::shared_ptr<Watch> watch, std::shared_ptr<Line> line,
            const intrusive_ptr<c10d::Store>& named, intrusive_ptr<c10d::Store> store)
      : carriers_(std::move(carriers)),
        watch_(std::move(watch)),
        line_(std::move(line)),
        store_(std::move(store)),
        group_(c10::make_intrusive<c10d::ProcessGroup>(named, rank(), size())),
        host_(c10::make_intrusive<ExplainedBackend>(carriers_.gloo, line_)),
        device_(host_) {
    using Type = c10d::ProcessGroup::BackendType;
    const bool has_nccl = carriers_.nccl != nullptr;
    if (has_nccl) {
      device_ = c10::make_intrusive<ExplainedBackend>(carriers_.nccl, line_);
    }
    group_->setDefaultBackend(Type::GLOO);
    // gloo serves both, as in Python, unless NCCL was asked for.
    group_->setBackend(c10::DeviceType::CUDA, has_nccl ? Type::NCCL : Type::GLOO, device_);
    group_->setBackend(c10::DeviceType::CPU, Type::GLOO, host_);
  }

  ~C10dGroup() override {
    close("ERR_SENET_DISTRIBUTED", "the process group was destroyed");
    if (carriers_.nccl != nullptr) {
      carriers_.nccl->join();  // what it ends asks the watch why
    }
  }

  int rank() const override {
    return carriers_.gloo->getRank();
  }
  int size() const override {
    return carriers_.gloo->getSize();
  }

  void all_reduce(const at::Tensor& tensor, Reduction reduction, Done done) override {
    check_reducible(tensor);
    const at::NoGradGuard no_grad;
    const at::Tensor given = tensor.detach();
    std::vector<at::Tensor> values{given.contiguous()};
    c10d::AllreduceOptions options;
    options.reduceOp = operation_of(reduction);
    const auto work = line_->announce({CollectiveKind::kAllReduce, given.scalar_type(), given.numel(),
                                       static_cast<int64_t>(reduction), kind_of(given)},
                                      [carrier = carrier_of(given), values, options]() mutable {
                                        return carrier->allreduce(values, options);
                                      });
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
    const auto work = line_->announce(
        {CollectiveKind::kBroadcast, values[0].scalar_type(), values[0].numel(), root, kind_of(values[0])},
        [carrier = carrier_of(values[0]), values, options]() mutable {
          return carrier->broadcast(values, options);
        });
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
    auto outputs = places_for_all(inputs[0], size());
    const auto work = line_->announce({CollectiveKind::kAllGather, inputs[0].scalar_type(), inputs[0].numel(),
                                       /*detail=*/0, kind_of(inputs[0])},
                                      [carrier = carrier_of(inputs[0]), outputs, inputs]() mutable {
                                        return carrier->allgather(outputs, inputs);
                                      });
    when_done(
        work, [] {}, [outputs, done](std::exception_ptr failure) { done(outputs[0], failure); });
  }

  void barrier(Done done) override {
    const auto work =
        line_->announce({CollectiveKind::kBarrier}, [gloo = carriers_.gloo] { return gloo->barrier(); });
    when_done(
        work, [] {}, done);
  }

  std::vector<at::Tensor> gather(const at::Tensor& tensor) override {
    std::vector<at::Tensor> inputs{tensor.contiguous()};
    auto outputs = places_for_all(inputs[0], size());
    backend_of(tensor)->allgather(outputs, inputs, {})->wait();
    return outputs[0];
  }

  at::Tensor sum(const at::Tensor& tensor) override {
    std::vector<at::Tensor> values{tensor.clone()};
    backend_of(tensor)->allreduce(values, {})->wait();
    return values[0];
  }

  void fail(const std::string& reason) override {
    watch_->fail(reason);
  }

  void close(const char* code, const std::string& why) override {
    watch_->close(code, why);
    carriers_.gloo->close_connections();
    if (carriers_.nccl != nullptr) {
      // While a process ends, its communicator is the system's to end.
      carriers_.nccl->close(why, std::string_view(code) == "ERR_SENET_CLOSING"
                                     ? NcclBackend::Ending::kLeave
                                     : NcclBackend::Ending::kOrderly);
    }
  }

  const intrusive_ptr<c10d::ProcessGroup>& group() const {
    return group_;
  }

 private:
  const intrusive_ptr<ExplainedBackend>& backend_of(const at::Tensor& tensor) const {
    return tensor.is_cuda() ? device_ : host_;
  }
  Carrier kind_of(const at::Tensor& tensor) const {
    return tensor.is_cuda() && carriers_.nccl != nullptr ? Carrier::kNccl : Carrier::kGloo;
  }
  const intrusive_ptr<c10d::Backend>& carrier_of(const at::Tensor& tensor) const {
    return backend_of(tensor)->carrier();
  }

  const Carriers carriers_;
  const std::shared_ptr<Watch> watch_;
  const std::shared_ptr<Line> line_;
  const intrusive_ptr<c10d::Store> store_;
  const intrusive_ptr<c10d::ProcessGroup> group_;
  const intrusive_ptr<ExplainedBackend> host_;
  intrusive_ptr<ExplainedBackend> device_;
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

const runtime::cuda::Driver& cuda_driver() {
  return runtime::cuda::driver_of(runtime::libtorch_folder(), runtime::cuda_library_handle());
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

std::string absence(Carrier carrier) {
  if (carrier == Carrier::kGloo) {
    return "";
  }
  const runtime::CudaState state = runtime::cuda_state();
  if (!state.reason.empty()) {
    return "it needs CUDA: " + state.reason;
  }
  const std::string& runtime = cuda_driver().missing_of_runtime;
  const std::string& missing = runtime.empty() ? nccl_of_libtorch().missing : runtime;
  return missing.empty() ? "" : "not there: " + missing;
}

std::shared_ptr<ProcessGroup> connect(const Rendezvous& rendezvous, const Stop& stopped) {
  // c10d's own lines about connections that end, with their stacks: the errors here say it.
  if (std::getenv("TORCH_CPP_LOG_LEVEL") == nullptr) {
    FLAGS_caffe2_log_level = std::max(FLAGS_caffe2_log_level, static_cast<int>(c10::GLOG_ERROR));
  }
  const auto until = Clock::now() + rendezvous.timeout;
  const bool hosts = rendezvous.rank_0_hosts_store && rendezvous.rank == 0;
  const auto store = reach_store(rendezvous, rendezvous.port, hosts, /*joins=*/true, stopped, until);
  const std::string own = rendezvous.carrier == Carrier::kNccl ? "nccl" : "gloo";
  static_cast<c10d::Store&>(*store).set("senet/joined/" + std::to_string(rendezvous.rank), own);
  auto patient = c10::make_intrusive<PatientStore>(store, stopped, until);
  auto named = c10::make_intrusive<c10d::PrefixStore>("0/", patient);
  auto options = c10d::ProcessGroupGloo::Options::create_default(rendezvous.timeout);
  Carriers carriers;
  try {
    carriers.gloo = c10::make_intrusive<Gloo>(c10::make_intrusive<c10d::PrefixStore>("cpu/", named),
                                              rendezvous.rank, rendezvous.size, options);
    carriers.gloo->setSequenceNumberForGroup();
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
  for (int rank = 0; rank < rendezvous.size; ++rank) {
    const std::string key = "senet/joined/" + std::to_string(rank);
    if (const std::string given = store->check({key}) ? store->get_to_str(key) : own; given != own) {
      throw Error("ERR_SENET_DISTRIBUTED", "rank " + std::to_string(rank) + " joins with the backend '" +
                                               given + "', and rank " + std::to_string(rendezvous.rank) +
                                               " with '" + own + "': all take the same");
    }
  }
  // Who carries needs the watch, and the watch whom to close.
  const auto patrol = std::make_shared<std::weak_ptr<Watch>>();
  if (rendezvous.carrier == Carrier::kNccl) {
    carriers.nccl = c10::make_intrusive<NcclBackend>(NcclBackend::Setup{
        nccl_of_libtorch(), cuda_driver(),
        // Not the patient store, whose time is over when all have connected.
        c10::make_intrusive<c10d::PrefixStore>(
            "cuda/", c10::make_intrusive<c10d::PrefixStore>(
                         "0/", c10::make_intrusive<c10d::PrefixStore>("default_pg", store))),
        rendezvous.rank, rendezvous.size, rendezvous.timeout, [patrol](bool looks) {
          if (const auto watch = patrol->lock()) {
            watch->look_after(looks);
          }
        }});
  }
  // A connection of the watch's own: one request at a time goes over each.
  auto watch = std::make_shared<Watch>(
      reach_store(rendezvous, store->getPort(), /*hosts=*/false, /*joins=*/false, stopped, until),
      rendezvous.rank, rendezvous.size, hosts, rendezvous.rank_0_hosts_store,
      // Not their owner, who may be gone when the watch goes.
      [gloo = c10::weak_intrusive_ptr<Gloo>(carriers.gloo),
       nccl =
           carriers.nccl == nullptr ? std::nullopt : std::optional(c10::weak_intrusive_ptr(carriers.nccl))] {
        if (const auto alive = gloo.lock()) {
          alive->close_connections();
        }
        if (const auto alive = nccl ? nccl->lock() : nullptr) {
          alive->close("a rank has ended", NcclBackend::Ending::kAbort);
        }
      });
  *patrol = watch;
  Line::Exchange exchange;
  if (rendezvous.size > 1 && absent_ranks(*store, rendezvous.size).empty()) {
    exchange = [gloo = carriers.gloo](const at::Tensor& said) {
      std::vector<at::Tensor> own{said};
      auto all = places_for_all(said, gloo->getSize());
      gloo->allgather(all, own, {})->wait();
      return all[0];
    };
  }
  auto line = std::make_shared<Line>(watch, std::move(exchange));
  return std::make_shared<C10dGroup>(std::move(carriers), std::move(watch), std::move(line), named, store);
}

intrusive_ptr<c10d::ProcessGroup> c10d_group(const ProcessGroup& group) {
  return dynamic_cast<const C10dGroup&>(group).group();
}

}  // namespace senet::distributed

#endif
