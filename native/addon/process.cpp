#include "addon/process.h"

#include "addon/calibration.h"
#include "addon/compiled.h"
#include "addon/convert.h"
#include "addon/distributed.h"
#include "core/error.h"
#include "core/names.h"
#include "runtime/allocator.h"
#include "runtime/cuda_device.h"
#include "runtime/cuda_library.h"
#include "runtime/machine.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/Version.h>
#include <ATen/ops/randperm.h>
#include <unistd.h>

#include <cstdio>
#include <mutex>

namespace senet::addon {
namespace {

// How long the end of the process waits for a job that runs. A forward takes tens of milliseconds; a training
// step of a large network seconds.
constexpr auto kDrainLimit = std::chrono::seconds(10);

}  // namespace

Napi::Value initialize(Environment& environment, const Napi::CallbackInfo& info) {
  environment.set_callbacks(info[0].As<Napi::Function>(), info[1].As<Napi::Function>());
  return environment.env().Undefined();
}

Napi::Value configure(Environment& environment, const Napi::CallbackInfo& info) {
  const int64_t workers = to_int64(info[0], "workers");
  const int64_t threads = to_int64(info[1], "threadsPerWorker");
  // OpenMP ends the process when the system has no more threads for it.
  constexpr int64_t kMostThreads = 1024;
  if (workers < 1 || workers > 256 || threads < 1 || threads > 256 || workers * threads > kMostThreads) {
    throw Error("ERR_SENET_ARG_RANGE", "workers and threadsPerWorker: expected 1 to 256 and no more than " +
                                           std::to_string(kMostThreads) + " threads together, got " +
                                           std::to_string(workers) + " and " + std::to_string(threads));
  }
  runtime::Executor::instance().configure({static_cast<int>(workers), static_cast<int>(threads)});
  return environment.env().Undefined();
}

Napi::Value configuration(Environment& environment, const Napi::CallbackInfo&) {
  const auto settings = runtime::Executor::instance().settings();
  auto facts = Napi::Object::New(environment.env());
  facts.Set("workers", settings.workers);
  facts.Set("threadsPerWorker", settings.threads_per_worker);
  facts.Set("availableThreads", runtime::available_processors());
  return facts;
}

Napi::Value manual_seed(Environment& environment, const Napi::CallbackInfo& info) {
  // Negative seeds wrap to uint64, as torch.manual_seed's do.
  bool lossless = false;
  if (!info[0].IsBigInt()) {
    throw Error("ERR_SENET_ARG_TYPE", "seed: expected a bigint, got " + describe_value(info[0]));
  }
  const uint64_t seed = info[0].As<Napi::BigInt>().Uint64Value(&lossless);
  at::manual_seed(seed);
  return environment.env().Undefined();
}

Napi::Value generator_state(Environment& environment, const Napi::CallbackInfo&) {
  at::Generator generator = at::detail::getDefaultCPUGenerator();
  const std::lock_guard lock(generator.mutex());
  return wrap_tensor(environment, generator.get_state());
}

Napi::Value set_generator_state(Environment& environment, const Napi::CallbackInfo& info) {
  const at::Tensor state = to_tensor(info[0], "state").detach().contiguous();
  at::Generator generator = at::detail::getDefaultCPUGenerator();
  const std::lock_guard lock(generator.mutex());
  const int64_t bytes = generator.get_state().numel();
  if (!state.is_cpu() || state.scalar_type() != at::kByte || state.numel() != bytes) {
    throw Error("ERR_SENET_ARG_RANGE", "expected a generator's state, " + std::to_string(bytes) +
                                           " values of uint8 on the CPU, got " + shape_text(state.sizes()) +
                                           " of " + dtype_name(state.scalar_type()) + " on " +
                                           device_name(state.device()));
  }
  try {
    generator.set_state(state);
  } catch (const c10::Error&) {
    throw Error("ERR_SENET_ARG_RANGE", "expected a generator's state, got bytes that are none");
  }
  return environment.env().Undefined();
}

Napi::Value permutation(Environment& environment, const Napi::CallbackInfo& info) {
  const int64_t count = to_int64(info[0], "count");
  bool lossless = false;
  if (count < 0 || !info[1].IsBigInt()) {
    throw Error("ERR_SENET_ARG_TYPE", "expected a count and a seed that is a bigint");
  }
  // As manual_seed.
  at::Generator generator = at::detail::createCPUGenerator(info[1].As<Napi::BigInt>().Uint64Value(&lossless));
  return wrap_tensor(environment, at::randperm(count, generator, at::TensorOptions(at::kLong)));
}

Napi::Value memory(Environment& environment, const Napi::CallbackInfo&) {
  const auto counts = runtime::allocator_counts();
  const auto jobs = runtime::Executor::instance().counts();
  const auto images = runtime::Executor::decoders().counts();
  auto facts = Napi::Object::New(environment.env());
  facts.Set("tensors", static_cast<double>(tensor_count()));
  facts.Set("bytes", static_cast<double>(counts.live_bytes));
  facts.Set("cachedBytes", static_cast<double>(counts.cached_bytes));
  facts.Set("cacheLimit", static_cast<double>(counts.limit));
  facts.Set("deviceBytes", runtime::cuda_allocated_bytes());
  facts.Set("mappings", static_cast<double>(counts.mappings));
  facts.Set("queued", static_cast<double>(jobs.queued + images.queued));
  facts.Set("running", static_cast<double>(jobs.running + images.running));
  return facts;
}

Napi::Value libtorch_config(Environment& environment, const Napi::CallbackInfo&) {
  auto facts = Napi::Object::New(environment.env());
  facts.Set("cpuCapability", at::get_cpu_capability());
  facts.Set("folder", runtime::libtorch_folder());
  facts.Set("build", runtime::libtorch_build());
  return facts;
}

Napi::Value drain(Environment& environment, const Napi::CallbackInfo& info) {
  const int64_t exit_code = to_int64(info[0], "exitCode");
  // A collective that waits for other processes would wait on.
  close_group(nullptr, exit_code == 0 ? "" : "its process ended with exit code " + std::to_string(exit_code));
  const bool is_idle = runtime::Executor::decoders().drain(kDrainLimit);
  if (!runtime::Executor::instance().drain(kDrainLimit) || !is_idle) {
    // A job still uses LibTorch, whose statics exit() would destroy under it.
    std::fflush(nullptr);
    _exit(static_cast<int>(exit_code));
  }
  return environment.env().Undefined();
}

Napi::Value cancel(Environment& environment, const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(environment.env(), environment.cancel(to_int64(info[0], "job")));
}

Napi::Value wait(Environment& environment, const Napi::CallbackInfo& info) {
  return environment.wait(to_int64(info[0], "job"));
}

Napi::Value after_queued(Environment& environment, const Napi::CallbackInfo&) {
  const int64_t job = environment.submit(
      [] { return [](Environment& here) -> Napi::Value { return here.env().Undefined(); }; }, nullptr,
      runtime::Company::kAlone);
  return environment.job_number(job);
}

Napi::Value discard(Environment& environment, const Napi::CallbackInfo& info) {
  if (!discard_compiled(info[0]) && !discard_calibration(info[0]) && !discard_group(info[0])) {
    dispose_tensor(environment, info[0]);
  }
  return environment.env().Undefined();
}

}  // namespace senet::addon
