#include "addon/convert.h"

#include "addon/wrap.h"
#include "core/error.h"
#include "core/names.h"
#include "runtime/cuda_failure.h"
#include "runtime/cuda_library.h"

#include <atomic>
#include <cmath>

namespace senet::addon {
namespace {

constexpr double kMaxSafeInteger = 9007199254740991.0;
// Bytes from which on an array is made by JavaScript's own constructors: for one that is too long, or finds
// no memory, these throw, while Node-API ends the process.
constexpr size_t kLargeArray = size_t{1} << 20;

std::atomic<int64_t> live_handles{0};

struct TensorBox {
  static constexpr napi_type_tag kTag{0x8f0c4d1be2a64b57, 0x9b3d6a7f5e214c80};
  at::Tensor tensor;
  std::unique_ptr<const TracedValue> traced;  // instead of the tensor
  int64_t reported_bytes = 0;                 // told to V8, so that it collects in time

  void released(Napi::Env env) {
    traced.reset();
    if (!tensor.defined()) {
      return;
    }
    tensor = at::Tensor();
    --live_handles;
    if (reported_bytes != 0) {
      Napi::MemoryManagement::AdjustExternalMemory(env, -reported_bytes);
    }
    reported_bytes = 0;
  }
};

TensorBox* tensor_box(const Napi::Value& value) {
  return unwrap<TensorBox>(value);
}

template <class Array>
Array as_array(const Napi::Value& value, napi_typedarray_type type, const char* what, const char* expected) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != type) {
    throw Error("ERR_SENET_ARG_TYPE",
                std::string(what) + ": expected " + expected + ", got " + describe_value(value));
  }
  return value.As<Array>();
}

struct ArrayKind {
  const char* name;
  size_t item;
};

ArrayKind kind_of(napi_typedarray_type type) {
  switch (type) {
    case napi_float32_array:
      return {"Float32Array", 4};
    case napi_float64_array:
      return {"Float64Array", 8};
    case napi_uint16_array:
      return {"Uint16Array", 2};
    case napi_bigint64_array:
      return {"BigInt64Array", 8};
    case napi_int32_array:
      return {"Int32Array", 4};
    case napi_int16_array:
      return {"Int16Array", 2};
    case napi_int8_array:
      return {"Int8Array", 1};
    default:
      return {"Uint8Array", 1};
  }
}

}  // namespace

std::string describe_value(const Napi::Value& value) {
  switch (value.Type()) {
    case napi_undefined:
      return "undefined";
    case napi_null:
      return "null";
    case napi_boolean:
      return value.As<Napi::Boolean>().Value() ? "true" : "false";
    case napi_number:
      return "the number " + value.ToString().Utf8Value();
    case napi_bigint:
      return "the bigint " + value.ToString().Utf8Value();
    case napi_string:
      return "the string '" + value.As<Napi::String>().Utf8Value() + "'";
    case napi_function:
      return "a function";
    case napi_symbol:
      return "a symbol";
    default:
      break;
  }
  if (value.IsArray()) {
    return "an array of length " + std::to_string(value.As<Napi::Array>().Length());
  }
  if (tensor_box(value) != nullptr) {
    return "a tensor";
  }
  return "an object";
}

int64_t to_int64(const Napi::Value& value, const char* what) {
  if (value.IsBigInt()) {
    bool lossless = false;
    const int64_t number = value.As<Napi::BigInt>().Int64Value(&lossless);
    if (!lossless) {
      throw Error("ERR_SENET_ARG_RANGE",
                  std::string(what) + ": expected an int64, got " + describe_value(value));
    }
    return number;
  }
  if (!value.IsNumber()) {
    throw Error("ERR_SENET_ARG_TYPE",
                std::string(what) + ": expected an integer, got " + describe_value(value));
  }
  const double number = value.As<Napi::Number>().DoubleValue();
  // Written so that NaN fails. Above 2**53 a number may not be the integer that was meant.
  if (!(std::abs(number) <= kMaxSafeInteger) || std::trunc(number) != number) {
    throw Error("ERR_SENET_ARG_RANGE",
                std::string(what) + ": expected an integer up to 2**53 - 1, got " + describe_value(value));
  }
  return static_cast<int64_t>(number);
}

double to_double(const Napi::Value& value, const char* what) {
  if (!value.IsNumber()) {
    throw Error("ERR_SENET_ARG_TYPE",
                std::string(what) + ": expected a number, got " + describe_value(value));
  }
  return value.As<Napi::Number>().DoubleValue();
}

