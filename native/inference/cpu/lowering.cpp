#include "inference/cpu/lowering.h"

#include "core/error.h"
#include "inference/cpu/winograd.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <utility>

namespace senet::inference {
namespace {

// Of the second-level cache of a present server core, 1 MiB and more.
constexpr int64_t kMostPanelBytes = 704 * 1024;

// The padded vector of a kernel's operand.
std::vector<float> to_floats(const at::Tensor& vector) {
  const at::Tensor values = vector.to(at::kFloat).contiguous();
  std::vector<float> result(static_cast<size_t>(padded_channels(values.numel())), 0.0f);
  std::copy_n(values.const_data_ptr<float>(), values.numel(), result.begin());
  return result;
}

// Fills its part of the packed weights, which are made when all steps are known.
using Packing = std::function<void(uint8_t* weights)>;

// Goes through the nodes once, in their order. A node whose work is taken over by a later one (the last
// convolution of a bottleneck, an average pool before a convolution) is passed over when its turn comes and
// done at the later one.
class Lowering {
 public:
  Lowering(const Plan& plan, const Kernels& kernels, at::ScalarType element)
      : plan_(plan),
        kernels_(kernels),
        is_float_(element == at::kFloat),
        element_kernels_(is_float_ ? kernels.float32 : kernels.bfloat16),
        places_(plan.values.size()),
        producers_(plan.values.size(), nullptr),
        uses_(plan.values.size(), 0) {
    for (const Node& node : plan.nodes) {
      producers_[index(node.output)] = &node;
      for (const ValueId value : node.inputs) {
        ++uses_[index(value)];
      }
    }
    ++uses_[index(plan.output)];
  }

  CpuSteps run() {
    place_concatenations();
    load_input();
    for (const Node& node : plan_.nodes) {
      lower(node);
    }
    auto store = std::make_unique<StoreStep>();
    store->name = "output";
    store->input = place(plan_.output).buffer;
    result_.steps.push_back(std::move(store));
    finish_borders();
    pack_weights();
    return std::move(result_);
  }

 private:
  // Where a value lies: a buffer of its own, or some of the channels of what it is concatenated into.
  struct Place {
    BufferId buffer = kNoBuffer;
    int64_t channel = 0;
  };

  void lower(const Node& node) {
    switch (node.operation) {
      case Operation::kConvolution:
        if (!is_convolution(node)) {
          foreign_convolution(node);
        } else if (!is_taken_over(node)) {
          convolution(node);
        }
        return;
      case Operation::kAveragePool:
        if (convolution_after(node) == nullptr) {
          pool(node);
        }
        return;
      case Operation::kMaxPool:
        pool(node);
        return;
      case Operation::kSqueezeExcite:
        squeeze_excite(node);
        return;
      case Operation::kAffine:
      case Operation::kRelu:
        affine(node);
        return;
      case Operation::kGlobalAveragePool:
        global_average_pool(node);
        return;
      case Operation::kLinear:
        linear(node);
        return;
      case Operation::kAdd:
        add(node);
        return;
      case Operation::kConcatenate:
        if (!is_in_place(node)) {
          foreign(node, graph::Concatenate{});
        }
        return;
      case Operation::kOperator:
        foreign(node, *node.other);
        return;
    }
  }

  // --- places
  // -------------------------------------------------------------------------------------------------------

  void place_concatenations() {
    for (const Node& node : plan_.nodes) {
      if (node.operation != Operation::kConcatenate) {
        continue;
      }
      if (!is_in_place(node)) {
        continue;
      }
      const BufferId whole = place(node.output).buffer;
      int64_t channel = 0;
      for (const ValueId part : node.inputs) {
        places_[index(part)] = {whole, channel};
        channel += plan_.channels(part);
      }
    }
  }

