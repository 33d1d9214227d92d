#include "nn/se_layer.h"

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
  return input * excitation.unsqueeze(-1).unsqueeze(-1);            // N x C x H x W
}

void SELayer::check_input(const at::Tensor& input) const {
  Module::check_input(input);
  check_image(input, channel);
}

Width SELayer::width() const {
  return {channel, channel};
}

bool SELayer::has_bias() const {
  return dynamic_cast<const Linear&>(*fc->layers().at(0)).bias.defined() ||
         dynamic_cast<const Linear&>(*fc->layers().at(2)).bias.defined();
}

}  // namespace senet::nn
