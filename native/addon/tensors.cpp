#include "addon/tensors.h"

#include "addon/convert.h"
#include "addon/index_arguments.h"
#include "addon/tensor_use.h"
#include "core/error.h"
#include "core/names.h"
#include "inference/cuda/downloads.h"
#include "runtime/cuda_driver.h"
#include "runtime/cuda_library.h"
#include "runtime/threads.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/autograd.h>

#include <cstring>
#include <vector>

namespace senet::addon {
namespace {

// Which typed array carries a dtype, in both directions.
napi_typedarray_type array_type(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat:
      return napi_float32_array;
    case at::kDouble:
      return napi_float64_array;
    case at::kHalf:
    case at::kBFloat16:
      return napi_uint16_array;
    case at::kLong:
      return napi_bigint64_array;
    case at::kInt:
      return napi_int32_array;
    case at::kShort:
      return napi_int16_array;
    case at::kChar:
      return napi_int8_array;
    default:
      return napi_uint8_array;
  }
}

// A tensor that has plain bytes, whose shape no one changes meanwhile.
at::Tensor to_readable(const Napi::Value& value) {
  at::Tensor tensor = to_tensor(value, "tensor").detach();
  dtype_name(tensor.scalar_type());  // refuses the dtypes that have no typed array
  if (tensor.layout() != at::kStrided) {
    throw Error("ERR_SENET_LIBTORCH", "a tensor of this layout has no plain bytes; make it dense first");
  }
  return tensor;
}

// A copy of a contiguous tensor on the CPU.
Napi::Value from_elements(Napi::Env env, const at::Tensor& tensor) {
  const Napi::TypedArray array = new_typed_array(env, array_type(tensor.scalar_type()), tensor.nbytes());
  if (tensor.nbytes() > 0) {
    std::memcpy(data_of(array), tensor.const_data_ptr(), tensor.nbytes());
  }
  return array;
}

// A typed array, and the shape and dtype that its elements are to have.
struct Elements {
  std::vector<int64_t> shape;
  at::ScalarType dtype;
  const void* data;
  size_t length;
};

Elements to_elements(const Napi::CallbackInfo& info, at::ScalarType dtype) {
  Elements elements{to_int64_array(info[1], "shape"), dtype, nullptr, 0};
  if (!info[0].IsTypedArray()) {
    throw Error("ERR_SENET_ARG_TYPE", "expected a typed array, got " + describe_value(info[0]));
  }
  napi_typedarray_type type{};
  void* data = nullptr;
  napi_value buffer = nullptr;
  size_t byte_offset = 0;
  napi_get_typedarray_info(info.Env(), info[0], &type, &elements.length, &data, &buffer, &byte_offset);
  elements.data = data;
  bool is_array_buffer = false;
  napi_is_arraybuffer(info.Env(), buffer, &is_array_buffer);
  if (!is_array_buffer) {
    throw Error("ERR_SENET_BUFFER", "the array's bytes are shared with other threads; copy them first");
  }
  bool detached = false;
  napi_is_detached_arraybuffer(info.Env(), buffer, &detached);
  if (detached) {
    throw Error("ERR_SENET_BUFFER", "the array's bytes are detached (transferred elsewhere)");
  }
  if (type != array_type(elements.dtype)) {
    throw Error("ERR_SENET_DTYPE",
                std::string("the typed array does not carry ") + dtype_name(elements.dtype));
  }
  __int128 wanted = 1;
  for (const int64_t size : elements.shape) {
    if (size < 0) {
      throw Error("ERR_SENET_SHAPE", "a shape has no negative sizes, got " + shape_text(elements.shape));
    }
    wanted *= size;
    if (wanted > INT64_MAX) {
      throw Error("ERR_SENET_SHAPE", "the shape " + shape_text(elements.shape) + " is too large");
    }
  }
  if (wanted != static_cast<__int128>(elements.length)) {
    throw Error("ERR_SENET_SHAPE", "the shape " + shape_text(elements.shape) + " needs " +
                                       std::to_string(static_cast<int64_t>(wanted)) + " elements, got " +
                                       std::to_string(elements.length));
  }
  return elements;
}

}  // namespace

Napi::Value from_typed_array(Environment& environment, const Napi::CallbackInfo& info) {
  const at::Device device = to_device(info[3]);
  const bool wants_grad = to_bool(info[4], "requiresGrad");
  const at::ScalarType dtype = parse_dtype(to_string(info[2], "dtype"));
  // After the other conversions, which may run JavaScript: the array cannot be detached between here and the
  // copy.
  const Elements elements = to_elements(info, dtype);
  at::Tensor tensor = at::empty(elements.shape, at::TensorOptions().dtype(dtype).device(at::kCPU));
  if (elements.length > 0) {
    std::memcpy(tensor.mutable_data_ptr(), elements.data, tensor.nbytes());
  }
  if (dtype == at::kBool) {
    auto* bytes = static_cast<uint8_t*>(tensor.mutable_data_ptr());
    for (size_t i = 0; i < elements.length; ++i) {
      bytes[i] = bytes[i] != 0;
    }
  }
  if (!device.is_cpu()) {
    const at::Tensor source = std::exchange(tensor, tensor.to(device));
    note_indices(tensor, source);
  }
  if (wants_grad) {
    tensor.set_requires_grad(true);
  }
  return wrap_tensor(environment, std::move(tensor));
}

