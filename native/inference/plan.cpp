#include "inference/plan.h"

#include "core/error.h"

#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <utility>

namespace senet::inference {
namespace {

// Always a copy.
at::Tensor to_float64(const at::Tensor& tensor) {
  return tensor.detach().to(at::TensorOptions(at::kCPU).dtype(at::kDouble), /*non_blocking=*/false,
                            /*copy=*/true);
}

// Of one value for one image. Whoever computes with sizes needs no check for overflow; an expanded tensor may
// be described as larger than any memory.
constexpr int64_t kMostElements = int64_t{1} << 40;

int64_t window_count(int64_t size, const Node& node, size_t axis) {
  const graph::Window& window = node.window;
  const int64_t extent = window.dilation[axis] * (window.kernel[axis] - 1) + 1;
  const int64_t count =
      graph::window_count(size, extent, window.stride[axis], window.padding[axis], node.ceil_mode);
  if (count < 1) {
    throw Error("ERR_SENET_SHAPE", "'" + node.name + "' has a window of " + std::to_string(extent) +
                                       ", its input is only " +
                                       std::to_string(size + 2 * window.padding[axis]) + " with padding");
  }
  return count;
}

// The shape of a value for one image.
graph::Shape shape_of(const Plan& plan, ValueId value, const std::vector<Size2>& sizes) {
  const Size2& size = sizes[static_cast<size_t>(value)];
  return plan.value(value).is_vector ? graph::Shape{1, plan.channels(value)}
                                     : graph::Shape{1, plan.channels(value), size[0], size[1]};
}

Size2 infer_operator(const Plan& plan, const Node& node, const std::vector<Size2>& sizes) {
  std::vector<graph::Shape> shapes;
  for (const ValueId input : node.inputs) {
    shapes.push_back(shape_of(plan, input, sizes));
  }
  const std::vector<at::IntArrayRef> inputs(shapes.begin(), shapes.end());
  graph::check_shapes(*node.other, inputs, node.name);
  const graph::Shape shape = graph::output_shape(*node.other, inputs);
  if (shape[1] != plan.channels(node.output)) {
    throw Error("ERR_SENET_SHAPE", "'" + node.name + "' gives " + std::to_string(shape[1]) +
                                       " features for an image of this size; what reads them takes " +
                                       std::to_string(plan.channels(node.output)));
  }
  return shape.size() == 4 ? Size2{shape[2], shape[3]} : Size2{1, 1};
}

}  // namespace

at::Tensor Linearised::product() const {
  const at::Tensor whole = to_float64(weight);
  return scale.defined() ? whole * scale : whole;
}

at::Tensor Linearised::product(int64_t first, int64_t count, int64_t first_input, int64_t inputs) const {
  at::Tensor rows = to_float64(weight.narrow(0, first, count).narrow(1, first_input, inputs)).contiguous();
  return scale.defined() ? rows.mul_(scale.narrow(0, first, count)) : rows;
}

Linearised linearise(const Node& node) {
  const at::TensorOptions options = at::TensorOptions(at::kCPU).dtype(at::kDouble);
  Linearised result;
  if (node.weight.defined()) {
    result.weight = node.weight.detach();
    result.bias = node.bias.defined() ? to_float64(node.bias) : at::zeros({node.weight.size(0)}, options);
  }
  if (node.batch_norm) {
    const graph::BatchNorm& bn = *node.batch_norm;
    const at::Tensor scale = to_float64(bn.weight) / (to_float64(bn.running_var) + bn.eps).sqrt();
    const at::Tensor shift = to_float64(bn.bias) - to_float64(bn.running_mean) * scale;
    if (node.weight.defined()) {
      result.scale = scale.reshape({-1, 1, 1, 1});
      result.bias = result.bias * scale + shift;
    } else {
      result = {scale, {}, shift};
    }
  }
  if (node.affine) {
    const at::Tensor scale = at::tensor(node.affine->scale, options);
    const at::Tensor shift = at::tensor(node.affine->shift, options);
    if (!node.weight.defined()) {
      return {scale, {}, shift};
    }
    // Of the input's channels: without padding it moves into the weights.
    const at::Tensor folded = result.product();
    result.bias = result.bias + (folded * shift.reshape({1, -1, 1, 1})).sum(at::IntArrayRef{1, 2, 3});
    result.weight = folded * scale.reshape({1, -1, 1, 1});
    result.scale = at::Tensor();
  }
  return result;
}

Plan without_tensors(const Plan& plan) {
  Plan result = plan;
  for (Node& node : result.nodes) {
    for (at::Tensor* tensor : {&node.weight, &node.bias, &node.squeeze_weight, &node.squeeze_bias,
                               &node.excite_weight, &node.excite_bias, &node.channel_kernel}) {
      *tensor = at::Tensor();
    }
    node.batch_norm.reset();
  }
  return result;
}

std::vector<Size2> infer_sizes(const Plan& plan, Size2 input) {
  int64_t widest = 1;
  for (const PlanValue& value : plan.values) {
    widest = std::max(widest, value.channels);
  }
  if (input[0] > kMostElements / widest / input[1]) {
    throw Error("ERR_SENET_SHAPE", "an image of " + std::to_string(input[0]) + " x " +
                                       std::to_string(input[1]) + " is too large for any memory");
  }
  std::vector<Size2> sizes(plan.values.size(), Size2{0, 0});
  const auto of = [&](ValueId value) -> Size2& { return sizes[static_cast<size_t>(value)]; };
  of(plan.input) = input;
  for (const Node& node : plan.nodes) {
    Size2 size = of(node.inputs.front());
    switch (node.operation) {
      case Operation::kConvolution:
      case Operation::kMaxPool:
      case Operation::kAveragePool:
        for (const size_t axis : {0, 1}) {
          size[axis] = window_count(size[axis], node, axis);
        }
        break;
      case Operation::kGlobalAveragePool:
        size = {1, 1};
        break;
      case Operation::kSqueezeExcite:
      case Operation::kAdd:
        if (node.inputs.size() > 1 && of(node.inputs[1]) != size) {
          throw Error("ERR_SENET_SHAPE",
                      "'" + node.name + "': the residual is " + std::to_string(of(node.inputs[1])[0]) +
                          " x " + std::to_string(of(node.inputs[1])[1]) + " and the block's output " +
                          std::to_string(size[0]) + " x " + std::to_string(size[1]));
        }
        break;
      case Operation::kConcatenate:
        for (const ValueId part : node.inputs) {
          if (of(part) != size) {
            throw Error("ERR_SENET_SHAPE", "'" + node.name + "': its branches have different sizes");
          }
        }
        break;
      case Operation::kOperator:
        size = infer_operator(plan, node, sizes);
        break;
      case Operation::kAffine:
      case Operation::kRelu:
      case Operation::kLinear:
        break;
    }
    of(node.output) = size;
  }
  return sizes;
}

bool may_come_first(const Node& excitation, const Node& convolution) {
  const graph::Window& window = convolution.window;
  const bool is_linear = convolution.operation == Operation::kConvolution && !convolution.relu &&
                         convolution.groups == 1 && window.kernel == Size2{1, 1} &&
                         window.stride == Size2{1, 1} && window.padding == Size2{0, 0};
  return is_linear && excitation.operation == Operation::kSqueezeExcite &&
         !excitation.channel_kernel.defined() && excitation.inputs.front() == convolution.output;
}

const char* operation_name(const Node& node) {
  switch (node.operation) {
    case Operation::kConvolution:
      return "convolution";
    case Operation::kAffine:
      return "affine";
    case Operation::kSqueezeExcite:
      return "squeeze_excite";
    case Operation::kAdd:
      return "add";
    case Operation::kRelu:
      return "relu";
    case Operation::kMaxPool:
      return "max_pool";
    case Operation::kAveragePool:
      return "average_pool";
    case Operation::kGlobalAveragePool:
      return "global_average_pool";
    case Operation::kConcatenate:
      return "concatenate";
    case Operation::kLinear:
      return "linear";
    case Operation::kOperator:
      return graph::operation_name(*node.other);
  }
  return "?";
}

}  // namespace senet::inference
