// The functions of the export table that hand a network on: what it computes, as data, to be written in a
// format of others.
#pragma once

#include "addon/environment.h"

namespace senet::addon {

/// module, dtype of the weights, keepBatchNorm -> a job that gives the description (binding.ts,
/// PortableModel). With the dtype int8, names, scales, zeros, keep and keepFirst of a calibration follow.
Napi::Value describe_module(Environment& environment, const Napi::CallbackInfo& info);
/// The same of what was traced on the way to a value.
Napi::Value describe_traced(Environment& environment, const Napi::CallbackInfo& info);

}  // namespace senet::addon
