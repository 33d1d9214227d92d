// The Squeeze-and-Excitation layer: Hu, Shen, Sun, "Squeeze-and-Excitation Networks", CVPR 2018, section 3.
#pragma once

#include "nn/layers.h"

namespace senet::nn {

/// How much narrower the hidden layer is, where nobody says otherwise (section 4 of the paper).
inline constexpr int64_t kUsualReduction = 16;

/// Scales each channel by a factor in (0, 1) that is computed from the means of all channels.
class SELayer : public Module {
 public:
  static std::shared_ptr<Module> make(OptionReader& options);
  explicit SELayer(int64_t channel, int64_t reduction = kUsualReduction);
  Value compute(const Value& input) override;
  void check_input(const Value& input) const override;
  Width width() const override;

  const int64_t channel;
  std::shared_ptr<AdaptiveAvgPool2d> avg_pool;
  std::shared_ptr<Sequential> fc;  // keys fc.0.weight [channel / reduction, channel] and fc.2.weight
};

}  // namespace senet::nn
