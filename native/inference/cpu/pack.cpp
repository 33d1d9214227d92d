#include "inference/cpu/pack.h"

#include "inference/cpu/packing.h"
#include "inference/cpu/quantize.h"
#include "inference/cpu/winograd.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <iterator>
#include <utility>

namespace senet::inference {
namespace {

// Of the second-level cache of a present server core, 1 MiB and more.
constexpr int64_t kMostPanelBytes = 704 * 1024;

// Writes some of the program's weights, once it is known how many there are; to where they begin.
using Packing = std::function<void(uint8_t*)>;

// What a part of a convolution computes. `prepare`, if given, makes the weight and runs before it is packed.
struct Source {
  Linearised linear;
  std::function<void()> prepare = {};
};

// The padded vector of a kernel's operand.
std::vector<float> to_floats(const at::Tensor& vector) {
  const at::Tensor values = vector.to(at::kFloat).contiguous();
  std::vector<float> result(static_cast<size_t>(padded_channels(values.numel())), 0.0f);
  std::copy_n(values.const_data_ptr<float>(), values.numel(), result.begin());
  return result;
}

// Of a linear layer that may have none.
at::Tensor to_bias(const at::Tensor& bias, const at::Tensor& weight) {
  return bias.defined() ? bias.detach().to(at::kDouble, /*non_blocking=*/false, /*copy=*/true)
                        : at::zeros({weight.size(0)}, at::kDouble);
}

// A linear layer as a 1 x 1 convolution.
Linearised as_convolution(const at::Tensor& weight, const at::Tensor& bias) {
  return {weight.reshape({weight.size(0), weight.size(1), 1, 1}), {}, bias};
}

// squeeze . (the convolution before it).
Source squeeze_through(const Node& node, const Node& before, const Kernels& kernels) {
  const at::Tensor squeeze = node.squeeze_weight.detach();
  const Linearised last = linearise(before);
  const at::Tensor product = at::empty({squeeze.size(0), last.weight.size(1)}, at::kDouble);
  const at::Tensor bias =
      at::matmul(squeeze.to(at::kDouble), last.bias) + to_bias(node.squeeze_bias, squeeze);
  return {as_convolution(product, bias), [=, &kernels] {
            product.zero_();
            add_product(squeeze, last, kernels, product);
          }};
}

Source source_of(const Part& part, const Kernels& kernels) {
  const Node& node = *part.node;
  switch (part.weights) {
    case Part::Weights::kSqueeze:
      if (part.through != nullptr) {
        return squeeze_through(node, *part.through, kernels);
      }
      return {as_convolution(node.squeeze_weight.detach(), to_bias(node.squeeze_bias, node.squeeze_weight))};
    case Part::Weights::kExcite:
      return {as_convolution(node.excite_weight.detach(), to_bias(node.excite_bias, node.excite_weight))};
    case Part::Weights::kNode:
      break;
  }
  Linearised linear = linearise(node);
  if (node.operation == Operation::kLinear) {
    return {as_convolution(linear.weight, linear.bias)};
  }
  if (!part.has_bias) {
    linear.bias = at::zeros_like(linear.bias);
  }
  return {std::move(linear)};
}

class StepMaker {
 public:
  StepMaker(const Fused& fused, const Placed& placed, const Kernels& kernels, bool is_float)
      : fused_(fused),
        placed_(placed),
        kernels_(kernels),
        element_kernels_(is_float ? kernels.float32 : kernels.bfloat16) {}

  Steps run() {
    for (size_t i = 0; i < fused_.units.size(); ++i) {
      const Unit& unit = fused_.units[i];
      if (std::unique_ptr<Step> step = make(unit)) {
        step->name = unit.name;
        step->fused = extras_of(fused_, unit);
        step->clears = placed_.clears[i];
        step->takes = operands({unit.inputs.empty() ? kNoValue : unit.inputs.front(), unit.residual});
        step->gives = operands(writes_of(unit));
        steps_.push_back(std::move(step));
      }
    }
    pack_weights();
    return std::move(steps_);
  }