  // Whether all parts can be written where the whole is.
  bool is_in_place(const Node& node) const {
    int64_t channel = 0;
    for (const ValueId part : node.inputs) {
      const Node* producer = producers_[index(part)];
      const bool writes_anywhere =
          producer != nullptr && (is_convolution(*producer) || producer->operation == Operation::kMaxPool);
      if (!writes_anywhere || uses_[index(part)] != 1 || channel % kChannelBlock != 0) {
        return false;
      }
      channel += plan_.channels(part);
    }
    return true;
  }

  Place place(ValueId value) {
    Place& known = places_[index(value)];
    if (known.buffer == kNoBuffer) {
      const int64_t channels = plan_.channels(value);
      known.buffer = add_buffer({value, channels, padded_channels(channels), {0, 0}, is_float_});
    }
    return known;
  }

  BufferId add_buffer(Buffer buffer) {
    result_.buffers.push_back(buffer);
    return static_cast<BufferId>(result_.buffers.size() - 1);
  }

  BufferId add_vector(int64_t channels, bool is_float) {
    return add_buffer({kNoValue, channels, padded_channels(channels), {0, 0}, is_float});
  }

  Buffer& buffer(BufferId id) {
    return result_.buffers[static_cast<size_t>(id)];
  }

  // The border of a buffer is known when all its readers are; the first step that writes it clears it.
  void finish_borders() {
    std::vector<bool> seen(result_.buffers.size(), false);
    for (const auto& step : result_.steps) {
      for (const BufferId id : step->writes()) {
        if (!seen[static_cast<size_t>(id)]) {
          seen[static_cast<size_t>(id)] = true;
          const Buffer& written = buffer(id);
          if (written.border[0] + written.border[1] > 0) {
            step->clears.push_back(id);
          }
        }
      }
    }
  }

  void load_input() {
    const BufferId id = place(plan_.input).buffer;
    // Few channels are not padded to a block if only convolutions read them: the stem's window stays short.
    const bool only_convolutions = std::all_of(plan_.nodes.begin(), plan_.nodes.end(), [&](const Node& node) {
      return is_convolution(node) ||
             std::find(node.inputs.begin(), node.inputs.end(), plan_.input) == node.inputs.end();
    });
    Buffer& input = buffer(id);
    if (only_convolutions && input.channels < kChannelBlock) {
      input.pixel = is_float_ ? input.channels : (input.channels + 1) / 2 * 2;
    }
    auto step = std::make_unique<LoadStep>();
    step->name = "input";
    step->kernels = element_kernels_;
    step->output = id;
    result_.steps.push_back(std::move(step));
  }

  // --- convolutions
  // -------------------------------------------------------------------------------------------------

  // One that the kernels compute.
  static bool is_convolution(const Node& node) {
    return node.operation == Operation::kConvolution && node.groups == 1 &&
           node.window.dilation == Size2{1, 1} && node.window.kernel[0] <= kMaxTaps;
  }

  static bool is_pointwise(const Node& node) {
    return is_convolution(node) && node.window.kernel == Size2{1, 1} && node.window.padding == Size2{0, 0};
  }

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

  // Whether all other readers of a value are lowered before this node is, and the value has a buffer alone.
  bool is_last_reader(const Node& node, ValueId value) const {
    const auto reads = [value](const Node& reader) {
      return std::find(reader.inputs.begin(), reader.inputs.end(), value) != reader.inputs.end();
    };
    const bool is_concatenated_or_output =
        value == plan_.output || std::any_of(plan_.nodes.begin(), plan_.nodes.end(), [&](const Node& other) {
          return other.operation == Operation::kConcatenate && (reads(other) || other.output == value);
        });
    if (value == plan_.input || is_concatenated_or_output ||
        places_[index(node.output)].buffer != kNoBuffer) {
      return false;
    }
    bool is_later = false;
    for (const Node& other : plan_.nodes) {
      if (&other == &node) {
        is_later = true;
      } else if (reads(other) && (is_later || is_taken_over(other) || convolution_after(other) != nullptr)) {
        return false;
      }
    }
    return true;
  }

