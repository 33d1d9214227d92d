// JavaScript values to C++ values and back: handles, names, numbers. Trusts nothing: every handle's type tag
// is checked, every number's kind and range.
#pragma once

#include "graph/value.h"

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "addon/environment.h"

namespace senet::addon {

/// "a number", "an array", "null": how messages name what came.
std::string describe_value(const Napi::Value& value);

/// A number that is an integer within int64, or a bigint that fits; throws ERR_SENET_ARG_TYPE or
/// ERR_SENET_ARG_RANGE.
int64_t to_int64(const Napi::Value& value, const char* what);
/// Any number, NaN and infinities too.
double to_double(const Napi::Value& value, const char* what);
bool to_bool(const Napi::Value& value, const char* what);
/// "bfloat16" or "float16"; none of null.
std::optional<at::ScalarType> to_autocast(const Napi::Value& value);
std::string to_string(const Napi::Value& value, const char* what);
std::vector<int64_t> to_int64_array(const Napi::Value& value, const char* what);
/// A copy of a Float32Array.
std::vector<float> to_floats(const Napi::Value& value, const char* what);
/// The memory of a Uint8Array, which may be detached as soon as JavaScript runs.
std::span<const uint8_t> to_bytes(const Napi::Value& value, const char* what);

/// A number where it is exact, else a bigint.
Napi::Value from_int64(Napi::Env env, int64_t value);
Napi::Array from_shape(Napi::Env env, at::IntArrayRef shape);

/// A new typed array of `bytes` that are to be written, in a buffer of its own. Throws
/// ERR_SENET_OUT_OF_MEMORY where JavaScript has none of this length.
Napi::TypedArray new_typed_array(Napi::Env env, napi_typedarray_type type, size_t bytes);
/// Where its bytes are.
void* data_of(const Napi::TypedArray& array);

/// 'cpu', 'cuda' or 'cuda:N'; throws ERR_SENET_ARG_RANGE, or ERR_SENET_CUDA_UNAVAILABLE if there is no such
/// device.
at::Device to_device(const Napi::Value& value);
/// The CUDA device of this index, -1 for LibTorch's current one; throws as to_device(), and
/// ERR_SENET_CUDA_LOST if it was lost.
at::Device cuda_device_at(int64_t index);

/// A new handle that owns the tensor; undefined tensors become null.
/// Move what nobody else holds into it: only then V8 is told of its bytes.
Napi::Value wrap_tensor(Environment& environment, at::Tensor tensor);
/// An array of handles, with null for those that are undefined.
Napi::Array wrap_tensors(Environment& environment, std::vector<at::Tensor> tensors);
/// The tensor of a handle; throws ERR_SENET_ARG_TYPE, ERR_SENET_DISPOSED, or ERR_SENET_CUDA_LOST if its
/// device was lost.
const at::Tensor& to_tensor(const Napi::Value& value, const char* what);
/// The same for what is known without the device: shape, dtype, device.
const at::Tensor& to_described_tensor(const Napi::Value& value, const char* what);
std::vector<at::Tensor> to_tensors(const Napi::Value& value, const char* what);
bool is_tensor(const Napi::Value& value);
/// Drops the handle's reference; later uses throw ERR_SENET_DISPOSED. Harmless when repeated.
void dispose_tensor(Environment& environment, const Napi::Value& value);
/// What flows through a forward that is traced. Its handles are those of tensors: to_tensor() throws
/// ERR_SENET_COMPILE for them, so that whatever needs numbers refuses them.
struct TracedValue {
  std::shared_ptr<void> session;  // a TraceSession (trace.cpp)
  graph::Value value;
};
Napi::Value wrap_traced(Environment& environment, TracedValue value);
/// Null for anything else.
const TracedValue* to_traced(const Napi::Value& value);

/// Tensor handles alive in the process.
int64_t tensor_count();

}  // namespace senet::addon