 private:
  // Null where nothing is left to do.
  std::unique_ptr<Step> make(const Unit& unit) {
    switch (unit.kind) {
      case Unit::Kind::kLoad:
        return make_load(unit);
      case Unit::Kind::kConvolution:
        return make_convolution(unit);
      case Unit::Kind::kScale:
        return make_scale(unit);
      case Unit::Kind::kPool:
        return make_pool(unit);
      case Unit::Kind::kMean:
        return make_mean(unit);
      case Unit::Kind::kChannelGate:
        return make_channel_gate(unit);
      case Unit::Kind::kConcatenate:
        return placed_.is_in_place(unit) ? nullptr : make_operator(unit, graph::Concatenate{});
      case Unit::Kind::kOperator:
        return make_operator(unit, operation_of(*unit.node));
      case Unit::Kind::kStore:
        return make_store(unit);
    }
    return nullptr;
  }

  const ElementKernels* kernels_of(const Unit& unit) const {
    return is_of_bytes(fused_, unit) ? kernels_.bytes : element_kernels_;
  }

  BufferId buffer_of(ValueId value) const {
    return placed_.place(value).buffer;
  }

  // --- convolutions
  // -------------------------------------------------------------------------------------------------------

  std::unique_ptr<Step> make_convolution(const Unit& unit) {
    auto step = std::make_unique<ConvolutionStep>();
    const Element element = placed_.buffer(unit.inputs.front()).element;
    const bool is_float = element == Element::kFloat;
    step->kernels = kernels_.of(element);
    step->input = buffer_of(unit.inputs.front());
    step->kernel = unit.window.kernel;
    step->stride = unit.window.stride;
    step->padding = unit.window.padding;
    step->in_channels = fused_.value(unit.inputs.front()).channels;
    step->vector_channels = kernels_.vector_channels;
    step->scale = buffer_of(unit.scale);
    step->residual = buffer_of(unit.residual);
    step->sums = buffer_of(unit.sums);
    step->store = unit.stores;
    step->algorithm = algorithm_of(unit, *step);
    for (const Part& part : unit.parts) {
      const size_t first = step->panels.size();
      if (element == Element::kByte) {
        add_byte_panels(*step, unit, part, placed_.buffer(unit.inputs.front()).pixel);
      } else {
        add_panels(*step, part, placed_.buffer(unit.inputs.front()).pixel, is_float);
      }
      for (size_t i = first; i < step->panels.size(); ++i) {
        step->panels[i].output_element = placed_.buffer(part.output).element;
        step->panels[i].to_bytes = to_bytes(unit, part.output, part.activation);
      }
    }
    convolutions_.push_back(step.get());
    return step;
  }

  // Winograd's takes over nothing but the activation and the sums.
  Algorithm algorithm_of(const Unit& unit, const ConvolutionStep& step) const {
    const bool is_plain = unit.parts.size() == 1 && unit.scale == kNoValue && unit.residual == kNoValue &&
                          placed_.buffer(unit.parts.front().output).element == Element::kFloat;
    return is_plain && unit.parts.front().node->groups == 1 &&
                   suits_winograd(*step.kernels, step.kernel, step.stride, step.in_channels,
                                  fused_.value(unit.parts.front().output).channels)
               ? Algorithm::kWinograd
               : Algorithm::kWindow;
  }

  // Narrower panels where the widest would not stay in a core's second-level cache beside its input.
  int32_t most_vectors(int64_t window, int64_t in_channels, bool is_float) const {
    int32_t vectors = kernels_.max_vectors;
    while (vectors > 2 && packed_bytes(vectors * kernels_.vector_channels, window, in_channels, is_float) >
                              kMostPanelBytes) {
      vectors /= 2;
    }
    return vectors;
  }

