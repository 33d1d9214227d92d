#include "addon/distributed.h"

#include "addon/convert.h"
#include "addon/wrap.h"
#include "core/error.h"
#include "core/names.h"
#include "distributed/data_parallel.h"
#include "distributed/process_group.h"

#include <atomic>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace senet::addon {
namespace {

using distributed::DataParallel;
using distributed::ProcessGroup;

// A process is one rank, whichever of its environments says so.
struct Membership {
  std::mutex mutex;
  std::shared_ptr<ProcessGroup> group;
  std::shared_ptr<std::atomic<bool>> connecting;  // set to stop it; null while nobody connects
  const void* owner = nullptr;                    // the environment that joined
};

// Leaked: threads of c10d outlive statics.
Membership& membership() {
  static auto* one = new Membership();
  return *one;
}

struct GroupBox {
  static constexpr napi_type_tag kTag{0x2f0c81d7b3a94e65, 0x97d4e1052c6b38fa};
  std::shared_ptr<ProcessGroup> group;

  void released(Napi::Env) {
    group.reset();
  }
};

struct DataParallelBox {
  static constexpr napi_type_tag kTag{0x5be7402a9c1d4f83, 0xb06a35e8f17d29c4};
  std::shared_ptr<DataParallel> parallel;

  void released(Napi::Env) {
    parallel.reset();
  }
};

std::shared_ptr<ProcessGroup> to_group(const Napi::Value& value) {
  const auto* box = unwrap<GroupBox>(value);
  if (box == nullptr) {
    throw Error("ERR_SENET_ARG_TYPE", "expected a process group, got " + describe_value(value));
  }
  if (box->group == nullptr) {
    throw Error("ERR_SENET_DISTRIBUTED", "the process group was destroyed");
  }
  return box->group;
}

std::shared_ptr<DataParallel> to_parallel(const Napi::Value& value) {
  const auto* box = unwrap<DataParallelBox>(value);
  if (box == nullptr || box->parallel == nullptr) {
    throw Error("ERR_SENET_ARG_TYPE", "expected a data-parallel network, got " + describe_value(value));
  }
  return box->parallel;
}

distributed::Reduction to_reduction(const std::string& name) {
  const auto& names = distributed::kReductionNames;
  const auto* const found = std::find(std::begin(names), std::end(names), name);
  if (found == std::end(names)) {
    throw Error("ERR_SENET_ARG_RANGE", "no such reduction: '" + name + "'");
  }
  return static_cast<distributed::Reduction>(found - std::begin(names));
}

distributed::Carrier to_carrier(const Napi::Value& value) {
  const std::string name = to_string(value, "backend");
  if (name != "gloo" && name != "nccl") {
    throw Error("ERR_SENET_ARG_RANGE", "no such backend: '" + name + "'");
  }
  return name == "nccl" ? distributed::Carrier::kNccl : distributed::Carrier::kGloo;
}

Deliver nothing() {
  return [](Environment& here) { return here.env().Undefined(); };
}

// The end of a job that gives nothing.
distributed::Done ending(const JobFinish& finish) {
  return [finish](std::exception_ptr failure) { finish(nothing(), std::move(failure)); };
}

// Submits work that begins a collective: what it throws ends the job.
Napi::Value submit_collective(Environment& environment, std::function<void(const JobFinish&)> begin) {
  const int64_t job = environment.submit_later([begin = std::move(begin)](const JobFinish& finish) {
    try {
      begin(finish);
    } catch (...) {
      finish({}, std::current_exception());
    }
  });
  return environment.job_number(job);
}

// The same, of work that blocks, on a thread of its own.
Napi::Value submit_blocking(Environment& environment, std::function<Deliver()> work) {
  return submit_collective(environment, [work = std::move(work)](const JobFinish& finish) {
    std::thread([work, finish] {
      Deliver deliver;
      std::exception_ptr failure;
      try {
        deliver = work();
      } catch (...) {
        failure = std::current_exception();
      }
      finish(std::move(deliver), std::move(failure));
    }).detach();
  });
}

void check_strided(const at::Tensor& tensor) {
  if (tensor.layout() != at::kStrided) {
    throw Error("ERR_SENET_DTYPE", "a collective takes dense tensors");
  }
}

// Takes the group out of its membership, if it is this one (or any of null).
std::shared_ptr<ProcessGroup> leave(const ProcessGroup* group) {
  const std::lock_guard lock(membership().mutex);
  if (group != nullptr && membership().group.get() != group) {
    return nullptr;
  }
  graph::set_collective(nullptr);
  return std::exchange(membership().group, nullptr);
}

std::vector<std::string> to_names(const Napi::Value& value) {
  const auto array = value.As<Napi::Array>();
  std::vector<std::string> names;
  for (uint32_t i = 0, length = array.Length(); i < length; ++i) {
    names.push_back(to_string(array.Get(i), "name"));
  }
  return names;
}

}  // namespace

