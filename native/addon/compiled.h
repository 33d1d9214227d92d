// The compiled-model functions of the export table.
#pragma once

#include "addon/environment.h"

#include <functional>
#include <memory>

namespace senet::inference {
class CompiledModel;
}

namespace senet::addon {

Napi::Value compile_module(Environment& environment, const Napi::CallbackInfo& info);
/// dtype, device -> what compiled models of it run on here (explain().backend), and why on nothing faster.
Napi::Value compiled_backend(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value compiled_info(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value compiled_forward(Environment& environment, const Napi::CallbackInfo& info);
/// Images on the CPU to results there; while a device computes, no thread waits for it.
Napi::Value compiled_answer(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value compiled_explain(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value compiled_profile(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value dispose_compiled(Environment& environment, const Napi::CallbackInfo& info);

/// Disposes the compiled model if `value` is one, and says so.
bool discard_compiled(const Napi::Value& value);

/// The compiled model of a handle; throws ERR_SENET_ARG_TYPE or ERR_SENET_DISPOSED.
const std::shared_ptr<const inference::CompiledModel>& to_compiled(const Napi::Value& value);

/// A job that compiles; its value is the handle of the compiled model.
Napi::Value submit_compile(Environment& environment,
                           std::function<std::shared_ptr<const inference::CompiledModel>()> compile);

}  // namespace senet::addon
