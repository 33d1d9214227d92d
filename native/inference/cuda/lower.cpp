#include "inference/cuda/lower.h"

#include <ATen/ops/zeros.h>

#include <algorithm>
#include <utility>

namespace senet::inference::cuda {
namespace {

// Channels of a value come in vectors of eight elements where nobody else decides.
constexpr int64_t kVector = 8;
// Images of three channels are made so wide: the least that matrix units take.
constexpr int64_t kImageVector = 4;

int64_t round_up(int64_t count, int64_t to) {
  return (count + to - 1) / to * to;
}

class Lowering {
 public:
  Lowering(const Plan& plan, Type type, at::Device device)
      : plan_(plan),
        options_(at::TensorOptions(device).dtype(scalar_type(type))),
        producers_(plan.values.size(), nullptr),
        readers_(plan.values.size()) {
    for (const Node& node : plan.nodes) {
      producers_[index(node.output)] = &node;
      for (const ValueId value : node.inputs) {
        readers_[index(value)].push_back(&node);
      }
    }
    for (size_t i = 0; i < plan.values.size(); ++i) {
      const int64_t channels = plan.channels(static_cast<ValueId>(i));
      const bool is_vector = plan.values[i].is_vector;
      steps().values.push_back(
          {"%" + std::to_string(i), channels, channels, is_vector ? kNone : static_cast<Id>(i)});
    }
    steps().input = static_cast<Id>(plan.input);
    steps().output = static_cast<Id>(plan.output);
  }

  Lowered run() {
    pad_input();
    for (const Node& node : plan_.nodes) {
      lower_node(node);
    }
    return std::move(result_);
  }

 private:
  void lower_node(const Node& node) {
    switch (node.operation) {
      case Operation::kConvolution:
        if (excitation_of(node) == nullptr) {
          add(convolution(node, id(node.output), node.relu));
        }
        return;
      case Operation::kLinear:
        linear(node);
        return;
      case Operation::kSqueezeExcite:
        squeeze_excite(node);
        return;
      case Operation::kAffine:
      case Operation::kAdd:
      case Operation::kRelu:
        pointwise(node);
        return;
      case Operation::kMaxPool:
      case Operation::kAveragePool:
        pool(node);
        return;
      case Operation::kGlobalAveragePool: {
        steps().values[index(node.output)].size_of = kNone;
        Step means = excite_step(node, add_mean(node, id(node.inputs.front())), id(node.output));
        add(std::move(means));
        return;
      }
      case Operation::kConcatenate:
        add(step_of(node, Step::Kind::kConcatenate));
        return;
      case Operation::kOperator:
        add(step_of(node, Step::Kind::kOperator));
        return;
    }
  }

  // --- what stands beside what
  // ------------------------------------------------------------------------------

  // The node that scales what a convolution gives, if the convolution may wait for it.
  const Node* excitation_of(const Node& node) const {
    const auto& readers = readers_[index(node.output)];
    const bool is_read_once = readers.size() == 1 && node.output != plan_.output;
    return is_read_once && may_come_first(*readers.front(), node) ? readers.front() : nullptr;
  }

  // Images get channels of zeros up to what matrix units take, if only convolutions of all channels read
  // them.
  void pad_input() {
    const auto& readers = readers_[index(plan_.input)];
    const bool only_convolutions = std::all_of(readers.begin(), readers.end(), [&](const Node* reader) {
      return reader->operation == Operation::kConvolution && reader->groups == 1;
    });
    Value& input = steps().values[index(plan_.input)];
    if (only_convolutions && plan_.input != plan_.output) {
      input.pitch = input.channels <= kImageVector ? kImageVector : round_up(input.channels, kVector);
    }
  }

  // --- convolutions
  // -----------------------------------------------------------------------------------------

  Step convolution(const Node& node, Id output, bool relu) {
    const Linearised linear = linearise(node);
    at::Tensor weight = linear.product();
    Step step = step_of(node, Step::Kind::kConvolution);
    step.output = output;
    step.relu = relu;
    step.kernel = node.window.kernel;
    step.stride = node.window.stride;
    step.padding = node.window.padding;
    step.dilation = node.window.dilation;
    step.groups = node.groups;
    set_weights(step, weight, linear.bias);
    return step;
  }

  // Of out x in / groups x height x width; channels that the input was padded with get zeros.
  void set_weights(Step& step, at::Tensor weight, const at::Tensor& bias) {
    const int64_t inputs = steps().value(step.inputs.front()).pitch;
    if (step.groups == 1 && weight.size(1) < inputs) {
      at::Tensor wide = at::zeros({weight.size(0), inputs, weight.size(2), weight.size(3)}, weight.options());
      wide.narrow(1, 0, weight.size(1)).copy_(weight);
      weight = wide;
    }
    step.weight = keep(weight.permute({0, 2, 3, 1}), step);
    step.bias = keep(bias, step);
    step.shift = keep_floats(bias, step);
  }

  // A 1 x 1 convolution of a vector. The logits' channels are padded to whole vectors.
  void linear(const Node& node) {
    const Linearised linear = linearise(node);
    at::Tensor weight = linear.product();
    at::Tensor bias = linear.bias;
    Value& output = steps().values[index(node.output)];
    output.size_of = kNone;
    if (node.output == plan_.output && readers_[index(node.output)].empty()) {
      output.pitch = round_up(output.channels, kVector);
      const int64_t more = output.pitch - output.channels;
      weight = at::constant_pad_nd(weight, {0, 0, 0, more});
      bias = at::constant_pad_nd(bias, {0, more});
    }
    Step step = step_of(node, Step::Kind::kConvolution);
    step.relu = node.relu;
    set_weights(step, weight.unsqueeze(-1).unsqueeze(-1), bias);
    add(std::move(step));
  }

