// Layer by layer: parameters with their draws, the forward, what it takes. Behind them, how each is made of
// the options of TypeScript's constructor.
#include "nn/layers.h"

#include "nn/init.h"

#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <utility>

namespace senet::nn {

Conv2d::Conv2d(const Conv2dOptions& options) : Module("Conv2d"), options(options) {
  const at::Tensor data = new_parameter({options.out_channels, options.in_channels / options.groups,
                                         options.kernel_size[0], options.kernel_size[1]});
  init_default_weight(data);
  weight = register_parameter("weight", data);
  if (options.with_bias) {
    const at::Tensor bias_data = new_parameter({options.out_channels});
    init_default_bias(bias_data, weight);
    bias = register_parameter("bias", bias_data);
  }
}

Value Conv2d::compute(const Value& input) {
  check_traced(input, "weight", weight,
               {options.out_channels, options.in_channels / options.groups, options.kernel_size[0],
                options.kernel_size[1]});
  check_traced(input, "bias", bias, {options.out_channels});
  return apply(operation(), {input});
}

void Conv2d::check_input(const Value& input) const {
  Module::check_input(input);
  check_image(input, options.in_channels);
  graph::check_shapes(operation(), {input.sizes()}, name());
}

Width Conv2d::width() const {
  return {options.in_channels, options.out_channels};
}

graph::Convolution Conv2d::operation() const {
  return {
      weight, bias, {options.kernel_size, options.stride, options.padding, options.dilation}, options.groups};
}

Conv1d::Conv1d(const Conv1dOptions& options) : Module("Conv1d"), options(options) {
  const at::Tensor data =
      new_parameter({options.out_channels, options.in_channels / options.groups, options.kernel_size});
  init_default_weight(data);
  weight = register_parameter("weight", data);
  if (options.with_bias) {
    const at::Tensor bias_data = new_parameter({options.out_channels});
    init_default_bias(bias_data, weight);
    bias = register_parameter("bias", bias_data);
  }
}

Value Conv1d::compute(const Value& input) {
  check_traced(input, "weight", weight,
               {options.out_channels, options.in_channels / options.groups, options.kernel_size});
  check_traced(input, "bias", bias, {options.out_channels});
  return apply(operation(), {input});
}

void Conv1d::check_input(const Value& input) const {
  Module::check_input(input);
  graph::check_shapes(operation(), {input.sizes()}, name());
}

graph::Convolution1d Conv1d::operation() const {
  return {weight, bias, options.stride, options.padding, options.dilation, options.groups};
}

// Of sequences, not of images.
Width Conv1d::width() const {
  return {0, 0, /*changes=*/true};
}

std::shared_ptr<Conv2d> conv3x3(int64_t in_channels, int64_t out_channels, int64_t stride) {
  return std::make_shared<Conv2d>(Conv2dOptions{in_channels, out_channels, {3, 3}, {stride, stride}, {1, 1}});
}

std::shared_ptr<Conv2d> conv1x1(int64_t in_channels, int64_t out_channels, int64_t stride) {
  return std::make_shared<Conv2d>(Conv2dOptions{in_channels, out_channels, {1, 1}, {stride, stride}});
}

BatchNorm2d::BatchNorm2d(int64_t features, double eps, double momentum)
    : Module("BatchNorm2d"), features(features), eps(eps), momentum(momentum) {
  weight = register_parameter("weight", at::ones({features}));
  bias = register_parameter("bias", at::zeros({features}));
  running_mean = register_buffer("running_mean", at::zeros({features}));
  running_var = register_buffer("running_var", at::ones({features}));
  num_batches_tracked = register_buffer("num_batches_tracked", at::zeros({}, at::kLong));
}

Value BatchNorm2d::compute(const Value& input) {
  check_traced(input, "weight", weight, {features});
  check_traced(input, "bias", bias, {features});
  check_traced(input, "running_mean", running_mean, {features});
  check_traced(input, "running_var", running_var, {features});
  return apply(operation(), {input});
}

void BatchNorm2d::check_input(const Value& input) const {
  Module::check_input(input);
  check_image(input, features);
}

int64_t BatchNorm2d::version() const {
  return 2;
}

Width BatchNorm2d::width() const {
  return {features, features};
}

graph::BatchNorm BatchNorm2d::operation() const {
  return {weight, bias, running_mean, running_var, num_batches_tracked, eps, momentum, in_training(), sync};
}

Linear::Linear(int64_t in_features, int64_t out_features, bool with_bias)
    : Module("Linear"), in_features(in_features), out_features(out_features) {
  const at::Tensor data = new_parameter({out_features, in_features});
  init_default_weight(data);
  weight = register_parameter("weight", data);
  if (with_bias) {
    const at::Tensor bias_data = new_parameter({out_features});
    init_default_bias(bias_data, weight);
    bias = register_parameter("bias", bias_data);
  }
}

Value Linear::compute(const Value& input) {
  check_traced(input, "weight", weight, {out_features, in_features});
  check_traced(input, "bias", bias, {out_features});
  return apply(graph::Linear{weight, bias}, {input});
}

void Linear::check_input(const Value& input) const {
  Module::check_input(input);
  graph::check_shapes(graph::Linear{weight, bias}, {input.sizes()}, name());
}

Width Linear::width() const {
  return {in_features, out_features};
}

ReLU::ReLU(bool in_place) : Module("ReLU"), in_place(in_place) {}

Value ReLU::compute(const Value& input) {
  return apply(graph::Relu{in_place}, {input});
}

Sigmoid::Sigmoid() : Module("Sigmoid") {}

Value Sigmoid::compute(const Value& input) {
  return apply(graph::Sigmoid{}, {input});
}

MaxPool2d::MaxPool2d(const graph::MaxPool& options) : Module("MaxPool2d"), options(options) {}

Value MaxPool2d::compute(const Value& input) {
  return apply(options, {input});
}

void MaxPool2d::check_input(const Value& input) const {
  graph::check_shapes(options, {input.sizes()}, name());
}

AvgPool2d::AvgPool2d(const graph::AveragePool& options) : Module("AvgPool2d"), options(options) {}

Value AvgPool2d::compute(const Value& input) {
  return apply(options, {input});
}

void AvgPool2d::check_input(const Value& input) const {
  graph::check_shapes(options, {input.sizes()}, name());
}

AdaptiveAvgPool2d::AdaptiveAvgPool2d(Size2 output_size)
    : Module("AdaptiveAvgPool2d"), output_size(output_size) {}

Value AdaptiveAvgPool2d::compute(const Value& input) {
  return apply(graph::AdaptiveAveragePool{output_size}, {input});
}

void AdaptiveAvgPool2d::check_input(const Value& input) const {
  graph::check_shapes(graph::AdaptiveAveragePool{output_size}, {input.sizes()}, name());
}

Dropout::Dropout(double probability) : Module("Dropout"), probability(probability) {}

Value Dropout::compute(const Value& input) {
  return in_training() ? apply(graph::Dropout{probability}, {input}) : input;
}

Flatten::Flatten(int64_t start, int64_t end) : Module("Flatten"), start(start), end(end) {}

Value Flatten::compute(const Value& input) {
  return apply(graph::Flatten{start, end}, {input});
}

void Flatten::check_input(const Value& input) const {
  graph::check_shapes(graph::Flatten{start, end}, {input.sizes()}, name());
}

// Channels, height and width become one.
Width Flatten::width() const {
  return {0, 0, /*changes=*/true};
}

Identity::Identity() : Module("Identity") {}

Value Identity::compute(const Value& input) {
  return input;
}

std::shared_ptr<Module> make_head(int64_t features, int64_t classes) {
  if (classes == 0) {
    return std::make_shared<Identity>();
  }
  return std::make_shared<Linear>(features, classes);
}

Sequential::Sequential(std::vector<std::shared_ptr<Module>> given)
    : Module("Sequential"), layers_(std::move(given)) {
  for (size_t i = 0; i < layers_.size(); ++i) {
    add_child(std::to_string(i), layers_[i], layers_[i]);
  }
}

Sequential::Sequential(std::vector<std::pair<std::string, std::shared_ptr<Module>>> given)
    : Module("Sequential"), layers_(given.size()) {
  for (size_t i = 0; i < layers_.size(); ++i) {
    layers_[i] = std::move(given[i].second);
    add_child(given[i].first, layers_[i], layers_[i]);
  }
}

Value Sequential::compute(const Value& input) {
  Value x = input;
  for (const auto& layer : layers_) {
    x = layer->forward(x);
  }
  return x;
}

void Sequential::check_input(const Value& input) const {
  Module::check_input(input);
  // A trace goes to the layer itself, which has a name.
  if (!layers_.empty() && input.trace() == nullptr) {
    layers_.front()->check_input(input);
  }
}

// Each layer is asked once: the question goes down the whole tree.
Width Sequential::width() const {
  Width width;
  for (const auto& layer : layers_) {
    const Width own = layer->width();
    if (own.is_kept()) {
      continue;
    }
    if (!width.changes) {
      width.input = own.input;
      width.changes = true;
    }
    width.output = own.output;
  }
  return width;
}

bool Sequential::begins_with(const Module& child) const {
  for (const auto& layer : layers_) {
    if (layer.get() == &child) {
      return true;
    }
    if (!layer->width().is_kept()) {
      return false;
    }
  }
  return false;
}

bool Sequential::ends_with(const Module& child) const {
  for (auto layer = layers_.rbegin(); layer != layers_.rend(); ++layer) {
    if (layer->get() == &child) {
      return true;
    }
    if (!(*layer)->width().is_kept()) {
      return false;
    }
  }
  return false;
}

// --- made by name
// -----------------------------------------------------------------------------------------------------------

// What both pools are asked for.
template <class Pool>
Pool read_pool(OptionReader& options) {
  Pool pool{options.integer("kernelSize", kMaxWidth), options.integer("stride", kMaxWidth)};
  pool.padding = options.integer("padding", kMaxWidth, 0);
  pool.ceil_mode = options.boolean("ceilMode");
  if (pool.padding > pool.kernel_size / 2) {
    options.fail("ERR_SENET_ARG_RANGE", "padding",
                 "must be at most half of kernelSize (" + std::to_string(pool.kernel_size) + "), got " +
                     std::to_string(pool.padding));
  }
  return pool;
}

// The byte count of a weight must stay inside int64 with room to spare.
constexpr __int128 kMostWeights = __int128{1} << 50;

void check_groups(const OptionReader& options, int64_t in_channels, int64_t out_channels, int64_t groups) {
  for (const auto& [name, channels] :
       {std::pair{"inChannels", in_channels}, std::pair{"outChannels", out_channels}}) {
    if (channels % groups != 0) {
      options.fail(
          "ERR_SENET_ARG_RANGE", name,
          "must be a multiple of groups (" + std::to_string(groups) + "), got " + std::to_string(channels));
    }
  }
}

std::shared_ptr<Module> Conv2d::make(OptionReader& options) {
  Conv2dOptions conv{options.integer("inChannels", kMaxWidth), options.integer("outChannels", kMaxWidth),
                     options.pair("kernelSize", kMaxKernel)};
  conv.stride = options.pair("stride", kMaxWidth);
  conv.padding = options.pair("padding", kMaxWidth, 0);
  conv.dilation = options.pair("dilation", kMaxWidth);
  conv.groups = options.integer("groups", kMaxWidth);
  conv.with_bias = options.boolean("bias");
  options.reject_others();
  check_groups(options, conv.in_channels, conv.out_channels, conv.groups);
  if (static_cast<__int128>(conv.out_channels) * (conv.in_channels / conv.groups) * conv.kernel_size[0] *
          conv.kernel_size[1] >
      kMostWeights) {
    throw Error("ERR_SENET_OUT_OF_MEMORY", "Conv2d: a weight of this size does not fit into memory");
  }
  return std::make_shared<Conv2d>(conv);
}

std::shared_ptr<Module> Conv1d::make(OptionReader& options) {
  Conv1dOptions conv{options.integer("inChannels", kMaxWidth), options.integer("outChannels", kMaxWidth),
                     options.integer("kernelSize", kMaxKernel)};
  conv.stride = options.integer("stride", kMaxWidth);
  conv.padding = options.integer("padding", kMaxWidth, 0);
  conv.dilation = options.integer("dilation", kMaxWidth);
  conv.groups = options.integer("groups", kMaxWidth);
  conv.with_bias = options.boolean("bias");
  options.reject_others();
  check_groups(options, conv.in_channels, conv.out_channels, conv.groups);
  if (static_cast<__int128>(conv.out_channels) * (conv.in_channels / conv.groups) * conv.kernel_size >
      kMostWeights) {
    throw Error("ERR_SENET_OUT_OF_MEMORY", "Conv1d: a weight of this size does not fit into memory");
  }
  return std::make_shared<Conv1d>(conv);
}

std::shared_ptr<Module> BatchNorm2d::make(OptionReader& options) {
  const int64_t features = options.integer("features", kMaxWidth);
  const double eps = options.number("eps", 0, 1e6);
  const double momentum = options.number("momentum", -1, 1);
  options.reject_others();
  return std::make_shared<BatchNorm2d>(features, eps, momentum);
}

std::shared_ptr<Module> Linear::make(OptionReader& options) {
  const int64_t in_features = options.integer("inFeatures", kMaxWidth);
  const int64_t out_features = options.integer("outFeatures", kMaxWidth);
  const bool bias = options.boolean("bias");
  options.reject_others();
  return std::make_shared<Linear>(in_features, out_features, bias);
}

std::shared_ptr<Module> ReLU::make(OptionReader& options) {
  const bool in_place = options.boolean("inPlace");
  options.reject_others();
  return std::make_shared<ReLU>(in_place);
}

std::shared_ptr<Module> AdaptiveAvgPool2d::make(OptionReader& options) {
  const Size2 size = options.pair("outputSize", kMaxWidth);
  options.reject_others();
  return std::make_shared<AdaptiveAvgPool2d>(size);
}

std::shared_ptr<Module> Dropout::make(OptionReader& options) {
  const double probability = options.number("p", 0, 1);
  options.reject_others();
  return std::make_shared<Dropout>(probability);
}

std::shared_ptr<Module> Flatten::make(OptionReader& options) {
  const int64_t start = options.integer("startDim", 63, -64);
  const int64_t end = options.integer("endDim", 63, -64);
  options.reject_others();
  return std::make_shared<Flatten>(start, end);
}

std::shared_ptr<Module> Sequential::make(OptionReader& options) {
  auto modules = options.modules("modules");
  options.reject_others();
  return std::make_shared<Sequential>(std::move(modules));
}

std::shared_ptr<Module> Sigmoid::make(OptionReader& options) {
  options.reject_others();
  return std::make_shared<Sigmoid>();
}

std::shared_ptr<Module> Identity::make(OptionReader& options) {
  options.reject_others();
  return std::make_shared<Identity>();
}

std::shared_ptr<Module> MaxPool2d::make(OptionReader& options) {
  const auto pool = read_pool<graph::MaxPool>(options);
  options.reject_others();
  return std::make_shared<MaxPool2d>(pool);
}

std::shared_ptr<Module> AvgPool2d::make(OptionReader& options) {
  auto pool = read_pool<graph::AveragePool>(options);
  pool.count_include_pad = options.boolean("countIncludePad");
  options.reject_others();
  return std::make_shared<AvgPool2d>(pool);
}

}  // namespace senet::nn