  void add_panels(ConvolutionStep& step, const Part& part, int64_t pixel, bool is_float) {
    if (part.weights == Part::Weights::kNode && part.node->groups > 1) {
      add_grouped_panels(step, part, pixel, is_float);
      return;
    }
    Source source = source_of(part, kernels_);
    const Linearised& linear = source.linear;
    const Place to = placed_.place(part.output);
    const int64_t channels = linear.weight.size(0);
    // Winograd's weights are those of sixteen 1 x 1 convolutions, one after the other.
    const bool is_winograd = step.algorithm == Algorithm::kWinograd;
    const int64_t window = is_winograd ? 1 : step.kernel[0] * step.kernel[1];
    const int64_t plane_bytes = packed_bytes(channels, window, pixel, is_float);
    step.coefficient_bytes = is_winograd ? plane_bytes : 0;
    std::vector<Packing> packings;
    int64_t offset = packed_;
    int64_t channel = 0;
    for (const int32_t vectors :
         split_panels(channels, kernels_.vector_channels, most_vectors(window, step.in_channels, is_float))) {
      const int64_t width = vectors * kernels_.vector_channels;
      step.panels.push_back({vectors, part.activation, offset,
                             static_cast<int64_t>(step.bias.size()) + channel, to.buffer,
                             to.channel + channel});
      if (is_winograd) {
        packings.push_back([=](uint8_t* weights) {
          pack_winograd_panel(linear, channel, pixel, width, plane_bytes, weights + offset);
        });
      } else {
        packings.push_back(
            [=](uint8_t* weights) { pack_panel(linear, channel, pixel, is_float, width, weights + offset); });
      }
      channel += width;
      offset += packed_bytes(width, window, pixel, is_float);
    }
    count_part(step, linear, (is_winograd ? kWinogradCoefficients : 1) * plane_bytes);
    add_packings(std::move(packings), std::move(source.prepare));
  }

  // Each panel reads the channels of the groups that its outputs belong to: where these are several, each
  // output those of its own or, where the kernels cannot, all with zeros for those of others'.
  void add_grouped_panels(ConvolutionStep& step, const Part& part, int64_t pixel, bool is_float) {
    const Linearised linear = source_of(part, kernels_).linear;
    const int64_t groups = part.node->groups;
    const int64_t pair = is_float ? 1 : 2;
    const int64_t vector = kernels_.vector_channels * pair;  // elements
    const int64_t inputs = linear.weight.size(1);            // of a group
    const Grouping grouping =
        choose_grouping(groups, step.in_channels, linear.weight.size(0), pixel, pair, kernels_);
    const bool is_one_group = grouping.slice == inputs;
    const bool has_vectors = grouping.panels.front().vectors == 1 && inputs % pair == 0;
    const bool suits_groups = is_one_group ? step.stride[1] == 1 && step.kernel[1] == kTapsAbreast
                                           : grouping.slice <= vector && vector <= pixel;
    // A matrix unit multiplies with others' zeros faster than vectors do without.
    const bool has_tiles = step.kernels->tiles != nullptr;
    step.algorithm = has_vectors && suits_groups && !has_tiles ? Algorithm::kGroups : Algorithm::kWindow;
    step.groups = groups;
    step.slice = step.algorithm == Algorithm::kGroups ? inputs : grouping.slice;
    const Place to = placed_.place(part.output);
    const int64_t window = step.kernel[0] * step.kernel[1];
    std::vector<Packing> packings;
    int64_t offset = packed_;
    for (const Grouping::Panel& panel : grouping.panels) {
      const int64_t width = panel.vectors * kernels_.vector_channels;
      int64_t input_channel = panel.input_channel;
      if (step.algorithm == Algorithm::kWindow) {
        packings.push_back([=, slice = step.slice](uint8_t* weights) {
          pack_panel(ungroup(linear, groups, panel.channel, width, input_channel, slice), 0, slice, is_float,
                     width, weights + offset);
        });
      } else {
        if (!is_one_group) {
          input_channel = std::min(input_channel, pixel - vector);
          for (int64_t i = panel.channel; i < panel.channel + width; ++i) {
            const int64_t group = std::min(i, linear.weight.size(0) - 1) * groups / linear.weight.size(0);
            step.lanes.push_back(static_cast<int32_t>((group * inputs - input_channel) / pair));
          }
        }
        packings.push_back([=](uint8_t* weights) {
          pack_panel(linear, panel.channel, inputs, is_float, width, weights + offset);
        });
      }
      step.panels.push_back({panel.vectors, part.activation, offset, panel.channel, to.buffer,
                             to.channel + panel.channel, input_channel});
      offset += packed_bytes(width, window, step.slice, is_float);
    }
    count_part(step, linear, offset - packed_);
    add_packings(std::move(packings), {});
  }

