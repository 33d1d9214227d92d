// The functions of the export table that are about CUDA alone.
#pragma once

#include "addon/environment.h"

namespace senet::addon {

Napi::Value cuda_device_count(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value cuda_state(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value cuda_device(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value cuda_memory(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value empty_cuda_cache(Environment& environment, const Napi::CallbackInfo& info);
/// A job.
Napi::Value synchronize_cuda(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value allow_tf32(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value set_allow_tf32(Environment& environment, const Napi::CallbackInfo& info);

}  // namespace senet::addon
