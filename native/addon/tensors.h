// The tensor functions of the export table.
#pragma once

#include "addon/environment.h"

namespace senet::addon {

Napi::Value from_typed_array(Environment& environment, const Napi::CallbackInfo& info);
/// A job: a Uint8Array, which nobody may write to or detach before it has ended, to a uint8 tensor.
Napi::Value copy_bytes(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value to_typed_array(Environment& environment, const Napi::CallbackInfo& info);
/// The same as a job, which occupies no thread while a device computes what it reads.
Napi::Value to_typed_array_later(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value tensor_info(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value known_range(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value requires_grad(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value set_requires_grad(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value grad(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value set_grad(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value clear_grads(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value dispose_tensor_handle(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value backward(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value gradients(Environment& environment, const Napi::CallbackInfo& info);

}  // namespace senet::addon
