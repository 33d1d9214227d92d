// The file functions of the export table.
#pragma once

#include "addon/environment.h"

namespace senet::addon {

Napi::Value read_tensors(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value map_tensors(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value modified_time(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value read_bytes(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value tensors_from_bytes(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value storage_info(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value storage_bytes(Environment& environment, const Napi::CallbackInfo& info);

}  // namespace senet::addon