bool to_bool(const Napi::Value& value, const char* what) {
  if (!value.IsBoolean()) {
    throw Error("ERR_SENET_ARG_TYPE",
                std::string(what) + ": expected a boolean, got " + describe_value(value));
  }
  return value.As<Napi::Boolean>().Value();
}

std::string to_string(const Napi::Value& value, const char* what) {
  if (!value.IsString()) {
    throw Error("ERR_SENET_ARG_TYPE",
                std::string(what) + ": expected a string, got " + describe_value(value));
  }
  return value.As<Napi::String>().Utf8Value();
}

std::optional<at::ScalarType> to_autocast(const Napi::Value& value) {
  if (value.IsNull()) {
    return std::nullopt;
  }
  const at::ScalarType dtype = parse_dtype(to_string(value, "autocast"));
  if (dtype != at::kBFloat16 && dtype != at::kHalf) {
    throw Error("ERR_SENET_DTYPE", "autocast: expected bfloat16 or float16");
  }
  return dtype;
}

std::vector<int64_t> to_int64_array(const Napi::Value& value, const char* what) {
  if (!value.IsArray()) {
    throw Error("ERR_SENET_ARG_TYPE",
                std::string(what) + ": expected an array of integers, got " + describe_value(value));
  }
  const auto array = value.As<Napi::Array>();
  std::vector<int64_t> numbers;
  // Get() may run a getter that shortens the array; what is then missing is undefined and refused.
  for (uint32_t i = 0, length = array.Length(); i < length; ++i) {
    numbers.push_back(to_int64(array.Get(i), what));
  }
  return numbers;
}

std::vector<float> to_floats(const Napi::Value& value, const char* what) {
  const auto array = as_array<Napi::Float32Array>(value, napi_float32_array, what, "a Float32Array");
  return {array.Data(), array.Data() + array.ElementLength()};
}

std::span<const uint8_t> to_bytes(const Napi::Value& value, const char* what) {
  const auto array = as_array<Napi::Uint8Array>(value, napi_uint8_array, what, "a Uint8Array");
  return {array.Data(), array.ByteLength()};
}

Napi::Value from_int64(Napi::Env env, int64_t value) {
  if (std::abs(static_cast<double>(value)) <= kMaxSafeInteger) {
    return Napi::Number::New(env, static_cast<double>(value));
  }
  return Napi::BigInt::New(env, value);
}

Napi::TypedArray new_typed_array(Napi::Env env, napi_typedarray_type type, size_t bytes) {
  const ArrayKind kind = kind_of(type);
  if (bytes < kLargeArray) {
    napi_value array = nullptr;
    napi_create_typedarray(env, type, bytes / kind.item, Napi::ArrayBuffer::New(env, bytes), 0, &array);
    return {env, array};
  }
  try {
    const auto length = Napi::Number::New(env, static_cast<double>(bytes / kind.item));
    return env.Global().Get(kind.name).As<Napi::Function>().New({length}).As<Napi::TypedArray>();
  } catch (const Napi::Error& error) {
    throw Error("ERR_SENET_OUT_OF_MEMORY", std::string("JavaScript has no ") + kind.name + " of " +
                                               std::to_string(bytes) + " bytes: " + error.Message());
  }
}

void* data_of(const Napi::TypedArray& array) {
  return static_cast<char*>(array.ArrayBuffer().Data()) + array.ByteOffset();
}

Napi::Array from_shape(Napi::Env env, at::IntArrayRef shape) {
  auto array = Napi::Array::New(env, shape.size());
  for (uint32_t i = 0; i < shape.size(); ++i) {
    array.Set(i, static_cast<double>(shape[i]));
  }
  return array;
}

at::Device to_device(const Napi::Value& value) {
  const std::string name = to_string(value, "device");
  if (name == "cpu") {
    return {at::kCPU};
  }
  int64_t index = -1;
  bool valid = name == "cuda";
  if (name.rfind("cuda:", 0) == 0 && name.size() > 5 && name.size() < 9 &&
      name.find_first_not_of("0123456789", 5) == std::string::npos) {
    index = std::stoll(name.substr(5));
    valid = index < 128;
  }
  if (!valid) {
    throw Error("ERR_SENET_ARG_RANGE", "expected a device ('cpu', 'cuda' or 'cuda:N'), got '" + name + "'");
  }
  return cuda_device_at(index);
}

