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

Value SELayer::compute(const Value& input) {
  const Value squeezed = apply(graph::Flatten{}, {avg_pool->forward(input)});  // N x C
  const Value factors = fc->forward(squeezed);                                 // N x C
  return apply(graph::Scale{}, {input, factors});                              // N x C x H x W
}

void SELayer::check_input(const Value& input) const {
  Module::check_input(input);
  check_image(input, channel);
}

Width SELayer::width() const {
  return {channel, channel};
}

std::shared_ptr<Module> SELayer::make(OptionReader& options) {
  const int64_t channel = options.integer("channel", kMaxWidth);
  const int64_t reduction = options.reduction(channel);
  options.reject_others();
  return std::make_shared<SELayer>(channel, reduction);
}

}  // namespace senet::nn
