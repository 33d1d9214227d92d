#include "inference/cpu/fuse.h"

#include "inference/cpu/steps.h"

#include <algorithm>
#include <utility>

namespace senet::inference {
namespace {

constexpr size_t kNoUnit = static_cast<size_t>(-1);

// A convolution that the kernels compute.
bool has_kernel(const Node& node) {
  const int64_t taps = node.window.kernel[0] * (node.groups == 1 ? 1 : node.window.kernel[1]);
  return node.operation == Operation::kConvolution && node.window.dilation == Size2{1, 1} && taps <= kMaxTaps;
}

bool is_pointwise(const Node& node) {
  return has_kernel(node) && node.groups == 1 && node.window.kernel == Size2{1, 1} &&
         node.window.padding == Size2{0, 0};
}

Activation activation_of(const Node& node) {
  return node.relu || node.operation == Operation::kRelu ? Activation::kRelu : Activation::kNone;
}

// Goes through the nodes once, in their order. A node whose work is taken over by a later one (the last
// convolution of a bottleneck, an average pool before a convolution) is passed over when its turn comes and
// done at the later one.
class Fusing {
 public:
  explicit Fusing(const Plan& plan)
      : plan_(plan),
        producers_(plan.values.size(), nullptr),
        uses_(plan.values.size(), 0),
        makers_(plan.values.size(), kNoUnit) {
    for (const Node& node : plan.nodes) {
      producers_[index(node.output)] = &node;
      for (const ValueId value : node.inputs) {
        ++uses_[index(value)];
      }
    }
    ++uses_[index(plan.output)];
    for (size_t i = 0; i < plan.values.size(); ++i) {
      const auto id = static_cast<ValueId>(i);
      result_.values.push_back({"%" + std::to_string(i), plan.channels(id), id,
                                UnitValue::Precision::kElement, plan.value(id).is_vector});
    }
  }

  Fused run() {
    add({Unit::Kind::kLoad, "input", {}, plan_.input});
    for (const Node& node : plan_.nodes) {
      fuse(node);
    }
    add({Unit::Kind::kStore, "output", {plan_.output}});
    return std::move(result_);
  }

 private:
  void fuse(const Node& node) {
    switch (node.operation) {
      case Operation::kConvolution:
        if (!has_kernel(node)) {
          add_operator(node, Unit::Kind::kOperator);
        } else if (excitation_of(node) == nullptr) {
          convolution(node);
        }
        return;
      case Operation::kAveragePool:
        if (convolution_after(node) == nullptr) {
          add(pool_of(node, node.inputs.front(), node.output));
        }
        return;
      case Operation::kMaxPool:
        add(pool_of(node, node.inputs.front(), node.output));
        return;
      case Operation::kSqueezeExcite:
        squeeze_excite(node);
        return;
      case Operation::kAffine:
      case Operation::kRelu:
      case Operation::kAdd:
        add_scale(scale_of(node));
        return;
      case Operation::kGlobalAveragePool:
        add_mean(node.inputs.front(), node.name, node.output);
        result_.values[index(node.output)].size_of = kNoValue;
        return;
      case Operation::kLinear:
        linear(node);
        return;
      case Operation::kConcatenate:
        add_operator(node, Unit::Kind::kConcatenate);
        return;
      case Operation::kOperator:
        add_operator(node, Unit::Kind::kOperator);
        return;
    }
  }

  // --- what stands beside what
  // -------------------------------------------------------------------------------------------------------

  // The only reader of a value, if it has one reader.
  const Node* only_reader(ValueId value) const {
    if (uses_[index(value)] != 1) {
      return nullptr;
    }
    for (const Node& node : plan_.nodes) {
      if (std::find(node.inputs.begin(), node.inputs.end(), value) != node.inputs.end()) {
        return &node;
      }
    }
    return nullptr;
  }

  // The convolution that an average pool may swap places with.
  const Node* convolution_after(const Node& pool) const {
    const Node* next = pool.operation == Operation::kAveragePool ? only_reader(pool.output) : nullptr;
    const bool swaps = next != nullptr && is_pointwise(*next) && next->window.stride == Size2{1, 1} &&
                       next->weight.size(0) < next->weight.size(1);
    return swaps ? next : nullptr;
  }

  // The node that does a convolution's work because it scales what that gives: the mean of its output can be
  // had from the mean of its input, summed as that was made.
  const Node* excitation_of(const Node& node) const {
    const Node* reader = only_reader(node.output);
    if (reader == nullptr || !has_kernel(node) || !may_come_first(*reader, node)) {
      return nullptr;
    }
    const Node* before = producers_[index(node.inputs.front())];
    return before != nullptr && has_kernel(*before) && excitation_of(*before) == nullptr ? reader : nullptr;
  }

