#include "inference/portable.h"

#include "core/error.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/round.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <limits>
#include <map>
#include <utility>

namespace senet::inference {
namespace {

// The largest bias of int8, in products of bytes: half of an int32's range, and less where so many products
// are summed that both together might not fit.
double largest_bias(const at::Tensor& weight) {
  const int64_t products = weight.numel() / weight.size(0);
  const double sum = 255.0 * 127.0 * static_cast<double>(products);
  return std::min<double>(1 << 30, std::numeric_limits<int32_t>::max() - sum);
}

// Always a copy: what a module holds may change.
at::Tensor stored(const at::Tensor& tensor, at::ScalarType dtype) {
  return tensor.defined() ? tensor.detach()
                                .to(at::TensorOptions(at::kCPU).dtype(dtype), /*non_blocking=*/false,
                                    /*copy=*/true)
                                .contiguous()
                          : tensor;
}

// From a plan to what a file holds of it.
class Exporting {
 public:
  Exporting(Plan plan, const PortableOptions& options)
      : plan_(std::move(plan)),
        options_(options),
        keeps_batch_norm_(options.keep_batch_norm && !options.quantization) {
    for (const PlanValue& value : plan_.values) {
      values_.push_back({value});
    }
  }

  PortableModel run() {
    std::optional<Fused> fused;
    if (options_.quantization) {
      fused = fuse_plan(plan_);
      take_bytes(*fused);
    }
    for (const Node& node : plan_.nodes) {
      const auto swapped = behind_convolution_.find(&node);
      if (swapped != behind_convolution_.end()) {
        add_swapped(node, *swapped->second);
      } else if (before_pool_.count(&node) == 0) {
        add(node);
      }
    }
    return {std::move(nodes_), std::move(values_), plan_.input, plan_.output, plan_.input_size};
  }

 private:
  // --- int8: what computes with bytes, and which values are bytes
  // -------------------------------------------------------------------------------------------------------

  void take_bytes(Fused& fused) {
    const QuantizationRecord& record = *options_.quantization;
    const std::vector<bool> byte_units = find_byte_units(plan_, fused, record.keep, record.keep_first);
    std::vector<const Node*> byte_nodes;
    for (size_t i = 0; i < byte_units.size(); ++i) {
      for (const Part& part : fused.units[i].parts) {
        if (byte_units[i]) {
          byte_nodes.push_back(part.node);
        }
      }
    }
    correct_biases(record, fused, byte_units, plan_);
    quantize_values(record, byte_units, fused);
    for (size_t i = 0; i < values_.size(); ++i) {
      values_[i].bytes = bytes_of(fused.values[i]);
    }
    for (const Unit& unit : fused.units) {
      for (const Part& part : unit.parts) {
        if (part.weights == Part::Weights::kNode) {
          take_convolution(fused, unit, part, byte_nodes);
        }
      }
      if (unit.kind == Unit::Kind::kPool && unit.bias != nullptr) {
        behind_convolution_[unit.node] = unit.bias;
        before_pool_[unit.bias] = bytes_of(fused.value(unit.inputs.front()));
      }
    }
  }

  void take_convolution(const Fused& fused, const Unit& unit, const Part& part,
                        const std::vector<const Node*>& byte_nodes) {
    const UnitValue& read = fused.value(unit.inputs.front());
    if (std::find(byte_nodes.begin(), byte_nodes.end(), part.node) != byte_nodes.end()) {
      input_scales_[part.node] = read.quantization.scale;
    }
    round(*part.node, 0, read);
    if (unit.residual == kNoValue) {
      return;
    }
    // The convolution does the work of the excitation behind it, which adds the residual.
    for (const Node& node : plan_.nodes) {
      if (node.output == part.output && node.inputs.size() > 1) {
        round(node, 1, fused.value(unit.residual));
      }
    }
  }

  void round(const Node& node, size_t input, const UnitValue& read) {
    if (read.same_as != kNoValue) {
      rounds_[{&node, input}] = bytes_of(read);
    }
  }

  static std::optional<Quantization> bytes_of(const UnitValue& value) {
    return value.precision == UnitValue::Precision::kByte ? std::optional(value.quantization) : std::nullopt;
  }

  // --- nodes
  // -------------------------------------------------------------------------------------------------------

  void add(const Node& source) {
    PortableNode made{source, {}};
    for (size_t i = 0; i < source.inputs.size(); ++i) {
      const auto found = rounds_.find({&source, i});
      made.rounds.push_back(found == rounds_.end() ? std::nullopt : found->second);
    }
    store(source, made);
    nodes_.push_back(std::move(made));
  }

  // An average pool and the pointwise convolution behind it, which the kernels of bytes compute the other way
  // round: the convolution without its bias, the pool, then bias and ReLU.
  void add_swapped(const Node& pool, const Node& convolution) {
    const int64_t channels = convolution.weight.size(0);
    const ValueId narrow = add_value({{channels, false}, before_pool_.at(&convolution)});
    const ValueId pooled = add_value({{channels, false}});
    add(convolution);
    PortableNode& first = nodes_.back();
    Node shift{Operation::kAffine, convolution.name, {pooled}, convolution.output, convolution.relu};
    shift.bias = stored(linearise(convolution).bias, at::kFloat);
    first.node.inputs = pool.inputs;
    first.node.output = narrow;
    first.node.relu = false;
    first.node.bias = first.bias_scale = at::Tensor();
    Node average = pool;
    average.inputs = {narrow};
    average.output = pooled;
    nodes_.push_back({std::move(average), {std::nullopt}});
    nodes_.push_back({std::move(shift), {std::nullopt}});
  }

