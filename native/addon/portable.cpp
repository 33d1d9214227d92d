#include "addon/portable.h"

#include "addon/calibration.h"
#include "addon/convert.h"
#include "addon/modules.h"
#include "addon/trace.h"
#include "core/error.h"
#include "core/names.h"
#include "inference/portable.h"
#include "nn/module.h"
#include "nn/trace.h"

#include <functional>
#include <utility>
#include <variant>

namespace senet::addon {
namespace {

using inference::PortableModel;
using inference::PortableNode;

inference::PortableOptions to_options(const Napi::CallbackInfo& info) {
  inference::PortableOptions options;
  const at::ScalarType dtype = parse_dtype(to_string(info[1], "dtype"));
  options.keep_batch_norm = to_bool(info[2], "keepBatchNorm");
  if (dtype == at::kChar) {
    options.quantization = to_quantization_record(info, 3);
  } else if (dtype == at::kFloat || dtype == at::kHalf) {
    options.weights = dtype;
  } else {
    throw Error("ERR_SENET_DTYPE",
                std::string("expected the dtype float32, float16 or int8, got ") + dtype_name(dtype));
  }
  return options;
}

Napi::Value from_bytes(Napi::Env env, const std::optional<inference::Quantization>& bytes) {
  if (!bytes) {
    return env.Null();
  }
  auto object = Napi::Object::New(env);
  object.Set("scale", static_cast<double>(bytes->scale));
  object.Set("zero", static_cast<double>(bytes->zero));
  return object;
}

// Pairs of a name and a handle, of those that there are.
Napi::Array tensors_of(Environment& environment, PortableNode made) {
  const inference::Node& node = made.node;
  std::vector<std::pair<const char*, at::Tensor>> named = {{"weight", node.weight},
                                                           {"bias", node.bias},
                                                           {"weightScale", made.weight_scale},
                                                           {"biasScale", made.bias_scale},
                                                           {"squeezeWeight", node.squeeze_weight},
                                                           {"squeezeBias", node.squeeze_bias},
                                                           {"exciteWeight", node.excite_weight},
                                                           {"exciteBias", node.excite_bias},
                                                           {"channelKernel", node.channel_kernel}};
  if (node.batch_norm) {
    const graph::BatchNorm& norm = *node.batch_norm;
    named.insert(named.end(), {{"normWeight", norm.weight},
                               {"normBias", norm.bias},
                               {"runningMean", norm.running_mean},
                               {"runningVar", norm.running_var}});
  }
  made = {};  // the handles own what is only theirs
  auto result = Napi::Array::New(environment.env());
  for (auto& [name, tensor] : named) {
    if (tensor.defined()) {
      auto pair = Napi::Array::New(environment.env(), 2);
      pair.Set(0u, name);
      pair.Set(1u, wrap_tensor(environment, std::move(tensor)));
      result.Set(result.Length(), pair);
    }
  }
  return result;
}

Napi::Object from_node(Environment& environment, PortableNode made) {
  const Napi::Env env = environment.env();
  const inference::Node& node = made.node;
  auto object = Napi::Object::New(env);
  object.Set("operation", inference::operation_name(node));
  object.Set("name", node.name);
  object.Set("squeezeName", node.squeeze_name);
  object.Set("exciteName", node.excite_name);
  auto inputs = Napi::Array::New(env);
  auto rounds = Napi::Array::New(env);
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    inputs.Set(static_cast<uint32_t>(i), node.inputs[i]);
    rounds.Set(static_cast<uint32_t>(i), from_bytes(env, made.rounds[i]));
  }
  object.Set("inputs", inputs);
  object.Set("rounds", rounds);
  object.Set("output", node.output);
  object.Set("relu", node.relu);
  object.Set("kernel", from_shape(env, node.window.kernel));
  object.Set("stride", from_shape(env, node.window.stride));
  object.Set("padding", from_shape(env, node.window.padding));
  object.Set("dilation", from_shape(env, node.window.dilation));
  object.Set("groups", static_cast<double>(node.groups));
  object.Set("ceilMode", node.ceil_mode);
  object.Set("countIncludePad", node.count_include_pad);
  object.Set("eps", node.batch_norm ? node.batch_norm->eps : 0.0);
  const auto* flatten = node.other == nullptr ? nullptr : std::get_if<graph::Flatten>(node.other.get());
  object.Set("axes",
             flatten == nullptr ? from_shape(env, {}) : from_shape(env, {flatten->start, flatten->end}));
  object.Set("tensors", tensors_of(environment, std::move(made)));
  return object;
}

Napi::Object from_model(Environment& environment, PortableModel model) {
  const Napi::Env env = environment.env();
  auto nodes = Napi::Array::New(env);
  for (PortableNode& node : model.nodes) {
    nodes.Set(nodes.Length(), from_node(environment, std::move(node)));
  }
  auto values = Napi::Array::New(env);
  for (const inference::PortableValue& value : model.values) {
    auto object = Napi::Object::New(env);
    object.Set("channels", static_cast<double>(value.shape.channels));
    object.Set("isVector", value.shape.is_vector);
    object.Set("bytes", from_bytes(env, value.bytes));
    values.Set(values.Length(), object);
  }
  auto result = Napi::Object::New(env);
  result.Set("nodes", nodes);
  result.Set("values", values);
  result.Set("input", model.input);
  result.Set("output", model.output);
  result.Set("onlySize",
             model.input_size.is_only ? Napi::Value(from_shape(env, model.input_size.usual)) : env.Null());
  return result;
}

Napi::Value submit_description(Environment& environment, std::function<PortableModel()> describe) {
  const int64_t job = environment.submit([describe = std::move(describe)]() -> Deliver {
    return [model = describe()](Environment& here) mutable -> Napi::Value {
      return from_model(here, std::move(model));
    };
  });
  return environment.job_number(job);
}

}  // namespace

Napi::Value describe_module(Environment& environment, const Napi::CallbackInfo& info) {
  ModuleUse used = use_module(info[0]);
  return submit_description(environment, [used = std::move(used), options = to_options(info)]() {
    return inference::make_portable(nn::trace_evaluation(*used.module), used.module->input_size(), options);
  });
}

Napi::Value describe_traced(Environment& environment, const Napi::CallbackInfo& info) {
  TracedForward forward = take_traced(info[0]);
  return submit_description(environment, [forward = std::move(forward), options = to_options(info)]() {
    return inference::make_portable(*forward.graph, {}, options);
  });
}

}  // namespace senet::addon
