// timm's legacy SENet (timm/models/senet.py of pytorch-image-models), which is Cadene's (pretrainedmodels)
// with an adaptive pool before its head: legacy_seresnet*, legacy_seresnext* and legacy_senet154 are rows of
// options.
#pragma once

#include "models/four_stages.h"
#include "nn/channel_attention.h"
#include "nn/se_layer.h"

#include <array>
#include <string>

namespace senet::models {

/// Which of the original's block classes; they differ in widths and in where the stride is.
enum class LegacyBlockKind {
  kResNetBlock,        // SEResNetBlock: two 3 x 3
  kResNetBottleneck,   // SEResNetBottleneck: the stride in the first 1 x 1, as in Caffe
  kResNeXtBottleneck,  // SEResNeXtBottleneck: groups of base_width channels for each 64 planes
  kBottleneck,         // SEBottleneck, of SENet154: twice the planes, then four times
};

struct LegacySENetOptions {
  LegacyBlockKind block;
  std::array<int64_t, 4> layers;
  int64_t groups = 1;
  int64_t reduction = nn::kUsualReduction;
  int64_t inplanes = 64;               // behind the stem
  bool input_3x3 = false;              // three 3 x 3 convolutions in place of 7 x 7
  int64_t downsample_kernel_size = 1;  // from layer2 on
  int64_t downsample_padding = 0;
  int64_t num_classes = 1000;
  int64_t in_channels = 3;
  double drop_rate = 0.2;
};

class LegacySEBlock : public nn::Module {
 public:
  /// `downsample` is what the shortcut goes through; null is the identity.
  LegacySEBlock(const LegacySENetOptions& network, int64_t inplanes, int64_t planes, int64_t stride,
                std::shared_ptr<nn::Module> downsample);
  static int64_t expansion(LegacyBlockKind kind) {
    return kind == LegacyBlockKind::kResNetBlock ? 1 : 4;
  }
  nn::Value compute(const nn::Value& input) override;
  void check_input(const nn::Value& input) const override;
  nn::Width width() const override;

  std::shared_ptr<nn::Conv2d> conv1;
  std::shared_ptr<nn::BatchNorm2d> bn1;
  std::shared_ptr<nn::Conv2d> conv2;
  std::shared_ptr<nn::BatchNorm2d> bn2;
  std::shared_ptr<nn::Conv2d> conv3;  // null in an SEResNetBlock
  std::shared_ptr<nn::BatchNorm2d> bn3;
  std::shared_ptr<nn::ReLU> relu;
  std::shared_ptr<nn::SEModule> se_module;
  std::shared_ptr<nn::Module> downsample;  // may be null
};

class LegacySENet : public FourStages {
 public:
  static std::shared_ptr<nn::Module> make(nn::OptionReader& options);
  explicit LegacySENet(const LegacySENetOptions& options);

 protected:
  nn::Value stem(const nn::Value& input) override;
  const nn::Module& first() const override;

 private:
  std::shared_ptr<nn::Sequential> layer0_;
  std::shared_ptr<nn::MaxPool2d> pool0_;
};

}  // namespace senet::models
