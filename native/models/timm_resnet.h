// timm's ResNet with channel attention (timm/models/resnet.py of pytorch-image-models): seresnet*,
// seresnext*, seresnetaa*, senet154, resnetrs* and ecaresnet* are rows of options. Its SE stands on the last
// BatchNorm of a branch, before the addition.
#pragma once

#include "models/four_stages.h"
#include "nn/channel_attention.h"

#include <array>
#include <string>

namespace senet::models {

/// timm's arguments under timm's names.
struct TimmResNetOptions {
  bool bottleneck = true;  // block: Bottleneck or BasicBlock
  std::array<int64_t, 4> layers;
  int64_t num_classes = 1000;
  int64_t in_channels = 3;
  int64_t cardinality = 1;
  int64_t base_width = 64;
  int64_t stem_width = 64;
  bool deep_stem = false;    // stem_type 'deep' or 'deep_tiered': three 3 x 3 convolutions in place of 7 x 7
  bool tiered_stem = false;  // 'deep_tiered': the first of them is narrower
  bool replace_stem_pool = false;
  bool avg_down = false;  // an average pool in front of a shortcut's 1 x 1 convolution
  int64_t down_kernel_size = 1;
  int64_t block_reduce_first = 1;
  bool anti_alias = false;  // aa_layer: AvgPool2d in place of strides
  bool eca = false;         // attn_layer: EcaModule, else SEModule
  double rd_ratio = 1.0 / 16;
  int64_t rd_channels = 0;  // of every SEModule in place of rd_ratio, unless 0
  double drop_rate = 0;
  bool zero_init_last = true;
};

/// BasicBlock or Bottleneck: two 3 x 3 convolutions, or 1 x 1, 3 x 3 in `cardinality` groups and 1 x 1.
class TimmBlock : public nn::Module {
 public:
  static int64_t expansion(const TimmResNetOptions& network) {
    return network.bottleneck ? 4 : 1;
  }
  /// `downsample` is what the shortcut goes through; null is the identity.
  TimmBlock(const TimmResNetOptions& network, int64_t inplanes, int64_t planes, int64_t stride,
            std::shared_ptr<nn::Module> downsample);
  nn::Value compute(const nn::Value& input) override;
  void check_input(const nn::Value& input) const override;
  nn::Width width() const override;
  /// Each branch begins as zero.
  void zero_init_last();

  std::shared_ptr<nn::Conv2d> conv1;
  std::shared_ptr<nn::BatchNorm2d> bn1;
  std::shared_ptr<nn::ReLU> act1;
  std::shared_ptr<nn::Conv2d> conv2;
  std::shared_ptr<nn::BatchNorm2d> bn2;
  std::shared_ptr<nn::ReLU> act2;  // BasicBlock: behind the addition
  std::shared_ptr<nn::Module> aa;  // behind the activation of the convolution with the stride
  std::shared_ptr<nn::Conv2d> conv3;
  std::shared_ptr<nn::BatchNorm2d> bn3;
  std::shared_ptr<nn::ReLU> act3;  // Bottleneck: behind the addition
  std::shared_ptr<nn::Module> se;
  std::shared_ptr<nn::Module> downsample;  // may be null

 private:
  void add_basic(const TimmResNetOptions& network, int64_t inplanes, int64_t planes, int64_t stride);
  void add_bottleneck(const TimmResNetOptions& network, int64_t inplanes, int64_t planes, int64_t stride);
};

class TimmResNet : public FourStages {
 public:
  static std::shared_ptr<nn::Module> make(nn::OptionReader& options);
  explicit TimmResNet(const TimmResNetOptions& options);

 protected:
  nn::Value stem(const nn::Value& input) override;
  const nn::Module& first() const override;

 private:
  /// Gives the channels behind it.
  int64_t add_stem(const TimmResNetOptions& options);

  std::shared_ptr<nn::Module> conv1_;  // a Conv2d, or of a deep stem a Sequential
  std::shared_ptr<nn::BatchNorm2d> bn1_;
  std::shared_ptr<nn::ReLU> act1_;
  std::shared_ptr<nn::Module> maxpool_;
};

}  // namespace senet::models