  ValueId add_value(PortableValue value) {
    values_.push_back(value);
    return static_cast<ValueId>(values_.size() - 1);
  }

  // --- tensors
  // -------------------------------------------------------------------------------------------------------

  void store(const Node& source, PortableNode& made) const {
    Node& node = made.node;
    if (input_scales_.count(&source) != 0) {
      store_bytes(source, input_scales_.at(&source), made);
    } else if (source.weight.defined()) {
      Node whole = source;
      if (keeps_batch_norm_) {
        whole.batch_norm.reset();
      }
      const Linearised line = linearise(whole);
      node.weight = weight(line.product(), source);
      const bool has_bias = source.bias.defined() || whole.batch_norm || whole.affine;
      node.bias = has_bias ? stored(line.bias, at::kFloat) : at::Tensor();
    } else if (source.affine || (source.batch_norm && !keeps_batch_norm_)) {
      const Linearised line = linearise(source);
      node.weight = stored(line.weight, at::kFloat);
      node.bias = stored(line.bias, at::kFloat);
    }
    if (keeps_batch_norm_ && source.batch_norm) {
      for (at::Tensor* tensor : {&node.batch_norm->weight, &node.batch_norm->bias,
                                 &node.batch_norm->running_mean, &node.batch_norm->running_var}) {
        *tensor = stored(*tensor, at::kFloat);
      }
    } else {
      node.batch_norm.reset();
    }
    node.affine.reset();
    for (at::Tensor* tensor : {&node.squeeze_weight, &node.excite_weight, &node.channel_kernel}) {
      *tensor = weight(*tensor, source);
    }
    node.squeeze_bias = stored(source.squeeze_bias, at::kFloat);
    node.excite_bias = stored(source.excite_bias, at::kFloat);
  }

  at::Tensor weight(const at::Tensor& tensor, const Node& source) const {
    at::Tensor result = stored(tensor, options_.weights);
    if (options_.weights == at::kHalf && result.defined() && !at::isfinite(result).all().item<bool>()) {
      throw Error("ERR_SENET_EXPORT",
                  "'" + source.name + "': a weight is no number that float16 can hold (up to 65504)");
    }
    return result;
  }

  // BatchNorm's factors go to the scales. Where a bias is so many of their steps that no int32 holds it, the
  // steps become longer, and the weights, which are small beside it, rounder.
  static void store_bytes(const Node& source, double input_scale, PortableNode& made) {
    const Linearised line = linearise(source);
    at::Tensor scales = weight_scales(source.weight);
    at::Tensor whole = to_int8(source.weight, scales).to(at::kDouble);
    if (line.scale.defined()) {
      const at::Tensor factors = line.scale.flatten();
      whole = whole * factors.sign().reshape({-1, 1, 1, 1});
      scales = scales * factors.abs();
    }
    const bool has_bias = source.bias.defined() || source.batch_norm;
    if (has_bias) {
      const at::Tensor least = line.bias.abs() / (input_scale * largest_bias(source.weight));
      const at::Tensor longer = at::where(scales < least, least, scales);
      whole = at::round(whole * (scales / longer).reshape({-1, 1, 1, 1}));
      scales = longer;
    }
    const at::Tensor is_zero = scales < 1e-30;  // no number of float32's that a kernel divides by
    whole = at::where(is_zero.reshape({-1, 1, 1, 1}), at::zeros_like(whole), whole);
    scales = at::where(is_zero, at::ones_like(scales), scales).to(at::kFloat);
    made.node.weight = stored(whole, at::kChar);
    made.weight_scale = scales.contiguous();
    made.node.bias = at::Tensor();
    if (has_bias) {
      made.bias_scale = (scales * static_cast<float>(input_scale)).contiguous();
      made.node.bias = stored(at::round(line.bias / made.bias_scale.to(at::kDouble)), at::kInt);
    }
  }

  Plan plan_;
  const PortableOptions& options_;
  const bool keeps_batch_norm_;
  std::vector<PortableNode> nodes_;
  std::vector<PortableValue> values_;
  std::map<const Node*, double> input_scales_;  // of the convolutions that compute with bytes
  std::map<std::pair<const Node*, size_t>, std::optional<Quantization>> rounds_;
  std::map<const Node*, const Node*> behind_convolution_;           // pool -> convolution
  std::map<const Node*, std::optional<Quantization>> before_pool_;  // convolution -> the bytes between both
};

}  // namespace

PortableModel make_portable(const graph::Graph& graph, nn::InputSize input_size,
                            const PortableOptions& options) {
  const c10::AutoGradMode no_grad(false);
  Plan plan = make_plan(graph);
  plan.input_size = input_size;
  return Exporting(std::move(plan), options).run();
}

}  // namespace senet::inference
