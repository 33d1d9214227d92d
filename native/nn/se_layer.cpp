#include "nn/se_layer.h"

#include "core/error.h"
#include "core/names.h"

#include <ATen/ExpandUtils.h>

namespace senet::nn {

SELayer::SELayer(int64_t channel, int64_t reduction) : Module("SELayer"), channel(channel) {
  const int64_t hidden = channel / reduction;
  add_child("avg_pool", avg_pool, std::make_shared<AdaptiveAvgPool2d>());
  // A braced list, since its elements are made from left to right: the order of the draws.
  add_child("fc", fc,
            std::make_shared<Sequential>(std::vector<std::shared_ptr<Module>>{
                std::make_shared<Linear>(channel, hidden, /*with_bias=*/false),
                std::make_shared<ReLU>(),
                std::make_shared<Linear>(hidden, channel, /*with_bias=*/false),
                std::make_shared<Sigmoid>(),
            }));
}

at::Tensor SELayer::compute(const at::Tensor& input) {
  const at::Tensor squeezed = avg_pool->forward(input).flatten(1);  // N x C
  const at::Tensor excitation = fc->forward(squeezed);              // N x C
  const at::Tensor factors = excitation.unsqueeze(-1).unsqueeze(-1);
  if (!at::is_expandable_to(factors.sizes(), input.sizes())) {
    throw Error("ERR_SENET_SHAPE", "SELayer: fc gives the shape " + shape_text(excitation.sizes()) +
                                       " for an input of the shape " + shape_text(input.sizes()));
  }
  return input * factors;  // N x C x H x W
}

void SELayer::check_input(const at::Tensor& input) const {
  Module::check_input(input);
  check_image(input, channel);
}

Width SELayer::width() const {
  return {channel, channel};
}

std::optional<Excitation> SELayer::excitation() const {
  const auto& layers = fc->layers();
  if (layers.size() != 4 || avg_pool->output_size != Size2{1, 1}) {
    return std::nullopt;
  }
  const auto* squeeze = dynamic_cast<const Linear*>(layers[0].get());
  const auto* excite = dynamic_cast<const Linear*>(layers[2].get());
  if (squeeze == nullptr || dynamic_cast<const ReLU*>(layers[1].get()) == nullptr || excite == nullptr ||
      dynamic_cast<const Sigmoid*>(layers[3].get()) == nullptr) {
    return std::nullopt;
  }
  return Excitation{*squeeze, *excite};
}

}  // namespace senet::nn
