#include "inference/aten/program.h"

#include "core/error.h"
#include "core/names.h"

#include <ATen/Context.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/_convolution.h>
#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/max_pool2d.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <chrono>
#include <utility>

namespace senet::inference {
namespace {

using OptionalNumbers = c10::List<std::optional<at::Scalar>>;
using ConvolutionPointwise = at::Tensor(const at::Tensor&, const at::Tensor&,
                                        const std::optional<at::Tensor>&, at::IntArrayRef, at::IntArrayRef,
                                        at::IntArrayRef, int64_t, std::string_view, OptionalNumbers,
                                        std::optional<std::string_view>);

// oneDNN's operators, looked up once. They have no C++ function in LibTorch's headers.
const auto& convolution_pointwise() {
  static const auto found = c10::Dispatcher::singleton()
                                .findSchemaOrThrow("mkldnn::_convolution_pointwise", "")
                                .typed<ConvolutionPointwise>();
  return found;
}

at::Tensor reorder_weight(const at::Tensor& weight, const Node& node) {
  using Reorder = at::Tensor(const at::Tensor&, at::IntArrayRef, at::IntArrayRef, at::IntArrayRef, int64_t,
                             at::OptionalIntArrayRef);
  static const auto found = c10::Dispatcher::singleton()
                                .findSchemaOrThrow("mkldnn::_reorder_convolution_weight", "")
                                .typed<Reorder>();
  return found.call(weight, node.window.padding, node.window.stride, node.window.dilation, node.groups,
                    std::nullopt);
}

bool query_mkldnn(const char* name) {
  const auto found = c10::Dispatcher::singleton().findSchema({name, ""});
  return found.has_value() && found->typed<bool()>().call();
}

// A node with its tensors in the program's dtype, on its device.
struct Layer {
  Node node;          // without tensors
  at::Tensor weight;  // prepacked for oneDNN if `is_packed`
  at::Tensor bias;    // of a convolution or linear layer; the shift of an affine
  at::Tensor squeeze_weight;
  at::Tensor squeeze_bias;  // these two may be undefined
  at::Tensor excite_weight;
  at::Tensor excite_bias;
  at::Tensor channel_kernel;  // defined in place of the four
  int64_t weight_elements = 0;
  bool is_packed = false;
};

class AtenProgram : public Program {
 public:
  AtenProgram(const Plan& plan, at::Device device, at::ScalarType dtype, bool allow_tf32)
      : plan_(without_tensors(plan)), device_(device), dtype_(dtype), allow_tf32_(allow_tf32) {
    const bool use_onednn = device.is_cpu() && at::Context::hasMKLDNN();
    const at::TensorOptions options = at::TensorOptions(device).dtype(dtype);
    for (size_t i = 0; i < plan.nodes.size(); ++i) {
      const Node& node = plan.nodes[i];
      Layer layer;
      layer.node = plan_.nodes[i];
      if (node.weight.defined() || node.batch_norm || node.affine) {
        const Linearised linear = linearise(node);
        layer.weight_elements = linear.weight.numel();
        layer.weight = linear.product().to(options);
        layer.bias = linear.bias.to(options);
        if (node.operation == Operation::kConvolution) {
          if (use_onednn && (dtype == at::kFloat || node.window.is_usual())) {
            layer.weight = reorder_weight(layer.weight, node);
            layer.is_packed = true;
          } else {
            layer.weight = layer.weight.contiguous(at::MemoryFormat::ChannelsLast);
          }
        }
      }
      if (node.operation == Operation::kSqueezeExcite) {
        const auto copy = [&](const at::Tensor& tensor) {
          return tensor.defined() ? tensor.detach().to(options, /*non_blocking=*/false, /*copy=*/true)
                                  : tensor;
        };
        layer.squeeze_weight = copy(node.squeeze_weight);
        layer.squeeze_bias = copy(node.squeeze_bias);
        layer.excite_weight = copy(node.excite_weight);
        layer.excite_bias = copy(node.excite_bias);
        layer.channel_kernel = copy(node.channel_kernel);
        for (const at::Tensor& tensor : {layer.squeeze_weight, layer.excite_weight, layer.channel_kernel}) {
          layer.weight_elements += tensor.defined() ? tensor.numel() : 0;
        }
      }
      layers_.push_back(std::move(layer));
    }
  }

