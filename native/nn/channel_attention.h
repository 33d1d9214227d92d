// timm's layers that scale channels by factors computed from their means: timm/layers/squeeze_excite.py and
// timm/layers/eca.py of pytorch-image-models.
#pragma once

#include "nn/layers.h"

namespace senet::nn {

/// The squeezed width of an SEModule, timm's make_divisible with round_limit 0: `width` rounded to a multiple
/// of `divisor`, at least that.
int64_t make_divisible(double width, int64_t divisor);

/// timm's SEModule, and the one of its legacy networks: 1 x 1 convolutions in place of SELayer's Linear, as a
/// rule with biases. Hu, Shen, Sun, "Squeeze-and-Excitation Networks", CVPR 2018, section 3.
class SEModule : public Module {
 public:
  static std::shared_ptr<Module> make(OptionReader& options);
  SEModule(int64_t channels, int64_t squeezed_channels, bool with_bias = true);
  Value compute(const Value& input) override;
  void check_input(const Value& input) const override;
  Width width() const override;

  const int64_t channels;
  std::shared_ptr<AdaptiveAvgPool2d> pool;
  std::shared_ptr<Conv2d> fc1;  // keys fc1.weight [squeezed, channels, 1, 1] and fc1.bias
  std::shared_ptr<Module> bn;   // an Identity, without keys
  std::shared_ptr<ReLU> act;
  std::shared_ptr<Conv2d> fc2;
  std::shared_ptr<Sigmoid> gate;
};

/// timm's EcaModule: a convolution over the channels in place of the squeeze. Wang et al., "ECA-Net:
/// Efficient Channel Attention for Deep Convolutional Neural Networks", CVPR 2020.
class EcaModule : public Module {
 public:
  static std::shared_ptr<Module> make(OptionReader& options);
  /// `kernel_size` is odd.
  explicit EcaModule(int64_t kernel_size);
  /// The size of the kernel for so many channels (equation 12).
  static int64_t kernel_size_for(int64_t channels, double gamma = 2, double beta = 1);
  Value compute(const Value& input) override;
  void check_input(const Value& input) const override;

  std::shared_ptr<AdaptiveAvgPool2d> pool;
  std::shared_ptr<Conv1d> conv;  // key conv.weight [1, 1, kernel_size]
  std::shared_ptr<Sigmoid> gate;
};

}  // namespace senet::nn
