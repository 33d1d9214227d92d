#include "models/pytorchcv_se_resnet.h"

#include "nn/init.h"

#include <string>
#include <utility>

namespace senet::models {
namespace {

using nn::BatchNorm2d;
using nn::Conv2d;
using nn::ReLU;
using nn::Sequential;
using nn::Value;
using Named = std::vector<std::pair<std::string, std::shared_ptr<nn::Module>>>;

constexpr int64_t kReduction = 16;

std::shared_ptr<Conv2d> conv(int64_t in, int64_t out, int64_t kernel, int64_t stride = 1) {
  const int64_t padding = kernel / 2;
  return std::make_shared<Conv2d>(
      nn::Conv2dOptions{in, out, {kernel, kernel}, {stride, stride}, {padding, padding}});
}

// ConvBlock.
std::shared_ptr<Sequential> conv_block(std::shared_ptr<Conv2d> convolution, bool with_activation = true) {
  const int64_t out = convolution->options.out_channels;
  Named layers = {{"conv", std::move(convolution)}, {"bn", std::make_shared<BatchNorm2d>(out)}};
  if (with_activation) {
    layers.emplace_back("activ", std::make_shared<ReLU>());
  }
  return std::make_shared<Sequential>(std::move(layers));
}

// Of a unit's branch.
std::vector<std::shared_ptr<Conv2d>> branch(const PytorchcvOptions& network, int64_t in, int64_t out,
                                            int64_t stride) {
  if (!network.bottleneck) {
    return {conv(in, out, 3, stride), conv(out, out, 3)};
  }
  const int64_t middle = out / 4;
  const bool first = network.conv1_stride;
  return {conv(in, middle, 1, first ? stride : 1), conv(middle, middle, 3, first ? 1 : stride),
          conv(middle, out, 1)};
}

std::string numbered(const char* name, size_t number) {
  return name + std::to_string(number);
}

std::shared_ptr<Sequential> make_stem(const PytorchcvOptions& network, int64_t out) {
  if (network.cifar) {
    return conv_block(conv(network.in_channels, out, 3));
  }
  std::shared_ptr<Conv2d> first = conv(network.in_channels, out, 7, 2);
  std::shared_ptr<nn::Module> pool = std::make_shared<nn::MaxPool2d>(graph::MaxPool{3, 2, 1});
  if (network.preactivation) {
    return std::make_shared<Sequential>(Named{{"conv", std::move(first)},
                                              {"bn", std::make_shared<BatchNorm2d>(out)},
                                              {"activ", std::make_shared<ReLU>()},
                                              {"pool", std::move(pool)}});
  }
  return std::make_shared<Sequential>(
      Named{{"conv", conv_block(std::move(first))}, {"pool", std::move(pool)}});
}

std::shared_ptr<nn::Module> make_unit(const PytorchcvOptions& network, int64_t in, int64_t out,
                                      int64_t stride) {
  if (network.preactivation) {
    return std::make_shared<SEPreResUnit>(network, in, out, stride);
  }
  return std::make_shared<SEResUnit>(network, in, out, stride);
}

// Changes `channels` from those in front of the stages to those behind them.
std::shared_ptr<Sequential> make_features(const PytorchcvOptions& network, int64_t& channels) {
  Named parts = {{"init_block", make_stem(network, channels)}};
  const int64_t narrowest = channels * (network.bottleneck ? 4 : 1);
  for (size_t stage = 0; stage < network.layers.size(); ++stage) {
    const int64_t out = narrowest << stage;
    Named units;
    for (int64_t unit = 0; unit < network.layers[stage]; ++unit) {
      const int64_t stride = stage > 0 && unit == 0 ? 2 : 1;
      units.emplace_back(numbered("unit", static_cast<size_t>(unit) + 1),
                         make_unit(network, channels, out, stride));
      channels = out;
    }
    parts.emplace_back(numbered("stage", stage + 1), std::make_shared<Sequential>(std::move(units)));
  }
  // PARITY: those for CIFAR have no activation behind their last addition.
  if (network.preactivation && !network.cifar) {
    parts.emplace_back("post_activ",
                       std::make_shared<Sequential>(Named{{"bn", std::make_shared<BatchNorm2d>(channels)},
                                                          {"activ", std::make_shared<ReLU>()}}));
  }
  // The mean of all pixels, as the original's pools of 8 x 8 and 7 x 7 take where images have the usual size.
  parts.emplace_back("final_pool", std::make_shared<nn::AdaptiveAvgPool2d>());
  return std::make_shared<Sequential>(std::move(parts));
}

}  // namespace

PreConvBlock::PreConvBlock(std::shared_ptr<Conv2d> convolution) : nn::Module("PreConvBlock") {
  add_child("bn", bn, std::make_shared<BatchNorm2d>(convolution->options.in_channels));
  add_child("activ", activ, std::make_shared<ReLU>());
  add_child("conv", conv, std::move(convolution));
}

Value PreConvBlock::activate(const Value& input) {
  return activ->forward(bn->forward(input));
}

Value PreConvBlock::compute(const Value& input) {
  return conv->forward(activate(input));
}

void PreConvBlock::check_input(const Value& input) const {
  nn::Module::check_input(input);
  check_image(input, conv->options.in_channels);
}

nn::Width PreConvBlock::width() const {
  return conv->width();
}

PreResBody::PreResBody(std::vector<std::shared_ptr<Conv2d>> convolutions) : nn::Module("PreResBody") {
  add_child("conv1", conv1, std::make_shared<PreConvBlock>(convolutions[0]));
  add_child("conv2", conv2, std::make_shared<PreConvBlock>(convolutions[1]));
  if (convolutions.size() > 2) {
    add_child("conv3", conv3, std::make_shared<PreConvBlock>(convolutions[2]));
  }
}

Value PreResBody::compute_activated(const Value& activated) {
  const Value x = conv2->forward(conv1->conv->forward(activated));
  return conv3 ? conv3->forward(x) : x;
}

Value PreResBody::compute(const Value& input) {
  return compute_activated(conv1->activate(input));
}

void PreResBody::check_input(const Value& input) const {
  conv1->check_input(input);
}

nn::Width PreResBody::width() const {
  return {conv1->width().input, (conv3 ? conv3 : conv2)->width().output};
}

PytorchcvSEBlock::PytorchcvSEBlock(int64_t channels) : nn::Module("SEBlock") {
  const auto with_bias = [](int64_t in, int64_t out) {
    nn::Conv2dOptions options{in, out, {1, 1}};
    options.with_bias = true;
    return std::make_shared<Conv2d>(options);
  };
  add_child("pool", pool, std::make_shared<nn::AdaptiveAvgPool2d>());
  add_child("conv1", conv1, with_bias(channels, channels / kReduction));
  add_child("activ", activ, std::make_shared<ReLU>());
  add_child("conv2", conv2, with_bias(channels / kReduction, channels));
  add_child("sigmoid", sigmoid, std::make_shared<nn::Sigmoid>());
}

Value PytorchcvSEBlock::compute(const Value& input) {
  const Value squeezed = activ->forward(conv1->forward(pool->forward(input)));        // N x C / 16 x 1 x 1
  return apply(graph::Scale{}, {input, sigmoid->forward(conv2->forward(squeezed))});  // N x C x H x W
}

void PytorchcvSEBlock::check_input(const Value& input) const {
  nn::Module::check_input(input);
  check_image(input, conv1->options.in_channels);
}

nn::Width PytorchcvSEBlock::width() const {
  return {conv1->options.in_channels, conv2->options.out_channels};
}

SEResUnit::SEResUnit(const PytorchcvOptions& network, int64_t in_channels, int64_t out_channels,
                     int64_t stride)
    : nn::Module("SEResUnit"), width_{in_channels, out_channels} {
  Named layers;
  const std::vector<std::shared_ptr<Conv2d>> convolutions =
      branch(network, in_channels, out_channels, stride);
  for (size_t i = 0; i < convolutions.size(); ++i) {
    const bool is_last = i + 1 == convolutions.size();
    layers.emplace_back(numbered("conv", i + 1), conv_block(convolutions[i], !is_last));
  }
  add_child("body", body, std::make_shared<Sequential>(std::move(layers)));
  add_child("se", se, std::make_shared<PytorchcvSEBlock>(out_channels));
  if (in_channels != out_channels || stride != 1) {
    add_child("identity_conv", identity_conv,
              conv_block(conv(in_channels, out_channels, 1, stride), /*with_activation=*/false));
  }
  add_child("activ", activ, std::make_shared<ReLU>());
}

Value SEResUnit::compute(const Value& input) {
  const Value identity = identity_conv ? identity_conv->forward(input) : input;
  const Value x = se->forward(body->forward(input));
  return activ->forward(apply(graph::Add{/*in_place=*/true}, {x, identity}));
}

void SEResUnit::check_input(const Value& input) const {
  nn::Module::check_input(input);
  check_image(input, width_.input);
}

nn::Width SEResUnit::width() const {
  return width_;
}

SEPreResUnit::SEPreResUnit(const PytorchcvOptions& network, int64_t in_channels, int64_t out_channels,
                           int64_t stride)
    : nn::Module("SEPreResUnit") {
  add_child("body", body, std::make_shared<PreResBody>(branch(network, in_channels, out_channels, stride)));
  add_child("se", se, std::make_shared<PytorchcvSEBlock>(out_channels));
  if (in_channels != out_channels || stride != 1) {
    add_child("identity_conv", identity_conv, conv(in_channels, out_channels, 1, stride));
  }
}

Value SEPreResUnit::compute(const Value& input) {
  const Value activated = body->conv1->activate(input);
  const Value x = se->forward(body->compute_activated(activated));
  const Value identity = identity_conv ? identity_conv->forward(activated) : input;
  return apply(graph::Add{/*in_place=*/true}, {x, identity});
}

void SEPreResUnit::check_input(const Value& input) const {
  body->check_input(input);
}

nn::Width SEPreResUnit::width() const {
  return body->width();
}

PytorchcvSEResNet::PytorchcvSEResNet(const PytorchcvOptions& given)
    : nn::Module("PytorchcvSEResNet"), options(given) {
  int64_t channels = options.cifar ? 16 : 64;
  add_child("features", features, make_features(options, channels));
  add_head("output", output, channels, nn::make_head(channels, options.num_classes));
  nn::init_kaiming_uniform(*this);
}

Value PytorchcvSEResNet::compute(const Value& input) {
  return output->forward(apply(graph::Flatten{}, {features->forward(input)}));  // N x classes
}

void PytorchcvSEResNet::check_input(const Value& input) const {
  nn::Module::check_input(input);
  check_image(input, width().input);
}

nn::InputSize PytorchcvSEResNet::input_size() const {
  return options.cifar ? nn::InputSize{{32, 32}} : nn::InputSize{{224, 224}};
}

nn::Width PytorchcvSEResNet::width() const {
  return {features->width().input, head_width("output")};
}

bool PytorchcvSEResNet::begins_with(const nn::Module& child) const {
  return &child == features.get();
}

bool PytorchcvSEResNet::ends_with(const nn::Module& child) const {
  return &child == output.get();
}

std::shared_ptr<nn::Module> PytorchcvSEResNet::make(nn::OptionReader& options) {
  PytorchcvOptions made;
  made.cifar = options.has("unitsPerStage");
  if (made.cifar) {
    made.layers.assign(3, options.integer("unitsPerStage", nn::kMaxDepth));
  } else {
    const std::array<int64_t, 4> depths = options.depths("layers");
    made.layers.assign(depths.begin(), depths.end());
  }
  made.bottleneck = options.boolean("bottleneck");
  made.conv1_stride = options.boolean("conv1Stride");
  made.preactivation = options.boolean("preactivation");
  made.num_classes = options.integer("numClasses", nn::kMaxWidth, 0);
  made.in_channels = options.integer("inChannels", nn::kMaxWidth);
  options.reject_others();
  return std::make_shared<PytorchcvSEResNet>(made);
}

}  // namespace senet::models