Napi::Value distributed_absence(Environment& environment, const Napi::CallbackInfo& info) {
  return Napi::String::New(environment.env(), distributed::absence(to_carrier(info[0])));
}

Napi::Value connect_group(Environment& environment, const Napi::CallbackInfo& info) {
  distributed::Rendezvous rendezvous;
  rendezvous.carrier = to_carrier(info[0]);
  if (const std::string absence = distributed::absence(rendezvous.carrier); !absence.empty()) {
    throw Error("ERR_SENET_DISTRIBUTED_UNAVAILABLE", absence);
  }
  rendezvous.host = to_string(info[1], "host");
  const int64_t port = to_int64(info[2], "port");
  const int64_t rank = to_int64(info[3], "rank");
  const int64_t size = to_int64(info[4], "worldSize");
  rendezvous.rank_0_hosts_store = to_bool(info[5], "rank0HostsStore");
  const int64_t timeout = to_int64(info[6], "timeout");
  if (port < 0 || port > 65535 || size < 1 || size > 65536 || rank < 0 || rank >= size || timeout < 1) {
    throw Error("ERR_SENET_ARG_RANGE", "port, rank, worldSize or timeout is impossible");
  }
  rendezvous.port = static_cast<uint16_t>(port);
  rendezvous.rank = static_cast<int>(rank);
  rendezvous.size = static_cast<int>(size);
  rendezvous.timeout = std::chrono::milliseconds(timeout);
  const auto stop = std::make_shared<std::atomic<bool>>(false);
  {
    const std::lock_guard lock(membership().mutex);
    if (membership().group != nullptr || membership().connecting != nullptr) {
      throw Error("ERR_SENET_DISTRIBUTED",
                  "this process is in a group already, or joins one; destroy that first");
    }
    membership().connecting = stop;
    membership().owner = &environment;
  }
  const auto forget = [stop] {
    const std::lock_guard lock(membership().mutex);
    if (membership().connecting == stop) {
      membership().connecting = nullptr;
    }
  };
  try {
    return submit_blocking(environment, [rendezvous, stop, forget]() -> Deliver {
      std::shared_ptr<ProcessGroup> group;
      try {
        group = distributed::connect(rendezvous, stop);
      } catch (...) {
        forget();
        throw;
      }
      const std::lock_guard lock(membership().mutex);
      membership().connecting = nullptr;
      if (*stop) {
        throw Error("ERR_SENET_ABORTED", "connecting was aborted");
      }
      membership().group = group;
      graph::set_collective(group);
      return [group](Environment& here) -> Napi::Value {
        auto box = std::make_unique<GroupBox>();
        box->group = group;
        return wrap(here.env(), std::move(box));
      };
    });
  } catch (...) {
    forget();
    throw;
  }
}

Napi::Value stop_connecting(Environment& environment, const Napi::CallbackInfo&) {
  const std::lock_guard lock(membership().mutex);
  if (membership().connecting != nullptr) {
    *membership().connecting = true;
  }
  return environment.env().Undefined();
}

// Collectives take aliases: a module may take other memory for its tensor meanwhile (`to`).
Napi::Value group_all_reduce(Environment& environment, const Napi::CallbackInfo& info) {
  const at::Tensor tensor = to_tensor(info[1], "tensor").detach();
  check_strided(tensor);
  return submit_collective(
      environment, [group = to_group(info[0]), tensor, reduction = to_reduction(to_string(info[2], "op"))](
                       const JobFinish& finish) { group->all_reduce(tensor, reduction, ending(finish)); });
}

Napi::Value group_broadcast(Environment& environment, const Napi::CallbackInfo& info) {
  std::vector<at::Tensor> tensors = to_tensors(info[1], "tensors");
  const auto group = to_group(info[0]);
  const int64_t root = to_int64(info[2], "src");
  if (root < 0 || root >= group->size()) {
    throw Error("ERR_SENET_ARG_RANGE", "src: expected a rank from 0 to " + std::to_string(group->size() - 1) +
                                           ", got " + std::to_string(root));
  }
  for (at::Tensor& tensor : tensors) {
    tensor = tensor.detach();
    check_strided(tensor);
    if (tensor.scalar_type() != tensors.front().scalar_type()) {
      throw Error("ERR_SENET_DTYPE", "tensors that are broadcast together must have one dtype");
    }
  }
  return submit_collective(environment, [group, tensors = std::move(tensors), root](const JobFinish& finish) {
    group->broadcast(tensors, static_cast<int>(root), ending(finish));
  });
}