Napi::Value copy_bytes(Environment& environment, const Napi::CallbackInfo& info) {
  constexpr int64_t kGrain = int64_t{1} << 20;
  Elements elements = to_elements(info, at::kByte);
  Napi::ObjectReference kept = Napi::Persistent(info[0].As<Napi::Object>());
  const int64_t job = environment.submit([elements = std::move(elements)]() -> Deliver {
    at::Tensor tensor = at::empty(elements.shape, elements.dtype);
    auto* const to = tensor.mutable_data_ptr<uint8_t>();
    const auto* const from = static_cast<const uint8_t*>(elements.data);
    at::parallel_for(0, tensor.numel(), kGrain, [&](int64_t begin, int64_t end) {
      std::memcpy(to + begin, from + begin, static_cast<size_t>(end - begin));
    });
    return [tensor = std::move(tensor)](Environment& here) mutable {
      return wrap_tensor(here, std::move(tensor));
    };
  });
  environment.keep(job, std::move(kept));
  return environment.job_number(job);
}

Napi::Value to_typed_array(Environment& environment, const Napi::CallbackInfo& info) {
  const at::Tensor tensor = to_readable(info[0]).resolve_conj().resolve_neg().cpu().contiguous();
  return from_elements(environment.env(), tensor);
}

Napi::Value to_typed_array_later(Environment& environment, const Napi::CallbackInfo& info) {
  const int64_t job = environment.submit_later([tensor = to_readable(info[0])](JobFinish finish) {
    const auto give = [finish](at::Tensor numbers, std::exception_ptr failure) {
      finish([numbers](Environment& here) { return from_elements(here.env(), numbers); }, failure);
    };
    try {
      at::Tensor dense = tensor.resolve_conj().resolve_neg().contiguous();
      if (!dense.is_cuda() || dense.nbytes() == 0) {
        give(dense.cpu(), nullptr);
        return;
      }
      const auto& driver =
          runtime::cuda::driver_of(runtime::libtorch_folder(), runtime::cuda_library_handle());
      if (!driver.missing_of_runtime.empty()) {
        give(dense.cpu(), nullptr);
        return;
      }
      at::Tensor numbers = at::empty(dense.sizes(), dense.options().device(at::kCPU));
      inference::cuda::download(driver, dense.device().index(), dense.const_data_ptr(), dense.nbytes(),
                                [give, dense, numbers](const void* data, std::exception_ptr failure) mutable {
                                  if (!failure) {
                                    std::memcpy(numbers.mutable_data_ptr(), data, numbers.nbytes());
                                  }
                                  dense.reset();  // or it might go when the process has ended
                                  give(numbers, failure);
                                });
    } catch (...) {
      give({}, std::current_exception());
    }
  });
  return environment.job_number(job);
}

Napi::Value tensor_info(Environment& environment, const Napi::CallbackInfo& info) {
  const at::Tensor& tensor = to_described_tensor(info[0], "tensor");
  const Napi::Env env = environment.env();
  auto facts = Napi::Object::New(env);
  facts.Set("shape", from_shape(env, tensor.sizes()));
  facts.Set("dtype", dtype_name(tensor.scalar_type()));
  facts.Set("device", device_name(tensor.device()));
  return facts;
}

Napi::Value known_range(Environment& environment, const Napi::CallbackInfo& info) {
  const auto range = known_range(to_tensor(info[0], "tensor"), to_int64(info[1], "ignored"));
  if (!range.has_value()) {
    return environment.env().Null();
  }
  auto ends = Napi::Array::New(environment.env(), 2);
  ends.Set(0U, from_int64(environment.env(), range->first));
  ends.Set(1U, from_int64(environment.env(), range->second));
  return ends;
}

Napi::Value requires_grad(Environment& environment, const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(environment.env(), to_tensor(info[0], "tensor").requires_grad());
}

Napi::Value set_requires_grad(Environment& environment, const Napi::CallbackInfo& info) {
  const at::Tensor& tensor = to_tensor(info[0], "tensor");
  const bool wanted = to_bool(info[1], "requiresGrad");
  if (wanted && !at::isFloatingType(tensor.scalar_type())) {
    throw Error("ERR_SENET_DTYPE", std::string("only floating tensors can require gradients, this one is ") +
                                       dtype_name(tensor.scalar_type()));
  }
  if (!tensor.is_leaf() && !wanted) {
    throw Error("ERR_SENET_AUTOGRAD",
                "requiresGrad of a tensor that an operator made cannot be changed; use detach()");
  }
  tensor.set_requires_grad(wanted);
  return environment.env().Undefined();
}

