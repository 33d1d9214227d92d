// pytorchcv's SE-ResNets (pytorchcv/models/seresnet.py, seresnet_cifar.py, sepreresnet.py and
// sepreresnet_cifar.py of imgclsmob): those for ImageNet, those for CIFAR and SVHN, and both with
// pre-activation, are rows of options.
#pragma once

#include "nn/channel_attention.h"

#include <memory>
#include <vector>

namespace senet::models {

struct PytorchcvOptions {
  bool cifar = false;           // a 3 x 3 stem and three stages from 16 channels, else 7 x 7 and four from 64
  std::vector<int64_t> layers;  // units of each stage
  bool bottleneck = true;       // 1 x 1, 3 x 3 and 1 x 1 convolutions in place of two 3 x 3
  bool conv1_stride = false;    // a bottleneck's stride is in its first convolution
  bool preactivation = false;   // BatchNorm and ReLU in front of each convolution
  int64_t num_classes = 1000;
  int64_t in_channels = 3;
};

/// BatchNorm, ReLU and a convolution: PreConvBlock.
class PreConvBlock : public nn::Module {
 public:
  explicit PreConvBlock(std::shared_ptr<nn::Conv2d> convolution);
  /// What goes into the convolution.
  nn::Value activate(const nn::Value& input);
  nn::Value compute(const nn::Value& input) override;
  void check_input(const nn::Value& input) const override;
  nn::Width width() const override;

  std::shared_ptr<nn::BatchNorm2d> bn;
  std::shared_ptr<nn::ReLU> activ;
  std::shared_ptr<nn::Conv2d> conv;
};

/// The branch of a unit with pre-activation: PreResBlock or PreResBottleneck.
class PreResBody : public nn::Module {
 public:
  explicit PreResBody(std::vector<std::shared_ptr<nn::Conv2d>> convolutions);
  /// From what its first block's activation gives.
  nn::Value compute_activated(const nn::Value& activated);
  nn::Value compute(const nn::Value& input) override;
  void check_input(const nn::Value& input) const override;
  nn::Width width() const override;

  std::shared_ptr<PreConvBlock> conv1, conv2, conv3;  // the last of a bottleneck only
};

/// SEBlock: 1 x 1 convolutions with biases.
class PytorchcvSEBlock : public nn::Module {
 public:
  explicit PytorchcvSEBlock(int64_t channels);
  nn::Value compute(const nn::Value& input) override;
  void check_input(const nn::Value& input) const override;
  nn::Width width() const override;

  std::shared_ptr<nn::AdaptiveAvgPool2d> pool;
  std::shared_ptr<nn::Conv2d> conv1;
  std::shared_ptr<nn::ReLU> activ;
  std::shared_ptr<nn::Conv2d> conv2;
  std::shared_ptr<nn::Sigmoid> sigmoid;
};

/// SEResUnit.
class SEResUnit : public nn::Module {
 public:
  SEResUnit(const PytorchcvOptions& network, int64_t in_channels, int64_t out_channels, int64_t stride);
  nn::Value compute(const nn::Value& input) override;
  void check_input(const nn::Value& input) const override;
  nn::Width width() const override;

  std::shared_ptr<nn::Sequential> body;
  std::shared_ptr<PytorchcvSEBlock> se;
  std::shared_ptr<nn::Sequential> identity_conv;  // may be null
  std::shared_ptr<nn::ReLU> activ;

 private:
  const nn::Width width_;
};

/// SEPreResUnit.
class SEPreResUnit : public nn::Module {
 public:
  SEPreResUnit(const PytorchcvOptions& network, int64_t in_channels, int64_t out_channels, int64_t stride);
  nn::Value compute(const nn::Value& input) override;
  void check_input(const nn::Value& input) const override;
  nn::Width width() const override;

  std::shared_ptr<PreResBody> body;
  std::shared_ptr<PytorchcvSEBlock> se;
  std::shared_ptr<nn::Conv2d> identity_conv;  // may be null
};

class PytorchcvSEResNet : public nn::Module {
 public:
  static std::shared_ptr<nn::Module> make(nn::OptionReader& options);
  explicit PytorchcvSEResNet(const PytorchcvOptions& options);
  nn::Value compute(const nn::Value& input) override;
  void check_input(const nn::Value& input) const override;
  nn::InputSize input_size() const override;
  nn::Width width() const override;
  bool begins_with(const nn::Module& child) const override;
  bool ends_with(const nn::Module& child) const override;

  const PytorchcvOptions options;
  std::shared_ptr<nn::Sequential> features;
  std::shared_ptr<nn::Module> output;
};

}  // namespace senet::models
