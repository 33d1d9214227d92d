// The Squeeze-and-Excitation layer: Hu, Shen, Sun, "Squeeze-and-Excitation Networks", CVPR 2018, section 3.
#pragma once

#include "nn/layers.h"

#include <optional>

namespace senet::nn {

/// The two linear layers of an SELayer whose `fc` does what it does as made.
struct Excitation {
  const Linear& squeeze;
  const Linear& excite;
};

/// Scales each channel by a factor in (0, 1) that is computed from the means of all channels.
class SELayer : public Module {
 public:
  explicit SELayer(int64_t channel, int64_t reduction = 16);
  at::Tensor compute(const at::Tensor& input) override;
  void check_input(const at::Tensor& input) const override;
  Width width() const override;
  /// Null where something else than Linear, ReLU, Linear, Sigmoid was put into `fc`, or another pool than the
  /// mean of the whole image in front of it: who computes more than one layer at a time asks this first.
  std::optional<Excitation> excitation() const;

  const int64_t channel;
  std::shared_ptr<AdaptiveAvgPool2d> avg_pool;
  std::shared_ptr<Sequential> fc;  // keys fc.0.weight [channel / reduction, channel] and fc.2.weight
};

}  // namespace senet::nn
