// The Squeeze-and-Excitation layer: Hu, Shen, Sun, "Squeeze-and-Excitation Networks", CVPR 2018, section 3.
#pragma once

#include "nn/layers.h"

namespace senet::nn {

/// Scales each channel by a factor in (0, 1) that is computed from the means of all channels.
class SELayer : public Module {
 public:
  explicit SELayer(int64_t channel, int64_t reduction = 16);
  at::Tensor compute(const at::Tensor& input) override;
  void check_input(const at::Tensor& input) const override;
  Width width() const override;
  /// Whether a linear layer has a bias: never as made, but one that replaces it may.
  bool has_bias() const;

  const int64_t channel;
  std::shared_ptr<AdaptiveAvgPool2d> avg_pool;
  std::shared_ptr<Sequential> fc;  // keys fc.0.weight [channel / reduction, channel] and fc.2.weight
};

}  // namespace senet::nn
