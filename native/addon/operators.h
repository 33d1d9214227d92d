// Every ATen operator through one door: LibTorch's dispatcher, with arguments converted by the operator's own
// schema.
#pragma once

#include "addon/environment.h"

#include <string>
#include <vector>

namespace senet::addon {

Napi::Value call_operator(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value call_operator_async(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value list_operators(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value operator_schemas(Environment& environment, const Napi::CallbackInfo& info);

/// The names of the parameters of an operator's first overload. Throws ERR_SENET_UNKNOWN_OPERATOR.
std::vector<std::string> parameter_names(const std::string& name);

}  // namespace senet::addon
