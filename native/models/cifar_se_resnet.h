// SE-ResNet for 32 x 32 images: section 4.2 of He et al. with SE blocks, as in the original implementation.
#pragma once

#include "nn/residual_blocks.h"

#include <string>

namespace senet::models {

/// Three stages of `n_size` blocks with 16, 32 and 64 channels; n_size 3, 5 and 9 are the depths 20, 32
/// and 56.
class CifarSEResNet : public nn::Module {
 public:
  static std::shared_ptr<nn::Module> make(nn::OptionReader& options);
  CifarSEResNet(int64_t n_size, int64_t num_classes, int64_t reduction, int64_t in_channels = 3);
  nn::Value compute(const nn::Value& input) override;
  void check_input(const nn::Value& input) const override;
  nn::Width width() const override;
  bool begins_with(const nn::Module& child) const override;
  bool ends_with(const nn::Module& child) const override;

  std::shared_ptr<nn::Conv2d> conv1;
  std::shared_ptr<nn::BatchNorm2d> bn1;
  std::shared_ptr<nn::ReLU> relu;
  std::shared_ptr<nn::Sequential> layer1, layer2, layer3;
  std::shared_ptr<nn::AdaptiveAvgPool2d> avgpool;
  std::shared_ptr<nn::Module> fc;

 protected:
  CifarSEResNet(std::string type_name, int64_t n_size, int64_t num_classes, int64_t reduction,
                int64_t in_channels);
};

/// The same with bn1 after the last stage instead of before the first. PARITY: its blocks are the same as
/// CifarSEResNet's (not pre-activation blocks), and its weights are drawn twice.
class CifarSEPreActResNet : public CifarSEResNet {
 public:
  static std::shared_ptr<nn::Module> make(nn::OptionReader& options);
  CifarSEPreActResNet(int64_t n_size, int64_t num_classes, int64_t reduction, int64_t in_channels = 3);
  nn::Value compute(const nn::Value& input) override;
};

}  // namespace senet::models