  at::Tensor run(const at::Tensor& input, StepSeconds* seconds) const override {
    infer_sizes(plan_, {input.size(2), input.size(3)});  // throws: LibTorch's own errors have no code
    const c10::OptionalDeviceGuard guard(device_);
    std::vector<at::Tensor> values(plan_.values.size());
    values[static_cast<size_t>(plan_.input)] = input.to(dtype_).contiguous(at::MemoryFormat::ChannelsLast);
    std::vector<int32_t> uses = count_uses();
    // A GPU works on its own; a time is of what it did.
    const auto now = [&] {
      if (seconds != nullptr && !device_.is_cpu()) {
        const c10::impl::VirtualGuardImpl backend(device_.type());
        backend.synchronizeStream(backend.getStream(device_));
      }
      return std::chrono::steady_clock::now();
    };
    for (const Layer& layer : layers_) {
      const auto start = now();
      std::vector<at::Tensor> inputs;
      for (const ValueId id : layer.node.inputs) {
        at::Tensor& value = values[static_cast<size_t>(id)];
        // The last reader takes the value, so that its memory is free for what comes next.
        inputs.push_back(--uses[static_cast<size_t>(id)] == 0 ? std::move(value) : value);
      }
      values[static_cast<size_t>(layer.node.output)] = compute(layer, inputs);
      if (seconds != nullptr) {
        seconds->push_back(std::chrono::duration<double>(now() - start).count());
      }
    }
    const at::Tensor output = values[static_cast<size_t>(plan_.output)].to(at::kFloat);
    return plan_.value(plan_.output).is_vector ? output.flatten(1) : output.contiguous();
  }

  std::vector<StepInfo> explain(Size2 size) const override {
    const std::vector<Size2> sizes = infer_sizes(plan_, size);
    const auto shape = [&](ValueId value) {
      const Size2& of = sizes[static_cast<size_t>(value)];
      return std::vector<int64_t>{plan_.channels(value), of[0], of[1]};
    };
    std::vector<StepInfo> result;
    for (const Layer& layer : layers_) {
      const Node& node = layer.node;
      StepInfo info{node.name, operation_name(node)};
      info.input = shape(node.inputs.front());
      info.output = shape(node.output);
      if (node.operation == Operation::kSqueezeExcite && node.inputs.size() > 1) {
        info.fused.push_back("residual");
      }
      if (node.relu) {
        info.fused.push_back("relu");
      }
      info.weight_bytes = layer_bytes(layer);
      const auto elements = [](const std::vector<int64_t>& of) { return of[0] * of[1] * of[2]; };
      info.activation_bytes = elements(info.output) * static_cast<int64_t>(c10::elementSize(dtype_));
      for (const ValueId read : node.inputs) {
        info.activation_bytes += elements(shape(read)) * static_cast<int64_t>(c10::elementSize(dtype_));
      }
      if (node.operation == Operation::kConvolution || node.operation == Operation::kLinear) {
        info.multiply_adds = layer.weight_elements * info.output[1] * info.output[2];
      }
      result.push_back(std::move(info));
    }
    return result;
  }

  int64_t weight_bytes() const override {
    int64_t bytes = 0;
    for (const Layer& layer : layers_) {
      bytes += layer_bytes(layer);
    }
    return bytes;
  }

  const char* backend() const override {
    return aten_kernels_name({device_});
  }

 private:
  at::Tensor compute(const Layer& layer, std::vector<at::Tensor>& inputs) const {
    const Node& node = layer.node;
    const at::Tensor& x = inputs.front();
    switch (node.operation) {
      case Operation::kConvolution:
        return convolve(layer, x);
      case Operation::kAffine:
        return relu_if(node, x * per_channel(layer.weight) + per_channel(layer.bias));
      case Operation::kAdd:
        return relu_if(node, x + inputs[1]);
      case Operation::kRelu:
        return x.relu();
      case Operation::kSqueezeExcite: {
        // The squeeze in float32: a mean of many bfloat16 numbers loses too much in their own precision.
        const at::Tensor mean = x.mean(at::IntArrayRef{2, 3}, /*keepdim=*/false, at::kFloat).to(dtype_);
        at::Tensor y = x * per_channel(factors_of(layer, mean));
        if (inputs.size() > 1) {
          y += inputs[1];
        }
        return relu_if(node, std::move(y));
      }
      case Operation::kMaxPool:
        return at::max_pool2d(x, node.window.kernel, node.window.stride, node.window.padding, /*dilation=*/1,
                              node.ceil_mode);
      case Operation::kAveragePool:
        return at::avg_pool2d(x, node.window.kernel, node.window.stride, node.window.padding, node.ceil_mode,
                              node.count_include_pad);
      case Operation::kGlobalAveragePool:
        return x.mean(at::IntArrayRef{2, 3}, /*keepdim=*/true, at::kFloat).to(dtype_);
      case Operation::kConcatenate:
        return at::cat(inputs, 1);
      case Operation::kLinear:
        return relu_if(node, at::linear(x.flatten(1), layer.weight, layer.bias));
      case Operation::kOperator: {
        std::vector<at::Tensor> read;
        for (size_t i = 0; i < inputs.size(); ++i) {
          read.push_back(plan_.value(node.inputs[i]).is_vector ? inputs[i].flatten(1) : inputs[i]);
        }
        return graph::compute(*node.other, read);
      }
    }
    throw Error("ERR_SENET_INTERNAL", "an operation without a plan");
  }