  // The convolution that an average pool may swap places with.
  const Node* convolution_after(const Node& pool_node) const {
    if (pool_node.operation != Operation::kAveragePool) {
      return nullptr;
    }
    const Node* next = only_reader(pool_node.output);
    const bool swaps = next != nullptr && is_pointwise(*next) && next->window.stride == Size2{1, 1} &&
                       next->weight.size(0) < next->weight.size(1);
    return swaps ? next : nullptr;
  }

  // The last convolution of a bottleneck is done by its squeeze-and-excitation node.
  bool is_taken_over(const Node& node) const {
    const Node* reader = only_reader(node.output);
    return reader != nullptr && reader->operation == Operation::kSqueezeExcite &&
           reader->inputs.front() == node.output && excitation_is_early(node);
  }

  // Whether the mean of this convolution's output can be had from the mean of its input, summed as that was
  // made.
  bool excitation_is_early(const Node& node) const {
    if (!is_pointwise(node) || node.relu || node.window.stride != Size2{1, 1}) {
      return false;
    }
    const Node* before = producers_[index(node.inputs.front())];
    return before != nullptr && is_convolution(*before) && !is_taken_over(*before);
  }

  void convolution(const Node& node) {
    const Node* pool_node = producers_[index(node.inputs.front())];
    if (pool_node != nullptr && convolution_after(*pool_node) == &node) {
      pooled_convolution(*pool_node, node);
      return;
    }
    const Linearised linear = linearise(node);
    const Place to = place(node.output);
    ConvolutionStep& step = add_convolution(node, place(node.inputs.front()).buffer, linear, to,
                                            node.relu ? Activation::kRelu : Activation::kNone);
    steps_of_[node.output] = &step;
  }

  // Convolution without bias, then the average, then bias and ReLU. The zeros of the padding stay zeros.
  void pooled_convolution(const Node& pool_node, const Node& node) {
    Linearised linear = linearise(node);
    const std::vector<float> shift = to_floats(linear.bias);
    linear.bias = at::zeros_like(linear.bias);
    const int64_t channels = node.weight.size(0);
    const BufferId narrow =
        add_buffer({pool_node.inputs.front(), channels, padded_channels(channels), {0, 0}, is_float_});
    add_convolution(node, place(pool_node.inputs.front()).buffer, linear, {narrow, 0}, Activation::kNone);
    auto pool_step = make_pool(pool_node, narrow, place(node.output));
    pool_step->shift = shift;
    pool_step->activation = node.relu ? Activation::kRelu : Activation::kNone;
    pool_step->fused = {"bias"};
    if (node.relu) {
      pool_step->fused.push_back("relu");
    }
    result_.steps.push_back(std::move(pool_step));
  }

  // A step of its own, or panels of the step that reads the same input through the same window.
  ConvolutionStep& add_convolution(const Node& node, BufferId input, const Linearised& linear, Place to,
                                   Activation activation) {
    const at::Tensor& weight = linear.weight;
    ConvolutionStep* step = is_pointwise(node) ? find_sibling(node, input) : nullptr;
    if (step == nullptr && suits_winograd(*element_kernels_, node.window.kernel, node.window.stride,
                                          weight.size(1), weight.size(0))) {
      step = &new_convolution(node.name, input, weight, node.window.stride, node.window.padding,
                              element_kernels_);
      step->algorithm = Algorithm::kWinograd;
      step->fused.push_back("winograd");
    } else if (step == nullptr) {
      step = &new_convolution(node.name, input, weight, node.window.stride, node.window.padding,
                              element_kernels_);
    } else {
      step->fused.push_back(node.name);
    }
    add_panels(*step, linear, to, activation, is_float_);
    if (activation == Activation::kRelu && (step->fused.empty() || step->fused.front() != "relu")) {
      step->fused.insert(step->fused.begin(), "relu");
    }
    return *step;
  }

