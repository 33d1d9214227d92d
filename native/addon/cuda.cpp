#include "addon/cuda.h"

#include "addon/convert.h"
#include "runtime/cuda_device.h"
#include "runtime/cuda_driver.h"
#include "runtime/cuda_library.h"

#include <ATen/Context.h>

namespace senet::addon {
namespace {

int to_index(const Napi::Value& value) {
  return cuda_device_at(to_int64(value, "device")).index();
}

}  // namespace

Napi::Value cuda_device_count(Environment& environment, const Napi::CallbackInfo&) {
  return Napi::Number::New(environment.env(), runtime::cuda_device_count());
}

Napi::Value cuda_state(Environment& environment, const Napi::CallbackInfo&) {
  const runtime::CudaState state = runtime::cuda_state();
  auto facts = Napi::Object::New(environment.env());
  facts.Set("library", state.library);
  facts.Set("isSeen", state.is_seen);
  facts.Set("devices", state.devices);
  facts.Set("reason", state.reason);
  facts.Set("driver", state.driver);
  facts.Set("runtime", state.runtime);
  // Only a LibTorch with CUDA has brought these.
  if (!state.library.empty()) {
    const auto& driver = runtime::cuda::driver_of(runtime::libtorch_folder(), runtime::cuda_library_handle());
    facts.Set("nvrtc", driver.nvrtc_version);
    facts.Set("cudnn", static_cast<double>(driver.cudnn_version));
    facts.Set("missing", driver.missing);
  } else {
    facts.Set("nvrtc", 0);
    facts.Set("cudnn", 0);
    facts.Set("missing", "");
  }
  return facts;
}

Napi::Value cuda_device(Environment& environment, const Napi::CallbackInfo& info) {
  const runtime::CudaDevice device = runtime::cuda_device(to_index(info[0]));
  auto facts = Napi::Object::New(environment.env());
  facts.Set("name", device.name);
  facts.Set("capability",
            std::to_string(device.capability_major) + '.' + std::to_string(device.capability_minor));
  facts.Set("totalBytes", static_cast<double>(device.total_bytes));
  return facts;
}

Napi::Value cuda_memory(Environment& environment, const Napi::CallbackInfo& info) {
  const runtime::CudaMemory memory = runtime::cuda_memory(to_index(info[0]));
  auto facts = Napi::Object::New(environment.env());
  facts.Set("allocated", static_cast<double>(memory.allocated));
  facts.Set("reserved", static_cast<double>(memory.reserved));
  facts.Set("free", static_cast<double>(memory.free));
  facts.Set("total", static_cast<double>(memory.total));
  return facts;
}

Napi::Value empty_cuda_cache(Environment& environment, const Napi::CallbackInfo&) {
  runtime::empty_cuda_cache();
  return environment.env().Undefined();
}

Napi::Value synchronize_cuda(Environment& environment, const Napi::CallbackInfo& info) {
  const int index = to_index(info[0]);
  // Alone, so that the jobs before it have given the device their work.
  const int64_t job = environment.submit(
      [index]() -> Deliver {
        runtime::synchronize_cuda(index);
        return [](Environment& here) -> Napi::Value { return here.env().Undefined(); };
      },
      nullptr, runtime::Company::kAlone);
  return environment.job_number(job);
}

Napi::Value allow_tf32(Environment& environment, const Napi::CallbackInfo&) {
  return Napi::Boolean::New(environment.env(), at::globalContext().allowTF32CuDNN());
}

Napi::Value set_allow_tf32(Environment& environment, const Napi::CallbackInfo& info) {
  at::globalContext().setAllowTF32CuDNN(to_bool(info[0], "allowTF32"));
  return environment.env().Undefined();
}

}  // namespace senet::addon
