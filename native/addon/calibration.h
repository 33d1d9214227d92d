// The functions of the export table that calibrate: from a module to its compiled copy of int8.
#pragma once

#include "addon/environment.h"
#include "inference/cpu/quantize.h"

#include <cstddef>

namespace senet::addon {

/// What an earlier calibration gave, in five arguments from `first` on: names, scales, zeros, keep,
/// keepFirst. Throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE.
inference::QuantizationRecord to_quantization_record(const Napi::CallbackInfo& info, size_t first);

/// module -> a job that copies its weights; its value is a handle of the calibration.
Napi::Value begin_calibration(Environment& environment, const Napi::CallbackInfo& info);
/// The same of what was traced on the way to a value: the value, its class.
Napi::Value begin_traced_calibration(Environment& environment, const Napi::CallbackInfo& info);
/// calibration, images -> a job without a value.
Napi::Value calibration_observe(Environment& environment, const Napi::CallbackInfo& info);
/// calibration, method, percentile, keep, keepFirst -> a job; its value is the handle of the compiled model.
Napi::Value calibration_finish(Environment& environment, const Napi::CallbackInfo& info);
/// calibration, names, scales, zeros, keep, keepFirst -> the same, of what an earlier calibration gave.
Napi::Value calibration_restore(Environment& environment, const Napi::CallbackInfo& info);
/// Of a compiled model: null, or what its bytes mean.
Napi::Value compiled_quantization(Environment& environment, const Napi::CallbackInfo& info);
/// Of a compiled model of int8: the names and tensors of its module.
Napi::Value compiled_tensors(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value dispose_calibration(Environment& environment, const Napi::CallbackInfo& info);

/// Disposes the calibration if `value` is one, and says so.
bool discard_calibration(const Napi::Value& value);

}  // namespace senet::addon
