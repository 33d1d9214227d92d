// Every ATen operator through one door: LibTorch's dispatcher, with arguments converted by the operator's own
// schema.
#pragma once

#include "addon/environment.h"

#include <ATen/core/dispatch/Dispatcher.h>

#include <string>

namespace senet::addon {

Napi::Value call_operator(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value call_operator_async(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value list_operators(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value operator_schemas(Environment& environment, const Napi::CallbackInfo& info);

/// An operator with its arguments, in the order of its schema.
struct OperatorCall {
  c10::OperatorHandle op;
  torch::jit::Stack stack;
};

/// A call in a forward that is traced: where an argument is a traced value stands an undefined tensor. Throws
/// what a call throws whose arguments no overload takes.
OperatorCall match_traced(const std::string& name, const Napi::Value& positional,
                          const Napi::Value& keywords);

}  // namespace senet::addon
