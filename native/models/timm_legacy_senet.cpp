#include "models/timm_legacy_senet.h"

#include "nn/init.h"

#include <map>
#include <utility>

namespace senet::models {
namespace {

using nn::BatchNorm2d;
using nn::Conv2d;
using nn::ReLU;
using nn::Value;

std::shared_ptr<Conv2d> conv(int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t padding,
                             int64_t groups = 1) {
  nn::Conv2dOptions options{in, out, {kernel, kernel}, {stride, stride}, {padding, padding}};
  options.groups = groups;
  return std::make_shared<Conv2d>(options);
}

const std::map<std::string, LegacyBlockKind>& block_kinds() {
  static const std::map<std::string, LegacyBlockKind> kinds = {
      {"SEResNetBlock", LegacyBlockKind::kResNetBlock},
      {"SEResNetBottleneck", LegacyBlockKind::kResNetBottleneck},
      {"SEResNeXtBottleneck", LegacyBlockKind::kResNeXtBottleneck},
      {"SEBottleneck", LegacyBlockKind::kBottleneck},
  };
  return kinds;
}

// Channels behind the first and the second convolution of a bottleneck.
std::pair<int64_t, int64_t> widths_of(const LegacySENetOptions& network, int64_t planes) {
  switch (network.block) {
    case LegacyBlockKind::kResNeXtBottleneck: {
      const int64_t base_width = 4;
      const int64_t width = planes * base_width / 64 * network.groups;
      return {width, width};
    }
    case LegacyBlockKind::kBottleneck:
      return {planes * 2, planes * 4};
    default:
      return {planes, planes};
  }
}

std::shared_ptr<nn::Sequential> make_stem(const LegacySENetOptions& options) {
  std::vector<std::pair<std::string, std::shared_ptr<nn::Module>>> layers;
  const auto add = [&](const std::string& number, std::shared_ptr<Conv2d> layer) {
    const int64_t out = layer->options.out_channels;
    layers.emplace_back("conv" + number, std::move(layer));
    layers.emplace_back("bn" + number, std::make_shared<BatchNorm2d>(out));
    layers.emplace_back("relu" + number, std::make_shared<ReLU>());
  };
  if (options.input_3x3) {
    add("1", conv(options.in_channels, 64, 3, 2, 1));
    add("2", conv(64, 64, 3, 1, 1));
    add("3", conv(64, options.inplanes, 3, 1, 1));
  } else {
    add("1", conv(options.in_channels, options.inplanes, 7, 2, 3));
  }
  return std::make_shared<nn::Sequential>(std::move(layers));
}

}  // namespace

LegacySEBlock::LegacySEBlock(const LegacySENetOptions& network, int64_t inplanes, int64_t planes,
                             int64_t stride, std::shared_ptr<nn::Module> given_downsample)
    : nn::Module("LegacySEBlock") {
  const int64_t out = planes * expansion(network.block);
  if (network.block == LegacyBlockKind::kResNetBlock) {
    add_child("conv1", conv1, conv(inplanes, planes, 3, stride, 1));
    add_child("bn1", bn1, std::make_shared<BatchNorm2d>(planes));
    add_child("conv2", conv2, conv(planes, planes, 3, 1, 1, network.groups));
    add_child("bn2", bn2, std::make_shared<BatchNorm2d>(planes));
  } else {
    const auto [first, second] = widths_of(network, planes);
    const bool is_caffe = network.block == LegacyBlockKind::kResNetBottleneck;
    add_child("conv1", conv1, conv(inplanes, first, 1, is_caffe ? stride : 1, 0));
    add_child("bn1", bn1, std::make_shared<BatchNorm2d>(first));
    add_child("conv2", conv2, conv(first, second, 3, is_caffe ? 1 : stride, 1, network.groups));
    add_child("bn2", bn2, std::make_shared<BatchNorm2d>(second));
    add_child("conv3", conv3, conv(second, out, 1, 1, 0));
    add_child("bn3", bn3, std::make_shared<BatchNorm2d>(out));
  }
  add_child("relu", relu, std::make_shared<ReLU>());
  add_child("se_module", se_module, std::make_shared<nn::SEModule>(out, out / network.reduction));
  if (given_downsample) {
    add_child("downsample", downsample, std::move(given_downsample));
  }
}

Value LegacySEBlock::compute(const Value& input) {
  Value x = relu->forward(bn1->forward(conv1->forward(input)));
  x = bn2->forward(conv2->forward(x));
  // PARITY: SEResNetBlock has a ReLU here too, before its SE.
  x = relu->forward(x);
  if (conv3) {
    x = bn3->forward(conv3->forward(x));
  }
  const Value shortcut = downsample ? downsample->forward(input) : input;
  x = se_module->forward(x);
  return relu->forward(apply(graph::Add{/*in_place=*/true}, {x, shortcut}));
}

void LegacySEBlock::check_input(const Value& input) const {
  nn::Module::check_input(input);
  check_image(input, conv1->options.in_channels);
}

nn::Width LegacySEBlock::width() const {
  return {conv1->options.in_channels, (conv3 ? conv3 : conv2)->options.out_channels};
}

LegacySENet::LegacySENet(const LegacySENetOptions& options) : FourStages("SENet") {
  add_child("layer0", layer0_, make_stem(options));
  graph::MaxPool pool{3, 2};
  pool.ceil_mode = true;
  add_child("pool0", pool0_, std::make_shared<nn::MaxPool2d>(pool));
  const int64_t expansion = LegacySEBlock::expansion(options.block);
  add_stages(
      {"global_pool", "last_linear", options.layers, expansion, options.num_classes, options.drop_rate},
      options.inplanes,
      [&](int64_t in, int64_t out, int64_t stride) {
        // Of the first stage always 1 x 1.
        const bool is_later = stride != 1;
        return std::make_shared<nn::Sequential>(std::vector<std::shared_ptr<nn::Module>>{
            conv(in, out, is_later ? options.downsample_kernel_size : 1, stride,
                 is_later ? options.downsample_padding : 0),
            std::make_shared<BatchNorm2d>(out)});
      },
      [&](int64_t in, int64_t planes, int64_t stride, std::shared_ptr<nn::Module> downsample) {
        return std::make_shared<LegacySEBlock>(options, in, planes, stride, std::move(downsample));
      });
  nn::init_kaiming_normal(*this, nn::Fan::kOut);
}

Value LegacySENet::stem(const Value& input) {
  return pool0_->forward(layer0_->forward(input));
}

const nn::Module& LegacySENet::first() const {
  return *layer0_;
}

std::shared_ptr<nn::Module> LegacySENet::make(nn::OptionReader& options) {
  const std::string block = options.string("block");
  const auto kind = block_kinds().find(block);
  if (kind == block_kinds().end()) {
    options.fail(
        "ERR_SENET_ARG_RANGE", "block",
        "must be 'SEResNetBlock', 'SEResNetBottleneck', 'SEResNeXtBottleneck' or 'SEBottleneck', got '" +
            block + "'");
  }
  LegacySENetOptions made{kind->second, options.depths("layers")};
  made.groups = options.integer("groups", 64);
  made.reduction = options.integer("reduction", 64);
  made.inplanes = options.integer("inplanes", nn::kMaxWidth);
  made.input_3x3 = options.boolean("input3x3");
  made.downsample_kernel_size = options.integer("downsampleKernelSize", nn::kMaxKernel);
  made.downsample_padding = options.integer("downsamplePadding", nn::kMaxKernel, 0);
  made.num_classes = options.integer("numClasses", nn::kMaxWidth, 0);
  made.in_channels = options.integer("inChannels", nn::kMaxWidth);
  made.drop_rate = options.number("dropRate", 0, 1);
  options.reject_others();
  for (const int64_t width : {widths_of(made, 64).first, widths_of(made, 64).second}) {
    if (width % made.groups != 0 || width < 1) {
      options.fail("ERR_SENET_ARG_RANGE", "groups",
                   "must divide " + std::to_string(width) + " channels, got " + std::to_string(made.groups));
    }
  }
  return std::make_shared<LegacySENet>(made);
}

}  // namespace senet::models