  // --- bytes
  // -------------------------------------------------------------------------------------------------------

  // How a unit's results become `output`, in steps of its scale.
  ToBytes to_bytes(const Unit& unit, ValueId output, Activation activation) const {
    const auto meaning = [&](ValueId value) {
      return value == kNoValue ? Quantization{} : fused_.value(value).quantization;
    };
    const Quantization to = meaning(output);
    const Quantization from = meaning(unit.inputs.front());
    const Quantization residual = meaning(unit.residual);
    const auto zero = static_cast<float>(to.zero);
    ToBytes result;
    result.factor = 1.0f / to.scale;
    result.input_factor = from.scale / to.scale;
    result.input_zero = static_cast<float>(from.zero);
    result.residual_factor = residual.scale / to.scale;
    result.offset = zero - static_cast<float>(residual.zero) * result.residual_factor;
    result.least = activation == Activation::kRelu ? zero : 0.0f;
    return result;
  }

  void add_byte_panels(ConvolutionStep& step, const Unit& unit, const Part& part, int64_t pixel) {
    const Node& node = *part.node;
    const Linearised linear = source_of(part, kernels_).linear;
    const at::Tensor scales = weight_scales(linear.weight);
    const at::Tensor weight = to_int8(linear.weight, scales);
    const Quantization from = fused_.value(unit.inputs.front()).quantization;
    const Quantization to = fused_.value(part.output).quantization;
    const at::Tensor total =
        weight.sum(at::IntArrayRef{1, 2, 3}, /*keepdim=*/false, at::kLong) * -static_cast<int64_t>(from.zero);
    at::Tensor multiplier = scales * (static_cast<double>(from.scale) / static_cast<double>(to.scale));
    if (linear.scale.defined()) {
      multiplier = multiplier * linear.scale.flatten();
    }
    const auto channel_of_bias = static_cast<int64_t>(step.bias.size());
    const Place place = placed_.place(part.output);
    const int64_t window = step.kernel[0] * step.kernel[1];
    const int64_t channels = weight.size(0);
    std::vector<Packing> packings;
    int64_t offset = packed_;
    const auto add = [&](int32_t vectors, int64_t channel, int64_t input_channel, int64_t slice,
                         Packing packing) {
      step.panels.push_back({vectors, part.activation, offset, channel_of_bias + channel, place.buffer,
                             place.channel + channel, input_channel});
      packings.push_back(std::move(packing));
      offset += packed_byte_bytes(vectors * kernels_.vector_channels, window, slice);
    };
    if (node.groups == 1) {
      int32_t most = kernels_.max_vectors;
      while (most > 2 &&
             packed_byte_bytes(most * kernels_.vector_channels, window, pixel) > kMostPanelBytes) {
        most /= 2;
      }
      int64_t channel = 0;
      for (const int32_t vectors : split_panels(channels, kernels_.vector_channels, most)) {
        const int64_t width = vectors * kernels_.vector_channels;
        add(vectors, channel, 0, pixel,
            [=](uint8_t* weights) { pack_byte_panel(weight, channel, pixel, width, weights + offset); });
        channel += width;
      }
    } else {
      constexpr int64_t kFour = 4;
      step.groups = node.groups;
      const Grouping grouping =
          choose_grouping(node.groups, step.in_channels, channels, pixel, kFour, kernels_);
      step.slice = grouping.slice;
      for (const Grouping::Panel& panel : grouping.panels) {
        const int64_t width = panel.vectors * kernels_.vector_channels;
        add(panel.vectors, panel.channel, panel.input_channel, grouping.slice,
            [=, groups = node.groups, slice = grouping.slice](uint8_t* weights) {
              pack_byte_panel(ungroup_bytes(weight, groups, panel.channel, width, panel.input_channel, slice),
                              0, slice, width, weights + offset);
            });
      }
    }
    count_part(step, {linear.weight, linear.scale, linear.bias / static_cast<double>(to.scale)},
               offset - packed_);
    for (const float value : to_floats(multiplier)) {
      step.multiplier.push_back(value);
    }
    // Exact in float64, not in float32.
    const at::Tensor starts = total.to(at::kInt).contiguous();
    step.start.insert(step.start.end(), starts.const_data_ptr<int32_t>(),
                      starts.const_data_ptr<int32_t>() + starts.numel());
    step.start.resize(step.bias.size(), 0);
    add_packings(std::move(packings), {});
  }

