// Optimiser steps and what goes with them, as jobs that run alone: those before them have ended, those after
// them wait.
#pragma once

#include "addon/environment.h"

namespace senet::addon {

Napi::Value create_optimizer(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value optimizer_step(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value optimizer_state(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value set_optimizer_state(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value clip_gradients(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value unscale_gradients(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value average_into(Environment& environment, const Napi::CallbackInfo& info);

}  // namespace senet::addon