  // Only of the same value: a buffer holds others at other times. Steps with sums, a scale or a residual have
  // one output.
  ConvolutionStep* find_sibling(const Node& node, BufferId input) {
    for (auto& [value, step] : steps_of_) {
      if (step->input == input && producers_[index(value)]->inputs.front() == node.inputs.front() &&
          step->kernel == Size2{1, 1} && step->stride == node.window.stride &&
          step->padding == node.window.padding && step->sums == kNoBuffer && step->scale == kNoBuffer &&
          step->store && excludes_sums(value)) {
        return step;
      }
    }
    return nullptr;
  }

  // A squeeze may still want to sum this output.
  bool excludes_sums(ValueId value) const {
    for (const Node& node : plan_.nodes) {
      if (node.inputs.empty() || node.inputs.front() != value) {
        continue;
      }
      if (node.operation == Operation::kSqueezeExcite || node.operation == Operation::kGlobalAveragePool ||
          (is_convolution(node) && is_taken_over(node))) {
        return false;
      }
    }
    return true;
  }

  ConvolutionStep& new_convolution(const std::string& name, BufferId input, const at::Tensor& weight,
                                   Size2 stride, Size2 padding, const ElementKernels* kernels) {
    auto step = std::make_unique<ConvolutionStep>();
    step->name = name;
    step->kernels = kernels;
    step->input = input;
    step->kernel = {weight.size(2), weight.size(3)};
    step->stride = stride;
    step->padding = padding;
    step->in_channels = weight.size(1);
    step->vector_channels = kernels_.vector_channels;
    Buffer& read = buffer(input);
    read.border = {std::max(read.border[0], padding[0]), std::max(read.border[1], padding[1])};
    ConvolutionStep& made = *step;
    result_.steps.push_back(std::move(step));
    return made;
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

  // `before`, if given, makes the weights; they are packed with it.
  void add_panels(ConvolutionStep& step, const Linearised& linear, Place to, Activation activation,
                  bool weights_are_float, const std::function<void()>& before = {}) {
    const int64_t channels = linear.weight.size(0);
    // Winograd's weights are those of sixteen 1 x 1 convolutions, one after the other.
    const bool is_winograd = step.algorithm == Algorithm::kWinograd;
    const int64_t window = !is_winograd ? step.kernel[0] * step.kernel[1] : 1;
    const int64_t pixel = buffer(step.input).pixel;
    const int64_t plane_bytes = packed_bytes(channels, window, pixel, weights_are_float);
    const size_t first_panel = step.panels.size();
    int64_t offset = packed_;
    int64_t channel = 0;
    for (const int32_t vectors : split_panels(channels, kernels_.vector_channels,
                                              most_vectors(window, step.in_channels, weights_are_float))) {
      step.panels.push_back({vectors, activation, offset, static_cast<int64_t>(step.bias.size()) + channel,
                             to.buffer, to.channel + channel});
      const int64_t panel_channels = vectors * kernels_.vector_channels;
      channel += panel_channels;
      offset += packed_bytes(panel_channels, window, pixel, weights_are_float);
    }
    const int64_t bytes = (is_winograd ? kWinogradCoefficients : 1) * plane_bytes;
    packed_ += bytes;
    if (is_winograd) {
      step.coefficient_bytes = plane_bytes;
    }
    packed_steps_.push_back(&step);
    step.packed_bytes += bytes;
    const auto first_channel = static_cast<int64_t>(step.bias.size());
    const std::vector<float> values = to_floats(linear.bias);
    step.bias.insert(step.bias.end(), values.begin(), values.end());
    step.out_channels += channels;

    std::vector<Packing> packings;
    for (size_t i = first_panel; i < step.panels.size(); ++i) {
      const Panel& panel = step.panels[i];
      const int64_t first = panel.channel - first_channel;
      const int64_t panel_channels = panel.vectors * kernels_.vector_channels;
      const int64_t at = panel.weight_offset;
      if (!is_winograd) {
        packings.push_back([=](uint8_t* weights) {
          pack_panel(linear, first, pixel, weights_are_float, panel_channels, weights + at);
        });
      } else {
        packings.push_back([=](uint8_t* weights) {
          pack_winograd_panel(linear, first, pixel, panel_channels, plane_bytes, weights + at);
        });
      }
    }
    if (before) {
      packings_.push_back([before, packings = std::move(packings)](uint8_t* weights) {
        before();
        for (const Packing& pack : packings) {
          pack(weights);
        }
      });
    } else {
      packings_.insert(packings_.end(), packings.begin(), packings.end());
    }
  }

  // All threads take one packing after the other until none is left, so that none waits for another that the
  // system has stopped. The last layers have the most weights and come first.
  void pack_weights() {
    // One piece: memory of huge pages.
    const at::Tensor weights = at::empty({packed_}, at::TensorOptions().dtype(at::kByte));
    for (ConvolutionStep* step : packed_steps_) {
      step->weights = weights;
    }
    auto* const bytes = weights.mutable_data_ptr<uint8_t>();
    std::reverse(packings_.begin(), packings_.end());
    std::atomic<size_t> next = 0;
    at::parallel_for(0, at::get_num_threads(), 1, [&](int64_t, int64_t) {
      for (size_t i = next++; i < packings_.size(); i = next++) {
        packings_[i](bytes);
      }
    });
    packings_.clear();
  }

  // --- squeeze and excitation
  // ---------------------------------------------------------------------------------------

  void squeeze_excite(const Node& node) {
    const ValueId x = node.inputs.front();
    const Node* before = producers_[index(x)];
    const BufferId residual = node.inputs.size() > 1 ? place(node.inputs[1]).buffer : kNoBuffer;
    const Activation activation = node.relu ? Activation::kRelu : Activation::kNone;
    std::vector<std::string> fused = {"scale " + node.name};
    if (residual != kNoBuffer) {
      fused.push_back("residual");
    }
    if (node.relu) {
      fused.push_back("relu");
    }
    if (before != nullptr && is_convolution(*before) && is_taken_over(*before)) {
      if (residual != kNoBuffer && is_last_reader(node, node.inputs[1])) {
        // The sum takes the residual's place: its lines are in the cache, and nobody reads it any more.
        places_[index(node.output)] = places_[index(node.inputs[1])];
      }
      const Linearised last = linearise(*before);
      const at::Tensor squeeze = node.squeeze_weight.detach();
      const at::Tensor product = at::empty({squeeze.size(0), last.weight.size(1)}, at::kDouble);
      const BufferId mean = mean_of(before->inputs.front(), node.name, /*is_float=*/true);
      const at::Tensor bias =
          at::matmul(squeeze.to(at::kDouble), last.bias) + to_bias(node.squeeze_bias, squeeze);
      const BufferId scale = excite(node, mean, product, bias, [=, this] {
        product.zero_();
        add_product(squeeze, last, kernels_, product);
      });
      ConvolutionStep& step =
          new_convolution(before->name, place(before->inputs.front()).buffer, last.weight,
                          before->window.stride, before->window.padding, element_kernels_);
      add_panels(step, last, place(node.output), activation, is_float_);
      step.scale = scale;
      step.residual = residual;
      step.fused = std::move(fused);
      steps_of_[node.output] = &step;
      return;
    }
    const BufferId mean = mean_of(x, node.name, /*is_float=*/true);
    const at::Tensor squeeze = node.squeeze_weight.detach();
    const BufferId scale = excite(node, mean, squeeze, to_bias(node.squeeze_bias, squeeze));
    ScaleStep& step = add_scale(node.name, x, node.output);
    step.scale = scale;
    step.residual = residual;
    step.activation = activation;
    step.fused.assign(fused.begin() + 1, fused.end());
    scales_of_[node.output] = &step;
  }

  // Of a linear layer that may have none.
  static at::Tensor to_bias(const at::Tensor& bias, const at::Tensor& weight) {
    return bias.defined() ? bias.detach().to(at::kDouble, /*non_blocking=*/false, /*copy=*/true)
                          : at::zeros({weight.size(0)}, at::kDouble);
  }

  // sigmoid(w2 . relu(w1 . mean + bias) + b2), all in float32.
  BufferId excite(const Node& node, BufferId mean, const at::Tensor& squeeze, const at::Tensor& bias,
                  const std::function<void()>& before = {}) {
    const at::Tensor expand = node.excite_weight.detach();
    const BufferId hidden = add_vector(squeeze.size(0), /*is_float=*/true);
    const BufferId scale = add_vector(expand.size(0), /*is_float=*/true);
    add_dense(node.name + ".fc.0", mean, squeeze, bias, hidden, Activation::kRelu, before).fused = {"relu"};
    add_dense(node.name + ".fc.2", hidden, expand, to_bias(node.excite_bias, expand), scale,
              Activation::kSigmoid)
        .fused = {"sigmoid"};
    return scale;
  }

  ConvolutionStep& add_dense(const std::string& name, BufferId input, const at::Tensor& weight,
                             const at::Tensor& bias, BufferId output, Activation activation,
                             const std::function<void()>& before = {}) {
    const at::Tensor window = weight.reshape({weight.size(0), weight.size(1), 1, 1});
    const bool is_float = buffer(input).is_float;
    ConvolutionStep& step =
        new_convolution(name, input, window, {1, 1}, {0, 0}, is_float ? kernels_.float32 : kernels_.bfloat16);
    add_panels(step, {window, {}, bias}, {output, 0}, activation, is_float, before);
    step.output_is_float = buffer(output).is_float;
    return step;
  }

  // The mean of a value per channel: summed by the step that made it if that has it in registers, else by a
  // pass.
  BufferId mean_of(ValueId value, const std::string& name, bool is_float) {
    const Place at = place(value);
    const int64_t channels = plan_.channels(value);
    const BufferId sums = add_buffer({kNoValue,
                                      channels,
                                      padded_channels(channels),
                                      {0, 0},
                                      /*is_float=*/true,
                                      /*per_thread=*/true});
    const auto convolution = steps_of_.find(value);
    const auto scale = scales_of_.find(value);
    if (convolution != steps_of_.end() && convolution->second->sums == kNoBuffer &&
        convolution->second->out_channels == channels) {
      convolution->second->sums = sums;
      convolution->second->fused.push_back("sums of " + name);
      convolution->second->store = convolution->second->store && !is_only_averaged(value);
    } else if (scale != scales_of_.end() && scale->second->sums == kNoBuffer) {
      scale->second->sums = sums;
      scale->second->fused.push_back("sums of " + name);
      if (is_only_averaged(value)) {
        scale->second->output = kNoBuffer;
      }
    } else {
      ScaleStep& step = add_scale(name, value, kNoValue);
      step.sums = sums;
    }
    auto step = std::make_unique<MeanStep>();
    step->name = name;
    step->sums = sums;
    step->output = add_vector(channels, is_float);
    step->of = at.buffer;
    const BufferId mean = step->output;
    result_.steps.push_back(std::move(step));
    return mean;
  }

  bool is_only_averaged(ValueId value) const {
    const Node* reader = only_reader(value);
    return reader != nullptr && reader->operation == Operation::kGlobalAveragePool;
  }

  // --- the rest
  // -----------------------------------------------------------------------------------------------------

  // In place if nobody else reads the input.
  ScaleStep& add_scale(const std::string& name, ValueId x, ValueId output) {
    auto step = std::make_unique<ScaleStep>();
    step->name = name;
    step->kernels = element_kernels_;
    step->input = place(x).buffer;
    if (output != kNoValue) {
      if (only_reader(x) != nullptr && places_[index(output)].buffer == kNoBuffer && x != plan_.input) {
        places_[index(output)] = places_[index(x)];
      }
      step->output = place(output).buffer;
    }
    ScaleStep& made = *step;
    result_.steps.push_back(std::move(step));
    return made;
  }

  void affine(const Node& node) {
    ScaleStep& step = add_scale(node.name, node.inputs.front(), node.output);
    if (node.operation == Operation::kAffine) {
      const Linearised linear = linearise(node);
      step.fixed_scale = to_floats(linear.weight);
      step.fixed_shift = to_floats(linear.bias);
    }
    step.activation = node.relu || node.operation == Operation::kRelu ? Activation::kRelu : Activation::kNone;
    if (step.activation == Activation::kRelu) {
      step.fused = {"relu"};
    }
    scales_of_[node.output] = &step;
  }

  std::unique_ptr<PoolStep> make_pool(const Node& node, BufferId input, Place to) {
    auto step = std::make_unique<PoolStep>();
    step->name = node.name;
    step->kernels = element_kernels_;
    step->input = input;
    step->output = to.buffer;
    step->output_channel = to.channel;
    step->kernel = node.window.kernel[0];
    step->stride = node.window.stride[0];
    step->padding = node.window.padding[0];
    step->maximum = node.operation == Operation::kMaxPool;
    return step;
  }

  void pool(const Node& node) {
    result_.steps.push_back(make_pool(node, place(node.inputs.front()).buffer, place(node.output)));
  }

  void global_average_pool(const Node& node) {
    const BufferId mean = mean_of(node.inputs.front(), node.name, is_float_);
    places_[index(node.output)] = {mean, 0};
  }

  void linear(const Node& node) {
    const Linearised linear = linearise(node);
    // The logits stay float32 in a bfloat16 program.
    const BufferId output = add_vector(node.weight.size(0), /*is_float=*/true);
    places_[index(node.output)] = {output, 0};
    ConvolutionStep& step = add_dense(node.name, place(node.inputs.front()).buffer, linear.weight,
                                      linear.bias, output, node.relu ? Activation::kRelu : Activation::kNone);
    if (node.relu) {
      step.fused = {"relu"};
    }
  }

  void add(const Node& node) {
    ScaleStep& step = add_scale(node.name, node.inputs[0], node.output);
    step.residual = place(node.inputs[1]).buffer;
    step.activation = node.relu ? Activation::kRelu : Activation::kNone;
    step.fused = {"residual"};
    if (node.relu) {
      step.fused.push_back("relu");
    }
    scales_of_[node.output] = &step;
  }

  // --- what the kernels do not have
  // -------------------------------------------------------------------------------------------------------

  void foreign_convolution(const Node& node) {
    const Linearised linear = linearise(node);
    OperatorStep& step =
        foreign(node, graph::Convolution{linear.product().to(at::kFloat), linear.bias.to(at::kFloat),
                                         node.window, node.groups});
    step.relu = node.relu;
    if (node.relu) {
      step.fused = {"relu"};
    }
  }

  OperatorStep& foreign(const Node& node, graph::Operation operation) {
    auto step = std::make_unique<OperatorStep>();
    step->name = node.name;
    step->operation = std::move(operation);
    for (const ValueId input : node.inputs) {
      step->inputs.push_back({place(input).buffer, plan_.value(input).is_vector});
    }
    step->output = {place(node.output).buffer, plan_.value(node.output).is_vector};
    OperatorStep& made = *step;
    result_.steps.push_back(std::move(step));
    return made;
  }

  static size_t index(ValueId value) {
    return static_cast<size_t>(value);
  }

  const Plan& plan_;
  const Kernels& kernels_;
  const bool is_float_;
  const ElementKernels* const element_kernels_;
  std::vector<Place> places_;
  std::vector<const Node*> producers_;
  std::vector<int32_t> uses_;
  int64_t packed_ = 0;  // bytes of packed weights
  std::vector<Packing> packings_;
  std::vector<ConvolutionStep*> packed_steps_;
  std::map<ValueId, ConvolutionStep*> steps_of_;  // by the value that each makes
  std::map<ValueId, ScaleStep*> scales_of_;
  CpuSteps result_;
};

}  // namespace

CpuSteps lower_plan(const Plan& plan, const Kernels& kernels, at::ScalarType element) {
  return Lowering(plan, kernels, element).run();
}

}  // namespace senet::inference
