#include "models/timm_resnet.h"

#include "nn/init.h"

#include <ATen/core/grad_mode.h>

#include <utility>

namespace senet::models {
namespace {

using nn::BatchNorm2d;
using nn::Conv2d;
using nn::ReLU;
using nn::Value;
using Layers = std::vector<std::shared_ptr<nn::Module>>;

constexpr int64_t kMostGroups = 1024;

std::shared_ptr<Conv2d> conv3x3(int64_t in, int64_t out, int64_t stride, int64_t groups) {
  nn::Conv2dOptions options{in, out, {3, 3}, {stride, stride}, {1, 1}};
  options.groups = groups;
  return std::make_shared<Conv2d>(options);
}

std::shared_ptr<nn::Module> make_attention(const TimmResNetOptions& network, int64_t channels) {
  if (network.eca) {
    return std::make_shared<nn::EcaModule>(nn::EcaModule::kernel_size_for(channels));
  }
  const int64_t squeezed = network.rd_channels > 0
                               ? network.rd_channels
                               : nn::make_divisible(static_cast<double>(channels) * network.rd_ratio, 8);
  return std::make_shared<nn::SEModule>(channels, squeezed);
}

std::shared_ptr<nn::Module> make_anti_alias(bool is_used) {
  if (!is_used) {
    return std::make_shared<nn::Identity>();
  }
  return std::make_shared<nn::AvgPool2d>(graph::AveragePool{2, 2});
}

std::shared_ptr<nn::Module> make_stem_pool(const TimmResNetOptions& options, int64_t channels) {
  if (options.replace_stem_pool) {
    Layers layers = {conv3x3(channels, channels, options.anti_alias ? 1 : 2, 1)};
    if (options.anti_alias) {
      layers.push_back(make_anti_alias(true));
    }
    layers.push_back(std::make_shared<BatchNorm2d>(channels));
    layers.push_back(std::make_shared<ReLU>());
    return std::make_shared<nn::Sequential>(std::move(layers));
  }
  if (options.anti_alias) {
    return make_anti_alias(true);
  }
  return std::make_shared<nn::MaxPool2d>(graph::MaxPool{3, 2, 1});
}

std::shared_ptr<nn::Module> make_downsample(const TimmResNetOptions& options, int64_t in, int64_t out,
                                            int64_t stride) {
  if (options.avg_down) {
    std::shared_ptr<nn::Module> pool = std::make_shared<nn::Identity>();
    if (stride != 1) {
      graph::AveragePool average{2, stride};
      average.ceil_mode = true;
      average.count_include_pad = false;
      pool = std::make_shared<nn::AvgPool2d>(average);
    }
    return std::make_shared<nn::Sequential>(
        Layers{std::move(pool), nn::conv1x1(in, out), std::make_shared<BatchNorm2d>(out)});
  }
  const int64_t kernel = stride == 1 ? 1 : options.down_kernel_size;
  const int64_t padding = (stride - 1 + kernel - 1) / 2;
  return std::make_shared<nn::Sequential>(
      Layers{std::make_shared<Conv2d>(
                 nn::Conv2dOptions{in, out, {kernel, kernel}, {stride, stride}, {padding, padding}}),
             std::make_shared<BatchNorm2d>(out)});
}

}  // namespace

TimmBlock::TimmBlock(const TimmResNetOptions& network, int64_t inplanes, int64_t planes, int64_t stride,
                     std::shared_ptr<nn::Module> given_downsample)
    : nn::Module(network.bottleneck ? "Bottleneck" : "BasicBlock") {
  if (network.bottleneck) {
    add_bottleneck(network, inplanes, planes, stride);
  } else {
    add_basic(network, inplanes, planes, stride);
  }
  if (given_downsample) {
    add_child("downsample", downsample, std::move(given_downsample));
  }
}

void TimmBlock::add_basic(const TimmResNetOptions& network, int64_t inplanes, int64_t planes,
                          int64_t stride) {
  const int64_t first = planes / network.block_reduce_first;
  const bool use_aa = network.anti_alias && stride == 2;
  add_child("conv1", conv1, conv3x3(inplanes, first, use_aa ? 1 : stride, 1));
  add_child("bn1", bn1, std::make_shared<BatchNorm2d>(first));
  add_child("act1", act1, std::make_shared<ReLU>());
  add_child("aa", aa, make_anti_alias(use_aa));
  add_child("conv2", conv2, conv3x3(first, planes, 1, 1));
  add_child("bn2", bn2, std::make_shared<BatchNorm2d>(planes));
  add_child("se", se, make_attention(network, planes));
  add_child("act2", act2, std::make_shared<ReLU>());
}

void TimmBlock::add_bottleneck(const TimmResNetOptions& network, int64_t inplanes, int64_t planes,
                               int64_t stride) {
  const int64_t width = planes * network.base_width / 64 * network.cardinality;
  const int64_t first = width / network.block_reduce_first;
  const int64_t out = planes * expansion(network);
  const bool use_aa = network.anti_alias && stride == 2;
  add_child("conv1", conv1, nn::conv1x1(inplanes, first));
  add_child("bn1", bn1, std::make_shared<BatchNorm2d>(first));
  add_child("act1", act1, std::make_shared<ReLU>());
  add_child("conv2", conv2, conv3x3(first, width, use_aa ? 1 : stride, network.cardinality));
  add_child("bn2", bn2, std::make_shared<BatchNorm2d>(width));
  add_child("act2", act2, std::make_shared<ReLU>());
  add_child("aa", aa, make_anti_alias(use_aa));
  add_child("conv3", conv3, nn::conv1x1(width, out));
  add_child("bn3", bn3, std::make_shared<BatchNorm2d>(out));
  add_child("se", se, make_attention(network, out));
  add_child("act3", act3, std::make_shared<ReLU>());
}

Value TimmBlock::compute(const Value& input) {
  Value x = act1->forward(bn1->forward(conv1->forward(input)));
  if (conv3) {
    x = aa->forward(act2->forward(bn2->forward(conv2->forward(x))));
    x = bn3->forward(conv3->forward(x));
  } else {
    x = bn2->forward(conv2->forward(aa->forward(x)));
  }
  x = se->forward(x);
  const Value shortcut = downsample ? downsample->forward(input) : input;
  return (conv3 ? act3 : act2)->forward(apply(graph::Add{/*in_place=*/true}, {x, shortcut}));
}

void TimmBlock::check_input(const Value& input) const {
  nn::Module::check_input(input);
  check_image(input, conv1->options.in_channels);
}

nn::Width TimmBlock::width() const {
  return {conv1->options.in_channels, (conv3 ? conv3 : conv2)->options.out_channels};
}

void TimmBlock::zero_init_last() {
  if (!nn::SkipInitScope::active()) {
    const at::NoGradGuard no_grad;
    (bn3 ? bn3 : bn2)->weight.zero_();
  }
}

TimmResNet::TimmResNet(const TimmResNetOptions& options) : FourStages("ResNet") {
  const int64_t channels = add_stem(options);
  const int64_t expansion = TimmBlock::expansion(options);
  add_stages(
      {"global_pool", "fc", options.layers, expansion, options.num_classes, options.drop_rate}, channels,
      [&](int64_t in, int64_t out, int64_t stride) { return make_downsample(options, in, out, stride); },
      [&](int64_t in, int64_t planes, int64_t stride, std::shared_ptr<nn::Module> downsample) {
        return std::make_shared<TimmBlock>(options, in, planes, stride, std::move(downsample));
      });
  nn::init_kaiming_normal(*this, nn::Fan::kOut);
  if (options.zero_init_last) {
    for (const auto& stage : stages_) {
      for (const auto& block : stage->layers()) {
        dynamic_cast<TimmBlock&>(*block).zero_init_last();
      }
    }
  }
}

int64_t TimmResNet::add_stem(const TimmResNetOptions& options) {
  const int64_t width = options.stem_width;
  const int64_t inplanes = options.deep_stem ? width * 2 : 64;
  if (options.deep_stem) {
    const int64_t first = options.tiered_stem ? 3 * (width / 4) : width;
    add_child("conv1", conv1_,
              std::make_shared<nn::Sequential>(Layers{
                  conv3x3(options.in_channels, first, 2, 1), std::make_shared<BatchNorm2d>(first),
                  std::make_shared<ReLU>(), conv3x3(first, width, 1, 1), std::make_shared<BatchNorm2d>(width),
                  std::make_shared<ReLU>(), conv3x3(width, inplanes, 1, 1)}));
  } else {
    add_child(
        "conv1", conv1_,
        std::make_shared<Conv2d>(nn::Conv2dOptions{options.in_channels, inplanes, {7, 7}, {2, 2}, {3, 3}}));
  }
  add_child("bn1", bn1_, std::make_shared<BatchNorm2d>(inplanes));
  add_child("act1", act1_, std::make_shared<ReLU>());
  add_child("maxpool", maxpool_, make_stem_pool(options, inplanes));
  return inplanes;
}

Value TimmResNet::stem(const Value& input) {
  return maxpool_->forward(act1_->forward(bn1_->forward(conv1_->forward(input))));
}

const nn::Module& TimmResNet::first() const {
  return *conv1_;
}

std::shared_ptr<nn::Module> TimmResNet::make(nn::OptionReader& options) {
  TimmResNetOptions made;
  const std::string block = options.string("block");
  made.bottleneck = block == "Bottleneck";
  made.layers = options.depths("layers");
  made.num_classes = options.integer("numClasses", nn::kMaxWidth, 0);
  made.in_channels = options.integer("inChannels", nn::kMaxWidth);
  made.cardinality = options.integer("cardinality", kMostGroups);
  made.base_width = options.integer("baseWidth", kMostGroups);
  made.stem_width = options.integer("stemWidth", kMostGroups);
  const std::string stem = options.string("stemType");
  made.deep_stem = !stem.empty();
  made.tiered_stem = stem == "deep_tiered";
  made.replace_stem_pool = options.boolean("replaceStemPool");
  made.avg_down = options.boolean("avgDown");
  made.down_kernel_size = options.integer("downKernelSize", nn::kMaxKernel);
  made.block_reduce_first = options.integer("blockReduceFirst", kMostGroups);
  made.anti_alias = options.boolean("antiAlias");
  made.eca = options.string("attnLayer") == "eca";
  made.rd_ratio = options.number("rdRatio", 0, 1);
  if (options.has("rdChannels")) {
    made.rd_channels = options.integer("rdChannels", nn::kMaxWidth);
  }
  made.drop_rate = options.number("dropRate", 0, 1);
  made.zero_init_last = options.boolean("zeroInitLast");
  options.reject_others();
  if (!made.bottleneck && block != "BasicBlock") {
    options.fail("ERR_SENET_ARG_RANGE", "block", "must be 'BasicBlock' or 'Bottleneck', got '" + block + "'");
  }
  if (!made.bottleneck && (made.cardinality != 1 || made.base_width != 64)) {
    options.fail("ERR_SENET_ARG_RANGE", "cardinality", "a BasicBlock has one group of the width 64");
  }
  // Grouped convolutions need as many channels.
  const int64_t narrowest = 64 * made.base_width / 64 * made.cardinality;
  if (made.bottleneck && (narrowest < 1 || narrowest / made.block_reduce_first % made.cardinality != 0 ||
                          narrowest / made.block_reduce_first < 1)) {
    options.fail("ERR_SENET_ARG_RANGE", "blockReduceFirst",
                 "leaves no channels for " + std::to_string(made.cardinality) + " groups");
  }
  return std::make_shared<TimmResNet>(made);
}

}  // namespace senet::models
