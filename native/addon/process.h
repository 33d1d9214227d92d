// The process-wide functions of the export table: threads, seeds, memory, the end.
#pragma once

#include "addon/environment.h"

namespace senet::addon {

Napi::Value initialize(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value configure(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value configuration(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value manual_seed(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value generator_state(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value set_generator_state(Environment& environment, const Napi::CallbackInfo& info);
/// The integers below a count in random order: torch.randperm of a generator of its own with this seed.
Napi::Value permutation(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value memory(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value libtorch_config(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value drain(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value cancel(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value wait(Environment& environment, const Napi::CallbackInfo& info);
/// Frees the tensor or compiled model that a job made and nobody takes.
Napi::Value after_queued(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value discard(Environment& environment, const Napi::CallbackInfo& info);

}  // namespace senet::addon