at::Device cuda_device_at(int64_t index) {
  const int count = runtime::cuda_device_count();
  if (count == 0 || index < -1 || index >= count) {
    const std::string name = index < 0 ? "cuda" : "cuda:" + std::to_string(index);
    throw Error("ERR_SENET_CUDA_UNAVAILABLE",
                "the device '" + name + "' is not available: " +
                    (count == 0 ? runtime::cuda_state().reason
                                : "there are " + std::to_string(count) + " CUDA devices, from cuda:0 on"));
  }
  runtime::check_not_lost(static_cast<int>(index));
  return {at::kCUDA, static_cast<at::DeviceIndex>(index)};
}

Napi::Value wrap_tensor(Environment& environment, at::Tensor tensor) {
  const Napi::Env env = environment.env();
  if (!tensor.defined()) {
    return env.Null();
  }
  auto box = std::make_unique<TensorBox>();
  // Only the sole owner of a storage reports it: views and a module's parameters would count it twice. What
  // has a graph reports its own size always, for the activations that the graph keeps. Memory of a device
  // too: V8 knows of no other reason to collect the handles that hold it.
  if (tensor.use_count() == 1 && tensor.has_storage()) {
    if (tensor.storage().use_count() == 1) {
      box->reported_bytes = static_cast<int64_t>(tensor.storage().nbytes());
    } else if (tensor.grad_fn() != nullptr) {
      box->reported_bytes = static_cast<int64_t>(tensor.nbytes());
    }
  }
  box->tensor = std::move(tensor);
  ++live_handles;
  if (box->reported_bytes != 0) {
    Napi::MemoryManagement::AdjustExternalMemory(env, box->reported_bytes);
  }
  return wrap(env, std::move(box));
}

const at::Tensor& to_tensor(const Napi::Value& value, const char* what) {
  const at::Tensor& tensor = to_described_tensor(value, what);
  if (tensor.is_cuda()) {
    runtime::check_not_lost(tensor.get_device());
  }
  return tensor;
}

const at::Tensor& to_described_tensor(const Napi::Value& value, const char* what) {
  TensorBox* box = tensor_box(value);
  if (box == nullptr) {
    throw Error("ERR_SENET_ARG_TYPE",
                std::string(what) + ": expected a tensor, got " + describe_value(value));
  }
  if (box->traced != nullptr) {
    throw graph::Untraceable("cannot be traced: a compiled model knows no numbers and no size of its input");
  }
  if (!box->tensor.defined()) {
    throw Error("ERR_SENET_DISPOSED", std::string(what) + ": the tensor was disposed");
  }
  return box->tensor;
}

Napi::Value wrap_traced(Environment& environment, TracedValue value) {
  auto box = std::make_unique<TensorBox>();
  box->traced = std::make_unique<const TracedValue>(std::move(value));
  return wrap(environment.env(), std::move(box));
}

const TracedValue* to_traced(const Napi::Value& value) {
  const TensorBox* box = tensor_box(value);
  return box == nullptr ? nullptr : box->traced.get();
}

Napi::Array wrap_tensors(Environment& environment, std::vector<at::Tensor> tensors) {
  auto array = Napi::Array::New(environment.env(), tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    array.Set(static_cast<uint32_t>(i), wrap_tensor(environment, std::move(tensors[i])));
  }
  return array;
}

std::vector<at::Tensor> to_tensors(const Napi::Value& value, const char* what) {
  if (!value.IsArray()) {
    throw Error("ERR_SENET_ARG_TYPE",
                std::string(what) + ": expected an array, got " + describe_value(value));
  }
  const auto array = value.As<Napi::Array>();
  std::vector<at::Tensor> tensors;
  for (uint32_t i = 0, length = array.Length(); i < length; ++i) {
    tensors.push_back(to_tensor(array.Get(i), what));
  }
  return tensors;
}

bool is_tensor(const Napi::Value& value) {
  return tensor_box(value) != nullptr;
}

void dispose_tensor(Environment& environment, const Napi::Value& value) {
  TensorBox* box = tensor_box(value);
  if (box == nullptr) {
    throw Error("ERR_SENET_ARG_TYPE", "expected a tensor, got " + describe_value(value));
  }
  box->released(environment.env());
}

int64_t tensor_count() {
  return live_handles.load();
}

}  // namespace senet::addon