Napi::Value group_all_gather(Environment& environment, const Napi::CallbackInfo& info) {
  const at::Tensor tensor = to_tensor(info[1], "tensor").detach();
  check_strided(tensor);
  return submit_collective(environment, [group = to_group(info[0]), tensor](const JobFinish& finish) {
    group->all_gather(tensor, [finish](std::vector<at::Tensor> all, std::exception_ptr failure) {
      finish([all = std::move(all)](Environment& here) -> Napi::Value { return wrap_tensors(here, all); },
             std::move(failure));
    });
  });
}

Napi::Value group_barrier(Environment& environment, const Napi::CallbackInfo& info) {
  return submit_collective(
      environment, [group = to_group(info[0])](const JobFinish& finish) { group->barrier(ending(finish)); });
}

Napi::Value group_fail(Environment& environment, const Napi::CallbackInfo& info) {
  return submit_blocking(environment,
                         [group = to_group(info[0]), reason = to_string(info[1], "reason")]() -> Deliver {
                           group->fail(reason);
                           return nothing();
                         });
}

Napi::Value destroy_group(Environment& environment, const Napi::CallbackInfo& info) {
  auto group = to_group(info[0]);
  unwrap<GroupBox>(info[0])->group.reset();
  leave(group.get());
  group->close("ERR_SENET_DISTRIBUTED", "the process group was destroyed");
  // The last reference waits for c10d's threads.
  const auto last = std::make_shared<std::shared_ptr<ProcessGroup>>(std::move(group));
  return submit_blocking(environment, [last]() -> Deliver {
    last->reset();
    return nothing();
  });
}

void close_group(const void* owner, const std::string& reason) {
  std::shared_ptr<ProcessGroup> group;
  {
    const std::lock_guard lock(membership().mutex);
    if (owner != nullptr && membership().owner != owner) {
      return;
    }
    if (membership().connecting != nullptr) {
      *membership().connecting = true;
    }
    group = std::exchange(membership().group, nullptr);
  }
  if (group == nullptr) {
    return;
  }
  graph::set_collective(nullptr);
  if (!reason.empty()) {
    group->fail(reason);
  }
  group->close("ERR_SENET_CLOSING", "the process or worker is ending");
  // Never freed: a thread of c10d may wait for one of another process.
  new std::shared_ptr<ProcessGroup>(std::move(group));
}

bool discard_group(const Napi::Value& value) {
  auto* box = unwrap<GroupBox>(value);
  if (box != nullptr && box->group != nullptr) {
    if (const auto group = leave(box->group.get())) {
      group->close("ERR_SENET_DISTRIBUTED", "the process group was destroyed");
    }
  }
  return box != nullptr;
}

Napi::Value create_data_parallel(Environment& environment, const Napi::CallbackInfo& info) {
  distributed::DataParallelOptions options;
  options.names = to_names(info[1]);
  options.parameters = to_tensors(info[2], "parameters");
  options.state = to_tensors(info[3], "state");
  options.bucket_bytes = to_int64(info[4], "bucketBytes");
  options.find_unused_parameters = to_bool(info[5], "findUnusedParameters");
  if (options.parameters.empty() || options.names.size() != options.parameters.size() ||
      options.bucket_bytes < 0) {
    throw Error("ERR_SENET_ARG_RANGE", "expected parameters, a name for each, and a size of buckets from 0");
  }
  const int64_t job = environment.submit(
      [group = to_group(info[0]), options = std::move(options)]() -> Deliver {
        return [parallel = make_data_parallel(group, options)](Environment& here) -> Napi::Value {
          auto box = std::make_unique<DataParallelBox>();
          box->parallel = parallel;
          return wrap(here.env(), std::move(box));
        };
      },
      "ERR_SENET_DISTRIBUTED");
  return environment.job_number(job);
}

Napi::Value data_parallel_begin(Environment& environment, const Napi::CallbackInfo& info) {
  const int64_t job = environment.submit(
      [parallel = to_parallel(info[0]), averages = to_bool(info[1], "averages"),
       buffers = to_tensors(info[2], "buffers")]() -> Deliver {
        if (averages) {
          parallel->begin_forward();
        }
        parallel->broadcast(buffers);
        return nothing();
      },
      "ERR_SENET_DISTRIBUTED");
  return environment.job_number(job);
}

Napi::Value data_parallel_end(Environment& environment, const Napi::CallbackInfo& info) {
  const int64_t job = environment.submit(
      [parallel = to_parallel(info[0]), outputs = to_tensors(info[1], "outputs")]() -> Deliver {
        parallel->end_forward(outputs);
        return nothing();
      },
      "ERR_SENET_DISTRIBUTED");
  return environment.job_number(job);
}

Napi::Value data_parallel_detach(Environment& environment, const Napi::CallbackInfo& info) {
  const int64_t job = environment.submit([parallel = to_parallel(info[0])]() -> Deliver {
    parallel->detach();
    return nothing();
  });
  return environment.job_number(job);
}

}  // namespace senet::addon