  bool is_only_averaged(ValueId value) const {
    const Node* reader = only_reader(value);
    return reader != nullptr && reader->operation == Operation::kGlobalAveragePool;
  }

  // Whether a later node may want the sums of this value.
  bool may_be_summed(ValueId value) const {
    return std::any_of(plan_.nodes.begin(), plan_.nodes.end(), [&](const Node& node) {
      return !node.inputs.empty() && node.inputs.front() == value &&
             (node.operation == Operation::kSqueezeExcite ||
              node.operation == Operation::kGlobalAveragePool ||
              (node.operation == Operation::kConvolution && excitation_of(node) != nullptr));
    });
  }

  // --- convolutions
  // -------------------------------------------------------------------------------------------------------

  void convolution(const Node& node) {
    const Node* before = producers_[index(node.inputs.front())];
    if (before != nullptr && convolution_after(*before) == &node) {
      pooled_convolution(*before, node);
      return;
    }
    size_t at = sibling_of(node);
    if (at == kNoUnit) {
      Unit unit{Unit::Kind::kConvolution, node.name, node.inputs};
      unit.window = node.window;
      at = add(std::move(unit));
    }
    result_.units[at].parts.push_back({&node, node.output, activation_of(node)});
    makers_[index(node.output)] = at;
  }

  // A convolution of the same input through the same window of one pixel, which takes this one's channels
  // too. One whose output is summed has no others.
  size_t sibling_of(const Node& node) const {
    if (!is_pointwise(node)) {
      return kNoUnit;
    }
    for (size_t i = 0; i < result_.units.size(); ++i) {
      const Unit& unit = result_.units[i];
      if (unit.kind == Unit::Kind::kConvolution && unit.inputs == node.inputs &&
          is_pointwise(*unit.parts.front().node) && unit.parts.front().has_bias &&
          unit.window.stride == node.window.stride && unit.scale == kNoValue &&
          !may_be_summed(unit.parts.front().output)) {
        return i;
      }
    }
    return kNoUnit;
  }

  // Convolution without bias, then the average, then bias and ReLU. The zeros of the padding stay zeros.
  void pooled_convolution(const Node& pool, const Node& node) {
    const ValueId read = pool.inputs.front();
    const ValueId narrow = add_value({node.name + " before " + pool.name, node.weight.size(0), read});
    Unit unit{Unit::Kind::kConvolution, node.name, {read}};
    unit.window = node.window;
    unit.parts = {{&node, narrow, Activation::kNone, /*has_bias=*/false}};
    add(std::move(unit));
    Unit average = pool_of(pool, narrow, node.output);
    average.bias = &node;
    average.activation = activation_of(node);
    add(std::move(average));
  }

  void linear(const Node& node) {
    // The logits stay float32 in a bfloat16 program.
    result_.values[index(node.output)].precision = UnitValue::Precision::kFloat;
    result_.values[index(node.output)].size_of = kNoValue;
    add_dense(node.name, node.inputs.front(), {&node, node.output, activation_of(node)});
  }

  void add_dense(const std::string& name, ValueId input, Part part) {
    Unit unit{Unit::Kind::kConvolution, name, {input}};
    unit.parts = {std::move(part)};
    add(std::move(unit));
  }

  // --- squeeze and excitation
  // -------------------------------------------------------------------------------------------------------

  void squeeze_excite(const Node& node) {
    const ValueId x = node.inputs.front();
    const Node* before = producers_[index(x)];
    if (before == nullptr || excitation_of(*before) == nullptr) {
      const ValueId scale = excite(node, x, nullptr);
      Unit unit = scale_of(node);
      unit.scale = scale;
      add_scale(std::move(unit));
      return;
    }
    const ValueId scale = excite(node, before->inputs.front(), before);
    Unit unit{Unit::Kind::kConvolution, before->name, before->inputs};
    unit.window = before->window;
    unit.parts = {{before, node.output, activation_of(node)}};
    unit.scale = scale;
    unit.residual = node.inputs.size() > 1 ? node.inputs[1] : kNoValue;
    makers_[index(node.output)] = add(std::move(unit));
  }

  // sigmoid(w2 . relu(w1 . mean + b1) + b2), or of a convolution along the channels, all in float32.
  ValueId excite(const Node& node, ValueId squeezed, const Node* through) {
    const auto add_vector = [&](const char* what, int64_t channels) {
      return add_value(
          {what + node.name, channels, kNoValue, UnitValue::Precision::kFloat, /*is_vector=*/true});
    };
    const ValueId mean = add_mean(squeezed, node.name, add_vector("mean of ", plan_.channels(squeezed)));
    if (node.channel_kernel.defined()) {
      const ValueId gate = add_vector("scale ", plan_.channels(squeezed));
      add({Unit::Kind::kChannelGate, node.squeeze_name, {mean}, gate, &node});
      return gate;
    }
    const ValueId hidden = add_vector("hidden of ", node.squeeze_weight.size(0));
    const ValueId scale = add_vector("scale ", node.excite_weight.size(0));
    add_dense(node.squeeze_name, mean,
              {&node, hidden, Activation::kRelu, /*has_bias=*/true, Part::Weights::kSqueeze, through});
    add_dense(node.excite_name, hidden,
              {&node, scale, Activation::kSigmoid, /*has_bias=*/true, Part::Weights::kExcite});
    return scale;
  }

