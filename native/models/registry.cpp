#include "models/registry.h"

#include "core/error.h"
#include "models/cifar_se_resnet.h"
#include "models/se_inception_v3.h"
#include "models/se_resnet.h"

#include <optional>
#include <set>
#include <string_view>
#include <utility>

namespace senet::models {
namespace {

// Bounds that keep the byte count of every weight far inside int64; memory ends long before.
constexpr int64_t kMaxWidth = 1 << 24;
constexpr int64_t kMaxDepth = 1000;
constexpr int64_t kMaxKernel = 1 << 12;

/// Takes options one by one with their checks; what was not asked for is unknown.
class OptionReader {
 public:
  OptionReader(std::string type, const Options& options) : type_(std::move(type)), options_(options) {}

  int64_t integer(const std::string& name, int64_t max, int64_t min = 1) {
    const auto value = get<int64_t>(name, "an integer");
    check_range(name, value, max, min);
    return value;
  }

  double number(const std::string& name, double min, double max) {
    const auto found = options_.find(name);
    const bool is_integer = found != options_.end() && std::holds_alternative<int64_t>(found->second);
    const double value =
        is_integer ? static_cast<double>(get<int64_t>(name, "a number")) : get<double>(name, "a number");
    if (!(value >= min && value <= max)) {
      fail("ERR_SENET_ARG_RANGE", name,
           "must be a number from " + std::to_string(min) + " to " + std::to_string(max) + ", got " +
               std::to_string(value));
    }
    return value;
  }

  nn::Size2 pair(const std::string& name, int64_t max, int64_t min = 1) {
    const auto values = get<std::vector<int64_t>>(name, "an array of two integers");
    if (values.size() != 2) {
      fail("ERR_SENET_ARG_RANGE", name, "must have two integers, got " + std::to_string(values.size()));
    }
    for (const int64_t value : values) {
      check_range(name, value, max, min);
    }
    return {values[0], values[1]};
  }

  bool boolean(const std::string& name) {
    return get<bool>(name, "a boolean");
  }

  std::string string(const std::string& name) {
    return get<std::string>(name, "a string");
  }

  std::array<int64_t, 4> depths(const std::string& name) {
    const auto values = get<std::vector<int64_t>>(name, "an array of four integers");
    if (values.size() != 4) {
      fail("ERR_SENET_ARG_RANGE", name, "must have four integers, got " + std::to_string(values.size()));
    }
    std::array<int64_t, 4> depths{};
    for (size_t i = 0; i < depths.size(); ++i) {
      check_range(name + "[" + std::to_string(i) + "]", values[i], kMaxDepth);
      depths[i] = values[i];
    }
    return depths;
  }

  /// The reduction of an SELayer on `channels`: at most that many, or its hidden layer would be empty.
  int64_t reduction(int64_t channels) {
    return integer("reduction", channels);
  }

  bool has(const std::string& name) const {
    return options_.count(name) != 0;
  }

  std::shared_ptr<nn::Module> module(const std::string& name) {
    return get<std::shared_ptr<nn::Module>>(name, "a module");
  }

  std::vector<std::shared_ptr<nn::Module>> modules(const std::string& name) {
    return get<std::vector<std::shared_ptr<nn::Module>>>(name, "an array of modules");
  }

  [[noreturn]] void fail(const char* code, const std::string& name, const std::string& what) const {
    throw Error(code, type_ + ": " + name + " " + what);
  }

  void reject_others() const {
    for (const auto& [name, value] : options_) {
      if (read_.count(name) == 0) {
        throw Error("ERR_SENET_UNKNOWN_OPTION", type_ + " has no option '" + name + "'");
      }
    }
  }

 private:
  template <class T>
  T get(const std::string& name, const char* expected) {
    const auto found = options_.find(name);
    if (found == options_.end()) {
      fail("ERR_SENET_ARG_MISSING", name, "is required");
    }
    const T* value = std::get_if<T>(&found->second);
    if (value == nullptr) {
      fail("ERR_SENET_ARG_TYPE", name, std::string("must be ") + expected);
    }
    read_.insert(name);
    return *value;
  }

  void check_range(const std::string& name, int64_t value, int64_t max, int64_t min = 1) const {
    if (value >= min && value <= max) {
      return;
    }
    fail("ERR_SENET_ARG_RANGE", name,
         "must be an integer from " + std::to_string(min) + " to " + std::to_string(max) + ", got " +
             std::to_string(value));
  }