Napi::Value grad(Environment& environment, const Napi::CallbackInfo& info) {
  const at::Tensor& tensor = to_tensor(info[0], "tensor");
  check_gradient_idle(tensor);
  // Not tensor.grad(), which prints a warning where an operator made the tensor.
  return wrap_tensor(environment, std::as_const(*tensor.unsafeGetTensorImpl()).grad());
}

Napi::Value set_grad(Environment& environment, const Napi::CallbackInfo& info) {
  const at::Tensor& tensor = to_tensor(info[0], "tensor");
  check_gradient_idle(tensor);
  if (info[1].IsNull()) {
    tensor.mutable_grad() = at::Tensor();
    return environment.env().Undefined();
  }
  const at::Tensor& value = to_tensor(info[1], "grad");
  if (value.sizes() != tensor.sizes()) {
    throw Error("ERR_SENET_SHAPE", "a gradient has the shape of its tensor, " + shape_text(tensor.sizes()) +
                                       ", got " + shape_text(value.sizes()));
  }
  if (value.scalar_type() != tensor.scalar_type()) {
    throw Error("ERR_SENET_DTYPE", std::string("a gradient has the dtype of its tensor, ") +
                                       dtype_name(tensor.scalar_type()) + ", got " +
                                       dtype_name(value.scalar_type()));
  }
  if (value.device() != tensor.device()) {
    throw Error("ERR_SENET_DEVICE", "a gradient is on the device of its tensor, " +
                                        device_name(tensor.device()) + ", got " +
                                        device_name(value.device()));
  }
  tensor.mutable_grad() = value.detach();
  return environment.env().Undefined();
}

// All or none: what is busy is found before anything changes.
Napi::Value clear_grads(Environment& environment, const Napi::CallbackInfo& info) {
  const std::vector<at::Tensor> tensors = to_tensors(info[0], "tensors");
  check_gradients_idle(tensors);
  for (const at::Tensor& tensor : tensors) {
    tensor.mutable_grad() = at::Tensor();
  }
  return environment.env().Undefined();
}

Napi::Value dispose_tensor_handle(Environment& environment, const Napi::CallbackInfo& info) {
  dispose_tensor(environment, info[0]);
  return environment.env().Undefined();
}

Napi::Value backward(Environment& environment, const Napi::CallbackInfo& info) {
  const at::Tensor& tensor = to_tensor(info[0], "tensor");
  const at::Tensor gradient = info[1].IsNull() ? at::Tensor() : to_tensor(info[1], "gradient");
  if (!tensor.requires_grad()) {
    throw Error("ERR_SENET_AUTOGRAD", "this tensor has no graph: nothing that led to it requires gradients");
  }
  if (!gradient.defined() && tensor.numel() != 1) {
    throw Error("ERR_SENET_AUTOGRAD",
                "backward() without a gradient needs a tensor of one element, this one has the shape " +
                    shape_text(tensor.sizes()));
  }
  if (gradient.defined() && gradient.sizes() != tensor.sizes()) {
    throw Error("ERR_SENET_SHAPE", "the gradient has the shape " + shape_text(gradient.sizes()) +
                                       ", the tensor " + shape_text(tensor.sizes()));
  }
  const int64_t job = environment.submit(
      [tensor, gradient, leaves = std::make_shared<const TensorUse>(leaves_of(tensor))]() -> Deliver {
        tensor.backward(gradient);
        return [](Environment& here) { return here.env().Undefined(); };
      },
      "ERR_SENET_AUTOGRAD");
  return environment.job_number(job);
}

Napi::Value gradients(Environment& environment, const Napi::CallbackInfo& info) {
  const at::Tensor& output = to_tensor(info[0], "output");
  std::vector<at::Tensor> inputs = to_tensors(info[1], "inputs");
  const bool retain_graph = to_bool(info[2], "retainGraph");
  if (!output.requires_grad() || output.numel() != 1) {
    throw Error("ERR_SENET_AUTOGRAD",
                "gradients are of one element that has a graph, this tensor has the shape " +
                    shape_text(output.sizes()));
  }
  for (const at::Tensor& input : inputs) {
    if (!input.requires_grad()) {
      throw Error("ERR_SENET_AUTOGRAD", "gradients are with respect to tensors that have a graph");
    }
  }
  const int64_t job = environment.submit(
      [output, inputs = std::move(inputs), retain_graph,
       leaves =
           std::make_shared<const TensorUse>(leaves_of(output), TensorUse::Part::kNumbers)]() -> Deliver {
        auto found = torch::autograd::grad({output}, inputs, /*grad_outputs=*/{}, retain_graph,
                                           /*create_graph=*/false, /*allow_unused=*/true);
        return [found = std::move(found)](Environment& here) mutable -> Napi::Value {
          return wrap_tensors(here, std::move(found));
        };
      },
      "ERR_SENET_AUTOGRAD");
  return environment.job_number(job);
}

}  // namespace senet::addon