  // The mean of a value per channel: summed by the unit that made it if that has it in registers, else by a
  // pass.
  ValueId add_mean(ValueId value, const std::string& name, ValueId mean) {
    const ValueId sums =
        add_value({"sums of " + name, plan_.channels(value), kNoValue, UnitValue::Precision::kSums});
    const size_t maker = makers_[index(value)];
    Unit* const unit = maker == kNoUnit ? nullptr : &result_.units[maker];
    if (unit != nullptr && unit->sums == kNoValue && unit->parts.size() <= 1) {
      unit->sums = sums;
      unit->stores = !is_only_averaged(value);
    } else {
      Unit pass{Unit::Kind::kScale, name, {value}};
      pass.sums = sums;
      add(std::move(pass));
    }
    Unit of_sums{Unit::Kind::kMean, name, {sums}, mean};
    of_sums.of = value;
    add(std::move(of_sums));
    return mean;
  }

  // --- the rest
  // -------------------------------------------------------------------------------------------------------

  // Of what changes each element of its first input.
  static Unit scale_of(const Node& node) {
    Unit unit{Unit::Kind::kScale, node.name, {node.inputs.front()}, node.output, &node};
    unit.residual = node.inputs.size() > 1 ? node.inputs[1] : kNoValue;
    unit.activation = activation_of(node);
    return unit;
  }

  void add_scale(Unit unit) {
    const ValueId output = unit.output;
    makers_[index(output)] = add(std::move(unit));
  }

  static Unit pool_of(const Node& node, ValueId input, ValueId output) {
    Unit unit{Unit::Kind::kPool, node.name, {input}, output, &node};
    unit.window = node.window;
    return unit;
  }

  void add_operator(const Node& node, Unit::Kind kind) {
    Unit unit{kind, node.name, node.inputs, node.output, &node};
    unit.activation = activation_of(node);
    add(std::move(unit));
  }

  size_t add(Unit unit) {
    result_.units.push_back(std::move(unit));
    return result_.units.size() - 1;
  }

  ValueId add_value(UnitValue value) {
    result_.values.push_back(std::move(value));
    return static_cast<ValueId>(result_.values.size() - 1);
  }

  static size_t index(ValueId value) {
    return static_cast<size_t>(value);
  }

  const Plan& plan_;
  std::vector<const Node*> producers_;
  std::vector<int32_t> uses_;
  std::vector<size_t> makers_;  // of each value of the plan, the unit that has it in registers
  Fused result_;
};

}  // namespace

Fused fuse_plan(const Plan& plan) {
  return Fusing(plan).run();
}

std::vector<ValueId> reads_of(const Unit& unit) {
  std::vector<ValueId> result = unit.inputs;
  for (const ValueId value : {unit.scale, unit.residual}) {
    if (value != kNoValue) {
      result.push_back(value);
    }
  }
  return result;
}

std::vector<ValueId> writes_of(const Unit& unit) {
  std::vector<ValueId> result;
  if (unit.sums != kNoValue) {
    result.push_back(unit.sums);
  }
  if (unit.stores && unit.output != kNoValue) {
    result.push_back(unit.output);
  }
  for (const Part& part : unit.parts) {
    if (unit.stores) {
      result.push_back(part.output);
    }
  }
  return result;
}

std::vector<std::string> extras_of(const Fused& fused, const Unit& unit) {
  std::vector<std::string> result;
  const auto has = [&](Activation activation) {
    return unit.activation == activation ||
           std::any_of(unit.parts.begin(), unit.parts.end(),
                       [&](const Part& part) { return part.activation == activation; });
  };
  if (unit.bias != nullptr) {
    result.push_back("bias");
  }
  if (unit.kind == Unit::Kind::kConvolution && unit.scale != kNoValue) {
    result.push_back(fused.value(unit.scale).name);
  }
  if (unit.residual != kNoValue) {
    result.push_back("residual");
  }
  if (has(Activation::kRelu)) {
    result.push_back("relu");
  }
  if (has(Activation::kSigmoid)) {
    result.push_back("sigmoid");
  }
  for (size_t i = 1; i < unit.parts.size(); ++i) {
    result.push_back(unit.parts[i].node->name);
  }
  if (unit.sums != kNoValue && (unit.output != kNoValue || !unit.parts.empty())) {
    result.push_back(fused.value(unit.sums).name);
  }
  return result;
}

}  // namespace senet::inference