  std::vector<Step::Operand> operands(const std::vector<ValueId>& values) const {
    std::vector<Step::Operand> result;
    for (const ValueId value : values) {
      if (value == kNoValue) {
        continue;
      }
      const UnitValue& of = fused_.value(value);
      if (of.precision == UnitValue::Precision::kElement || of.precision == UnitValue::Precision::kByte) {
        const Place place = placed_.place(value);
        result.push_back({of.same_as == kNoValue ? value : of.same_as, place.buffer, place.channel,
                          of.channels, of.quantization});
      }
    }
    return result;
  }

  void count_part(ConvolutionStep& step, const Linearised& linear, int64_t bytes) {
    packed_ += bytes;
    step.packed_bytes += bytes;
    step.out_channels += linear.weight.size(0);
    const std::vector<float> bias = to_floats(linear.bias);
    step.bias.insert(step.bias.end(), bias.begin(), bias.end());
  }

  // One after the other where their weights have to be made first.
  void add_packings(std::vector<Packing> packings, std::function<void()> prepare) {
    if (!prepare) {
      std::move(packings.begin(), packings.end(), std::back_inserter(packings_));
      return;
    }
    packings_.push_back([packings = std::move(packings), prepare = std::move(prepare)](uint8_t* weights) {
      prepare();
      for (const Packing& pack : packings) {
        pack(weights);
      }
    });
  }

  // All weights are one piece: memory of huge pages. All threads take one packing after the other until none
  // is left, so that none waits for another that the system has stopped. The last layers have the most
  // weights and come first.
  void pack_weights() {
    const at::Tensor weights = at::empty({packed_}, at::TensorOptions().dtype(at::kByte));
    uint8_t* const to = weights.mutable_data_ptr<uint8_t>();
    std::reverse(packings_.begin(), packings_.end());
    std::atomic<size_t> next = 0;
    at::parallel_for(0, at::get_num_threads(), 1, [&](int64_t, int64_t) {
      for (size_t i = next++; i < packings_.size(); i = next++) {
        packings_[i](to);
      }
    });
    for (ConvolutionStep* step : convolutions_) {
      step->weights = weights;
    }
  }

  // --- the rest
  // -------------------------------------------------------------------------------------------------------

  std::unique_ptr<Step> make_scale(const Unit& unit) const {
    auto step = std::make_unique<ScaleStep>();
    step->kernels = kernels_of(unit);
    const auto is_float = [&](ValueId value) {
      return value != kNoValue && placed_.buffer(value).element == Element::kFloat;
    };
    step->is_conversion = unit.node == nullptr && unit.output != kNoValue && unit.scale == kNoValue;
    step->input_is_float = is_float(unit.inputs.front());
    step->residual_is_float = is_float(unit.residual);
    step->output_is_float = is_float(unit.output);
    // Sums alone are those of the input.
    step->to_bytes =
        to_bytes(unit, unit.output == kNoValue ? unit.inputs.front() : unit.output, unit.activation);
    step->input = buffer_of(unit.inputs.front());
    if (unit.node != nullptr && unit.node->operation == Operation::kAffine) {
      const Linearised linear = linearise(*unit.node);
      step->fixed_scale = to_floats(linear.weight);
      step->fixed_shift = to_floats(linear.bias);
    }
    step->scale = buffer_of(unit.scale);
    step->residual = buffer_of(unit.residual);
    step->activation = unit.activation;
    step->sums = buffer_of(unit.sums);
    step->output = unit.stores ? buffer_of(unit.output) : kNoBuffer;
    return step;
  }