  const std::string type_;
  const Options& options_;
  std::set<std::string> read_;
};

// Each of these reads all its options, then rejects the others, then builds.
using Factory = std::shared_ptr<nn::Module> (*)(OptionReader&);

std::shared_ptr<nn::Module> make_se_layer(OptionReader& options) {
  const int64_t channel = options.integer("channel", kMaxWidth);
  const int64_t reduction = options.reduction(channel);
  options.reject_others();
  return std::make_shared<nn::SELayer>(channel, reduction);
}

template <class Block>
std::shared_ptr<nn::Module> make_block(OptionReader& options) {
  nn::BlockOptions block{options.integer("inplanes", kMaxWidth), options.integer("planes", kMaxWidth)};
  block.stride = options.integer("stride", kMaxWidth);
  block.reduction = options.reduction(block.planes * Block::kExpansion);
  if (options.has("downsample")) {
    block.downsample = options.module("downsample");
  }
  options.reject_others();
  return std::make_shared<Block>(block);
}

std::shared_ptr<nn::Module> make_cifar_block(OptionReader& options) {
  const int64_t inplanes = options.integer("inplanes", kMaxWidth);
  const int64_t planes = options.integer("planes", kMaxWidth);
  const int64_t stride = options.integer("stride", kMaxWidth);
  const int64_t reduction = options.reduction(planes);
  options.reject_others();
  return std::make_shared<nn::CifarSEBasicBlock>(inplanes, planes, stride, reduction);
}

std::shared_ptr<nn::Module> make_se_resnet(OptionReader& options) {
  const std::string block = options.string("block");
  const std::array<int64_t, 4> layers = options.depths("layers");
  const int64_t num_classes = options.integer("numClasses", kMaxWidth);
  const int64_t in_channels = options.integer("inChannels", kMaxWidth);
  options.reject_others();
  if (block == "SEBasicBlock") {
    return std::make_shared<SEBasicResNet>("SEResNet", layers, num_classes, in_channels);
  }
  if (block == "SEBottleneck") {
    return std::make_shared<SEBottleneckResNet>("SEResNet", layers, num_classes, in_channels);
  }
  options.fail("ERR_SENET_ARG_RANGE", "block",
               "must be 'SEBasicBlock' or 'SEBottleneck', got '" + block + "'");
}

template <class Model>
std::shared_ptr<nn::Module> make_cifar_model(OptionReader& options) {
  constexpr int64_t kFirstStageWidth = 16;
  const int64_t n_size = options.integer("nSize", kMaxDepth);
  const int64_t num_classes = options.integer("numClasses", kMaxWidth);
  const int64_t reduction = options.reduction(kFirstStageWidth);
  const int64_t in_channels = options.integer("inChannels", kMaxWidth);
  options.reject_others();
  return std::make_shared<Model>(n_size, num_classes, reduction, in_channels);
}

nn::Recalibrate to_recalibrate(const OptionReader& options, const std::string& name) {
  if (name == "none") {
    return nn::Recalibrate::kNone;
  }
  if (name == "input") {
    return nn::Recalibrate::kInput;
  }
  if (name == "output") {
    return nn::Recalibrate::kOutput;
  }
  options.fail("ERR_SENET_ARG_RANGE", "recalibrate",
               "must be 'none', 'input' or 'output', got '" + name + "'");
}

std::shared_ptr<nn::Module> make_se_inception(OptionReader& options) {
  const InceptionOptions inception{options.integer("numClasses", kMaxWidth), options.boolean("auxLogits"),
                                   options.boolean("transformInput"),
                                   options.integer("inChannels", kMaxWidth)};
  const nn::Recalibrate where = to_recalibrate(options, options.string("recalibrate"));
  options.reject_others();
  if (inception.transform_input && inception.in_channels != 3) {
    options.fail("ERR_SENET_ARG_RANGE", "inChannels",
                 "must be 3 with transformInput, got " + std::to_string(inception.in_channels));
  }
  return std::make_shared<SEInception3>(inception, where);
}

std::shared_ptr<nn::Module> make_conv2d(OptionReader& options) {
  nn::Conv2dOptions conv{options.integer("inChannels", kMaxWidth), options.integer("outChannels", kMaxWidth),
                         options.pair("kernelSize", kMaxKernel)};
  conv.stride = options.pair("stride", kMaxWidth);
  conv.padding = options.pair("padding", kMaxWidth, 0);
  conv.dilation = options.pair("dilation", kMaxWidth);
  conv.groups = options.integer("groups", kMaxWidth);
  conv.with_bias = options.boolean("bias");
  options.reject_others();
  for (const auto& [name, channels] :
       {std::pair{"inChannels", conv.in_channels}, std::pair{"outChannels", conv.out_channels}}) {
    if (channels % conv.groups != 0) {
      options.fail("ERR_SENET_ARG_RANGE", name,
                   "must be a multiple of groups (" + std::to_string(conv.groups) + "), got " +
                       std::to_string(channels));
    }
  }
  // The byte count of the weight must stay inside int64 with room to spare.
  if (static_cast<__int128>(conv.out_channels) * (conv.in_channels / conv.groups) * conv.kernel_size[0] *
          conv.kernel_size[1] >
      (__int128{1} << 50)) {
    throw Error("ERR_SENET_OUT_OF_MEMORY", "Conv2d: a weight of this size does not fit into memory");
  }
  return std::make_shared<nn::Conv2d>(conv);
}

std::shared_ptr<nn::Module> make_batch_norm(OptionReader& options) {
  const int64_t features = options.integer("features", kMaxWidth);
  const double eps = options.number("eps", 0, 1e6);
  const double momentum = options.number("momentum", -1, 1);
  options.reject_others();
  return std::make_shared<nn::BatchNorm2d>(features, eps, momentum);
}

std::shared_ptr<nn::Module> make_linear(OptionReader& options) {
  const int64_t in_features = options.integer("inFeatures", kMaxWidth);
  const int64_t out_features = options.integer("outFeatures", kMaxWidth);
  const bool bias = options.boolean("bias");
  options.reject_others();
  return std::make_shared<nn::Linear>(in_features, out_features, bias);
}

std::shared_ptr<nn::Module> make_relu(OptionReader& options) {
  const bool in_place = options.boolean("inPlace");
  options.reject_others();
  return std::make_shared<nn::ReLU>(in_place);
}

template <class Layer>
std::shared_ptr<nn::Module> make_plain(OptionReader& options) {
  options.reject_others();
  return std::make_shared<Layer>();
}

template <class Pool>
std::shared_ptr<nn::Module> make_pool(OptionReader& options) {
  const int64_t kernel_size = options.integer("kernelSize", kMaxWidth);
  const int64_t stride = options.integer("stride", kMaxWidth);
  const int64_t padding = options.integer("padding", kMaxWidth, 0);
  options.reject_others();
  if (padding > kernel_size / 2) {
    options.fail("ERR_SENET_ARG_RANGE", "padding",
                 "must be at most half of kernelSize (" + std::to_string(kernel_size) + "), got " +
                     std::to_string(padding));
  }
  return std::make_shared<Pool>(kernel_size, stride, padding);
}

std::shared_ptr<nn::Module> make_adaptive_pool(OptionReader& options) {
  const nn::Size2 size = options.pair("outputSize", kMaxWidth);
  options.reject_others();
  return std::make_shared<nn::AdaptiveAvgPool2d>(size);
}

std::shared_ptr<nn::Module> make_dropout(OptionReader& options) {
  const double probability = options.number("p", 0, 1);
  options.reject_others();
  return std::make_shared<nn::Dropout>(probability);
}

std::shared_ptr<nn::Module> make_flatten(OptionReader& options) {
  const int64_t start = options.integer("startDim", 63, -64);
  const int64_t end = options.integer("endDim", 63, -64);
  options.reject_others();
  return std::make_shared<nn::Flatten>(start, end);
}

std::shared_ptr<nn::Module> make_sequential(OptionReader& options) {
  auto modules = options.modules("modules");
  options.reject_others();
  return std::make_shared<nn::Sequential>(std::move(modules));
}

constexpr std::pair<std::string_view, Factory> kFactories[] = {
    {"Conv2d", make_conv2d},
    {"BatchNorm2d", make_batch_norm},
    {"Linear", make_linear},
    {"ReLU", make_relu},
    {"Sigmoid", make_plain<nn::Sigmoid>},
    {"Identity", make_plain<nn::Identity>},
    {"MaxPool2d", make_pool<nn::MaxPool2d>},
    {"AvgPool2d", make_pool<nn::AvgPool2d>},
    {"AdaptiveAvgPool2d", make_adaptive_pool},
    {"Dropout", make_dropout},
    {"Flatten", make_flatten},
    {"Sequential", make_sequential},
    {"SELayer", make_se_layer},
    {"SEBasicBlock", make_block<nn::SEBasicBlock>},
    {"SEBottleneck", make_block<nn::SEBottleneck>},
    {"CifarSEBasicBlock", make_cifar_block},
    {"SEResNet", make_se_resnet},
    {"CifarSEResNet", make_cifar_model<CifarSEResNet>},
    {"CifarSEPreActResNet", make_cifar_model<CifarSEPreActResNet>},
    {"SEInception3", make_se_inception},
};

}  // namespace

std::shared_ptr<nn::Module> create_module(const std::string& type, const Options& options) {
  OptionReader reader(type, options);
  std::optional<nn::SkipInitScope> skip_init;
  if (reader.has("initWeights") && !reader.boolean("initWeights")) {
    skip_init.emplace();
  }
  for (const auto& [name, factory] : kFactories) {
    if (name == type) {
      return factory(reader);
    }
  }
  throw Error("ERR_SENET_UNKNOWN_MODEL", "no module has the type '" + type + "'");
}

}  // namespace senet::models
