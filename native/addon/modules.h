// The module functions of the export table, and who may change a module while jobs use it.
#pragma once

#include "addon/environment.h"

#include <memory>

namespace senet::nn {
class Module;
}

namespace senet::addon {

/// A module that a job works on: while `use` is alive its tree counts as busy, and is not freed.
struct ModuleUse {
  nn::Module* module;
  std::shared_ptr<const void> use;
};

/// Throws ERR_SENET_ARG_TYPE or ERR_SENET_DISPOSED.
ModuleUse use_module(const Napi::Value& value);

Napi::Value create_module(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value module_node(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value module_forward(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value module_record(Environment& environment, const Napi::CallbackInfo& info);
/// Has every BatchNorm2d of a module normalise over the whole group in training.
Napi::Value sync_batch_norms(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value replace_module(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value set_training(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value is_training(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value module_to(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value module_load(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value assert_idle(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value dispose_module(Environment& environment, const Napi::CallbackInfo& info);

}  // namespace senet::addon
