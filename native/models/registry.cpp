#include "models/registry.h"

#include "core/error.h"
#include "models/cifar_se_resnet.h"
#include "models/pytorchcv_se_resnet.h"
#include "models/se_inception_v3.h"
#include "models/se_resnet.h"
#include "models/timm_legacy_senet.h"
#include "models/timm_resnet.h"

#include <map>
#include <optional>

namespace senet::models {
namespace {

// A new block or network is one row here, beside its own file.
std::map<std::string, nn::Factory>& factories() {
  static std::map<std::string, nn::Factory> rows = {
      {"Conv2d", nn::Conv2d::make},
      {"Conv1d", nn::Conv1d::make},
      {"BatchNorm2d", nn::BatchNorm2d::make},
      {"Linear", nn::Linear::make},
      {"ReLU", nn::ReLU::make},
      {"Sigmoid", nn::Sigmoid::make},
      {"Identity", nn::Identity::make},
      {"MaxPool2d", nn::MaxPool2d::make},
      {"AvgPool2d", nn::AvgPool2d::make},
      {"AdaptiveAvgPool2d", nn::AdaptiveAvgPool2d::make},
      {"Dropout", nn::Dropout::make},
      {"Flatten", nn::Flatten::make},
      {"Sequential", nn::Sequential::make},
      {"SELayer", nn::SELayer::make},
      {"SEModule", nn::SEModule::make},
      {"EcaModule", nn::EcaModule::make},
      {"SEBasicBlock", nn::SEBasicBlock::make},
      {"SEBottleneck", nn::SEBottleneck::make},
      {"CifarSEBasicBlock", nn::CifarSEBasicBlock::make},
      {"SEResNet", make_se_resnet},
      {"CifarSEResNet", CifarSEResNet::make},
      {"CifarSEPreActResNet", CifarSEPreActResNet::make},
      {"SEInception3", SEInception3::make},
      {"ResNet", TimmResNet::make},
      {"SENet", LegacySENet::make},
      {"PytorchcvSEResNet", PytorchcvSEResNet::make},
  };
  return rows;
}

}  // namespace

void add_factory(const std::string& type, nn::Factory factory) {
  if (!factories().emplace(type, factory).second) {
    throw Error("ERR_SENET_INTERNAL", "two modules have the type '" + type + "'");
  }
}

std::shared_ptr<nn::Module> create_module(const std::string& type, const nn::Options& options) {
  nn::OptionReader reader(type, options);
  std::optional<nn::SkipInitScope> skip_init;
  if (reader.has("initWeights") && !reader.boolean("initWeights")) {
    skip_init.emplace();
  }
  const auto found = factories().find(type);
  if (found == factories().end()) {
    throw Error("ERR_SENET_UNKNOWN_MODEL", "no module has the type '" + type + "'");
  }
  return found->second(reader);
}

}  // namespace senet::models
