// The module functions of the export table, and who may change a module while jobs use it.
#pragma once

#include "addon/environment.h"

namespace senet::addon {

Napi::Value create_module(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value module_tree(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value module_forward(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value set_training(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value is_training(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value module_to(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value module_load(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value assert_idle(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value dispose_module(Environment& environment, const Napi::CallbackInfo& info);

}  // namespace senet::addon
