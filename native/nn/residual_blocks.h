// Residual blocks with an SELayer after the last BatchNorm and before the residual is added: He et al., "Deep
// Residual Learning for Image Recognition", CVPR 2016, with section 3.3 of the SE paper.
#pragma once

#include "nn/se_layer.h"

namespace senet::nn {

struct BlockOptions {
  int64_t inplanes;
  int64_t planes;
  int64_t stride = 1;
  int64_t reduction = kUsualReduction;
  std::shared_ptr<Module> downsample = nullptr;  // what the residual goes through; null is the identity
};

/// A 1 x 1 convolution with its BatchNorm, for a residual that changes its size.
std::shared_ptr<Sequential> make_downsample(int64_t in_channels, int64_t out_channels, int64_t stride);

/// Two 3 x 3 convolutions; the block of SE-ResNet-18 and 34.
class SEBasicBlock : public Module {
 public:
  static std::shared_ptr<Module> make(OptionReader& options);
  static constexpr int64_t kExpansion = 1;
  explicit SEBasicBlock(const BlockOptions& options);
  Value compute(const Value& input) override;
  void check_input(const Value& input) const override;
  Width width() const override;

  std::shared_ptr<Conv2d> conv1;
  std::shared_ptr<BatchNorm2d> bn1;
  std::shared_ptr<ReLU> relu;
  std::shared_ptr<Conv2d> conv2;
  std::shared_ptr<BatchNorm2d> bn2;
  std::shared_ptr<SELayer> se;
  std::shared_ptr<Module> downsample;  // may be null
};

/// 1 x 1, 3 x 3 (which has the stride), 1 x 1 to four times the planes; the block of SE-ResNet-50, 101 and
/// 152.
class SEBottleneck : public Module {
 public:
  static std::shared_ptr<Module> make(OptionReader& options);
  static constexpr int64_t kExpansion = 4;
  explicit SEBottleneck(const BlockOptions& options);
  Value compute(const Value& input) override;
  void check_input(const Value& input) const override;
  Width width() const override;

  std::shared_ptr<Conv2d> conv1;
  std::shared_ptr<BatchNorm2d> bn1;
  std::shared_ptr<Conv2d> conv2;
  std::shared_ptr<BatchNorm2d> bn2;
  std::shared_ptr<Conv2d> conv3;
  std::shared_ptr<BatchNorm2d> bn3;
  std::shared_ptr<ReLU> relu;
  std::shared_ptr<SELayer> se;
  std::shared_ptr<Module> downsample;  // may be null
};

/// SEBasicBlock that makes its own downsample; the block of the CIFAR networks.
class CifarSEBasicBlock : public Module {
 public:
  static std::shared_ptr<Module> make(OptionReader& options);
  CifarSEBasicBlock(int64_t inplanes, int64_t planes, int64_t stride, int64_t reduction);
  Value compute(const Value& input) override;
  void check_input(const Value& input) const override;
  Width width() const override;

  std::shared_ptr<Conv2d> conv1;
  std::shared_ptr<BatchNorm2d> bn1;
  std::shared_ptr<ReLU> relu;
  std::shared_ptr<Conv2d> conv2;
  std::shared_ptr<BatchNorm2d> bn2;
  std::shared_ptr<SELayer> se;
  std::shared_ptr<Sequential> downsample;  // null when inplanes == planes
};

}  // namespace senet::nn