  // N x C, from the means.
  static at::Tensor factors_of(const Layer& layer, const at::Tensor& mean) {
    if (layer.channel_kernel.defined()) {
      const int64_t size = layer.channel_kernel.numel();
      const graph::Convolution1d convolution = {layer.channel_kernel.view({1, 1, size}), {}, 1, size / 2};
      return graph::compute(convolution, {mean.unsqueeze(1)}).squeeze(1).sigmoid_();
    }
    const at::Tensor hidden = at::linear(mean, layer.squeeze_weight, layer.squeeze_bias).relu_();
    return at::linear(hidden, layer.excite_weight, layer.excite_bias).sigmoid_();
  }

  at::Tensor convolve(const Layer& layer, const at::Tensor& x) const {
    const Node& node = layer.node;
    if (layer.is_packed) {
      return graph::convolve_safely(x, node.window, [&](const at::Tensor& input, const Size2& padding) {
        return convolution_pointwise().call(input, layer.weight, layer.bias, padding, node.window.stride,
                                            node.window.dilation, node.groups, node.relu ? "relu" : "none",
                                            OptionalNumbers(), "");
      });
    }
    if (device_.is_cpu()) {
      return relu_if(node, graph::convolve(x, layer.weight, layer.bias, node.window, node.groups));
    }
    // at::conv2d, but for the process's own permission of TF32.
    const at::Context& context = at::globalContext();
    return relu_if(node, at::_convolution(x, layer.weight, layer.bias, node.window.stride,
                                          node.window.padding, node.window.dilation, /*transposed=*/false,
                                          {0, 0}, node.groups, context.benchmarkCuDNN(),
                                          context.deterministicCuDNN() || context.deterministicAlgorithms(),
                                          context.userEnabledCuDNN(), allow_tf32_));
  }

  static at::Tensor per_channel(const at::Tensor& vector) {
    return vector.unsqueeze(-1).unsqueeze(-1);
  }

  static at::Tensor relu_if(const Node& node, at::Tensor y) {
    return node.relu ? y.relu_() : y;
  }

  int64_t layer_bytes(const Layer& layer) const {
    const int64_t biases = layer.bias.defined() ? layer.bias.numel() : 0;
    return (layer.weight_elements + biases) * static_cast<int64_t>(c10::elementSize(dtype_));
  }

  std::vector<int32_t> count_uses() const {
    std::vector<int32_t> uses(plan_.values.size(), 0);
    for (const Node& node : plan_.nodes) {
      for (const ValueId value : node.inputs) {
        ++uses[static_cast<size_t>(value)];
      }
    }
    ++uses[static_cast<size_t>(plan_.output)];
    return uses;
  }

  const Plan plan_;
  const at::Device device_;
  const at::ScalarType dtype_;
  const bool allow_tf32_;
  std::vector<Layer> layers_;
};

// Throws ERR_SENET_DTYPE.
void check_computes(const Target& target) {
  const char* query = target.dtype == at::kHalf       ? "mkldnn::_is_mkldnn_fp16_supported"
                      : target.dtype == at::kBFloat16 ? "mkldnn::_is_mkldnn_bf16_supported"
                                                      : nullptr;
  if (target.device.is_cpu() && query != nullptr && !query_mkldnn(query)) {
    throw Error("ERR_SENET_DTYPE", std::string("compile: this processor has no ") + dtype_name(target.dtype) +
                                       " convolutions in oneDNN; use float32" +
                                       (target.dtype == at::kHalf ? " or bfloat16" : ""));
  }
}

}  // namespace

const char* aten_kernels_name(const Target& target) {
  check_computes(target);
  return target.device.is_cuda() ? "cuda" : at::Context::hasMKLDNN() ? "onednn" : "libtorch";
}

std::unique_ptr<const Program> make_aten_program(const Plan& plan, const Target& target) {
  check_computes(target);
  const auto& [device, dtype, allow_tf32] = target;
  return std::make_unique<const AtenProgram>(plan, device, dtype, allow_tf32);
}

}  // namespace senet::inference