  // --- squeeze and excitation
  // -------------------------------------------------------------------------------

  void squeeze_excite(const Node& node) {
    const ValueId x = node.inputs.front();
    const Node* before = producers_[index(x)];
    const bool is_early = before != nullptr && excitation_of(*before) == &node;
    const Id squeezed = id(is_early ? before->inputs.front() : x);
    const Id factors = add_value({"factors of " + node.name, plan_.channels(x), plan_.channels(x)});
    Step excite = excite_step(node, add_mean(node, squeezed), factors);
    if (node.channel_kernel.defined()) {
      excite.channel_kernel = keep_floats(node.channel_kernel.detach(), excite);
      excite.kernel_size = node.channel_kernel.numel();
    } else {
      at::Tensor w1 = to_double(node.squeeze_weight);
      at::Tensor b1 =
          node.squeeze_bias.defined() ? to_double(node.squeeze_bias) : at::zeros({w1.size(0)}, w1.options());
      if (is_early) {
        const Linearised through = linearise(*before);
        b1 = b1 + w1.matmul(through.bias);
        w1 = w1.matmul(through.product().flatten(1));
      }
      const at::Tensor w2 = to_double(node.excite_weight);
      const at::Tensor b2 =
          node.excite_bias.defined() ? to_double(node.excite_bias) : at::zeros({w2.size(0)}, w2.options());
      excite.hidden = w1.size(0);
      excite.w1 = keep(w1, excite);
      excite.b1 = keep_floats(b1, excite);
      excite.w2 = keep(w2, excite);
      excite.b2 = keep_floats(b2, excite);
    }
    add(std::move(excite));
    Step scaled =
        is_early ? convolution(*before, id(node.output), node.relu) : step_of(node, Step::Kind::kPointwise);
    scaled.inputs.resize(1);
    scaled.factors = factors;
    scaled.residual = node.inputs.size() > 1 ? id(node.inputs[1]) : kNone;
    add(std::move(scaled));
  }

  Id add_mean(const Node& node, Id squeezed) {
    const int64_t channels = steps().value(squeezed).channels;
    const Id parts = add_value({"means of " + node.name, channels, channels, kNone, Value::Kind::kParts});
    Step mean{Step::Kind::kMean, node.name, {squeezed}, parts};
    add(std::move(mean));
    return parts;
  }

  static Step excite_step(const Node& node, Id parts, Id factors) {
    return {Step::Kind::kExcite, node.name, {parts}, factors};
  }

  // --- the rest
  // ---------------------------------------------------------------------------------------------

  void pointwise(const Node& node) {
    Step step = step_of(node, Step::Kind::kPointwise);
    step.inputs.resize(1);
    step.residual = node.inputs.size() > 1 ? id(node.inputs[1]) : kNone;
    step.relu = node.relu || node.operation == Operation::kRelu;
    if (node.operation == Operation::kAffine) {
      const Linearised linear = linearise(node);
      step.scale = keep_floats(linear.product(), step);
      step.shift = keep_floats(linear.bias, step);
    }
    add(std::move(step));
  }

  void pool(const Node& node) {
    Step step = step_of(node, Step::Kind::kPool);
    step.kernel = node.window.kernel;
    step.stride = node.window.stride;
    step.padding = node.window.padding;
    step.is_max = node.operation == Operation::kMaxPool;
    step.count_include_pad = node.count_include_pad;
    add(std::move(step));
  }

  Step step_of(const Node& node, Step::Kind kind) const {
    Step step{kind, node.name, {}, id(node.output)};
    for (const ValueId input : node.inputs) {
      step.inputs.push_back(id(input));
    }
    step.relu = node.relu;
    step.node = static_cast<size_t>(&node - plan_.nodes.data());
    return step;
  }

  static at::Tensor to_double(const at::Tensor& tensor) {
    return tensor.detach().to(at::TensorOptions(at::kCPU).dtype(at::kDouble));
  }

  // On the device, of the element type or float32.
  const void* keep(const at::Tensor& tensor, Step& step) {
    return keep_as(tensor, options_, step);
  }
  const float* keep_floats(const at::Tensor& tensor, Step& step) {
    return static_cast<const float*>(keep_as(tensor, options_.dtype(at::kFloat), step));
  }
  const void* keep_as(const at::Tensor& tensor, const at::TensorOptions& options, Step& step) {
    const at::Tensor kept = tensor.contiguous().to(options, /*non_blocking=*/false, /*copy=*/true);
    result_.weights.push_back(kept);
    step.weight_bytes += static_cast<int64_t>(kept.nbytes());
    return kept.const_data_ptr();
  }

  Id add_value(Value value) {
    steps().values.push_back(std::move(value));
    return static_cast<Id>(steps().values.size() - 1);
  }

  void add(Step step) {
    steps().steps.push_back(std::move(step));
  }

  Steps& steps() {
    return result_.steps;
  }

  template <class Any>
  static size_t index(Any value) {
    return static_cast<size_t>(value);
  }
  static Id id(ValueId value) {
    return static_cast<Id>(value);
  }

  const Plan& plan_;
  const at::TensorOptions options_;
  std::vector<const Node*> producers_;
  std::vector<std::vector<const Node*>> readers_;  // of each value, once for each reading
  Lowered result_;
};

}  // namespace

at::ScalarType scalar_type(Type type) {
  return type == Type::kHalf ? at::kHalf : type == Type::kBFloat16 ? at::kBFloat16 : at::kFloat;
}

Lowered lower(const Plan& plan, Type type, at::Device device) {
  return Lowering(plan, type, device).run();
}

}  // namespace senet::inference::cuda