  std::unique_ptr<Step> make_pool(const Unit& unit) const {
    auto step = std::make_unique<PoolStep>();
    step->kernels = kernels_of(unit);
    step->output_is_float = placed_.buffer(unit.output).element == Element::kFloat;
    step->to_bytes = to_bytes(unit, unit.output, unit.activation);
    step->input = buffer_of(unit.inputs.front());
    step->output = buffer_of(unit.output);
    step->output_channel = placed_.place(unit.output).channel;
    step->kernel = unit.window.kernel[0];
    step->stride = unit.window.stride[0];
    step->padding = unit.window.padding[0];
    step->maximum = unit.node->operation == Operation::kMaxPool;
    step->count_include_pad = unit.node->count_include_pad;
    if (unit.bias != nullptr) {
      step->shift = to_floats(linearise(*unit.bias).bias);
    }
    step->activation = unit.activation;
    return step;
  }

  std::unique_ptr<Step> make_mean(const Unit& unit) const {
    auto step = std::make_unique<MeanStep>();
    step->sums = buffer_of(unit.inputs.front());
    step->output = buffer_of(unit.output);
    step->of = buffer_of(unit.of);
    step->quantization = fused_.value(unit.inputs.front()).quantization;
    return step;
  }

  std::unique_ptr<Step> make_channel_gate(const Unit& unit) const {
    auto step = std::make_unique<ChannelGateStep>();
    step->input = buffer_of(unit.inputs.front());
    step->output = buffer_of(unit.output);
    const at::Tensor kernel = unit.node->channel_kernel.detach().to(at::kCPU, at::kFloat).contiguous();
    const float* const values = kernel.const_data_ptr<float>();
    step->kernel.assign(values, values + kernel.numel());
    return step;
  }

  static graph::Operation operation_of(const Node& node) {
    if (node.operation != Operation::kConvolution) {
      return *node.other;
    }
    const Linearised linear = linearise(node);
    return graph::Convolution{linear.product().to(at::kFloat), linear.bias.to(at::kFloat), node.window,
                              node.groups};
  }

  std::unique_ptr<Step> make_operator(const Unit& unit, graph::Operation operation) const {
    const auto operand = [&](ValueId value) {
      return OperatorStep::Operand{buffer_of(value), fused_.value(value).is_vector};
    };
    auto step = std::make_unique<OperatorStep>();
    step->operation = std::move(operation);
    for (const ValueId input : unit.inputs) {
      step->inputs.push_back(operand(input));
    }
    step->output = operand(unit.output);
    step->relu = unit.activation == Activation::kRelu;
    return step;
  }

  std::unique_ptr<Step> make_load(const Unit& unit) const {
    auto step = std::make_unique<LoadStep>();
    step->kernels = kernels_of(unit);
    const Quantization to = fused_.value(unit.output).quantization;
    step->to_bytes.factor = 1.0f / to.scale;
    step->to_bytes.offset = static_cast<float>(to.zero);
    step->output = buffer_of(unit.output);
    return step;
  }

  std::unique_ptr<Step> make_store(const Unit& unit) const {
    auto step = std::make_unique<StoreStep>();
    step->input = buffer_of(unit.inputs.front());
    return step;
  }

  const Fused& fused_;
  const Placed& placed_;
  const Kernels& kernels_;
  const ElementKernels* const element_kernels_;
  int64_t packed_ = 0;             // bytes of the weights so far
  std::vector<Packing> packings_;  // what writes them
  std::vector<ConvolutionStep*> convolutions_;
  Steps steps_;
};

}  // namespace

Steps pack_steps(const Fused& fused, const Placed& placed, const Kernels& kernels, bool is_float) {
  return StepMaker(fused, placed, kernels, is_float).run();
}

}  // namespace senet::inference
