// Every ATen operator through one door: LibTorch's dispatcher, with arguments converted by the operator's own
// schema.
#pragma once

#include "addon/environment.h"

namespace senet::addon {

Napi::Value call_operator(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value call_operator_async(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value list_operators(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value operator_schemas(Environment& environment, const Napi::CallbackInfo& info);

}  // namespace senet::addon
