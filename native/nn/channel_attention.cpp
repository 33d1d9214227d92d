#include "nn/channel_attention.h"

#include <algorithm>
#include <cmath>

namespace senet::nn {

int64_t make_divisible(double width, int64_t divisor) {
  const auto rounded = static_cast<int64_t>(width + static_cast<double>(divisor) / 2) / divisor * divisor;
  return std::max(divisor, rounded);
}

SEModule::SEModule(int64_t channels, int64_t squeezed_channels, bool with_bias)
    : Module("SEModule"), channels(channels) {
  const auto conv = [&](int64_t in, int64_t out) {
    Conv2dOptions options{in, out, {1, 1}};
    options.with_bias = with_bias;
    return std::make_shared<Conv2d>(options);
  };
  add_child("pool", pool, std::make_shared<AdaptiveAvgPool2d>());
  add_child("fc1", fc1, conv(channels, squeezed_channels));
  add_child("bn", bn, std::make_shared<Identity>());
  add_child("act", act, std::make_shared<ReLU>());
  add_child("fc2", fc2, conv(squeezed_channels, channels));
  add_child("gate", gate, std::make_shared<Sigmoid>());
}

Value SEModule::compute(const Value& input) {
  const Value squeezed =
      act->forward(bn->forward(fc1->forward(pool->forward(input))));  // N x squeezed x 1 x 1
  const Value factors = gate->forward(fc2->forward(squeezed));        // N x C x 1 x 1
  return apply(graph::Scale{}, {input, factors});                     // N x C x H x W
}

void SEModule::check_input(const Value& input) const {
  Module::check_input(input);
  check_image(input, channels);
}

Width SEModule::width() const {
  return {channels, channels};
}

std::shared_ptr<Module> SEModule::make(OptionReader& options) {
  const int64_t channels = options.integer("channels", kMaxWidth);
  const double ratio = options.number("rdRatio", 0, 1);
  const int64_t divisor = options.integer("rdDivisor", kMaxWidth);
  const int64_t squeezed = options.has("rdChannels")
                               ? options.integer("rdChannels", kMaxWidth)
                               : make_divisible(static_cast<double>(channels) * ratio, divisor);
  const bool bias = options.boolean("bias");
  options.reject_others();
  return std::make_shared<SEModule>(channels, squeezed, bias);
}

EcaModule::EcaModule(int64_t kernel_size) : Module("EcaModule") {
  Conv1dOptions options{1, 1, kernel_size};
  options.padding = (kernel_size - 1) / 2;
  options.with_bias = false;
  add_child("pool", pool, std::make_shared<AdaptiveAvgPool2d>());
  add_child("conv", conv, std::make_shared<Conv1d>(options));
  add_child("gate", gate, std::make_shared<Sigmoid>());
}

int64_t EcaModule::kernel_size_for(int64_t channels, double gamma, double beta) {
  const auto size = static_cast<int64_t>(std::abs(std::log2(static_cast<double>(channels)) + beta) / gamma);
  return std::max<int64_t>(size % 2 == 1 ? size : size + 1, 3);
}

Value EcaModule::compute(const Value& input) {
  const Value means = apply(graph::Flatten{}, {pool->forward(input)});                    // N x C
  const Value mixed = gate->forward(conv->forward(apply(graph::Unsqueeze{1}, {means})));  // N x 1 x C
  return apply(graph::Scale{}, {input, apply(graph::Squeeze{1}, {mixed})});               // N x C x H x W
}

void EcaModule::check_input(const Value& input) const {
  Module::check_input(input);
  check_image(input, graph::kUnknown);
}

std::shared_ptr<Module> EcaModule::make(OptionReader& options) {
  const double gamma = options.number("gamma", 1e-6, 1e6);
  const double beta = options.number("beta", -1e6, 1e6);
  const int64_t given = options.integer("kernelSize", kMaxKernel);
  const int64_t kernel_size =
      options.has("channels") ? kernel_size_for(options.integer("channels", kMaxWidth), gamma, beta) : given;
  options.reject_others();
  if (kernel_size > kMaxKernel) {
    options.fail("ERR_SENET_ARG_RANGE", "gamma", "gives a kernel of " + std::to_string(kernel_size));
  }
  if (kernel_size % 2 == 0) {
    options.fail("ERR_SENET_ARG_RANGE", "kernelSize", "must be odd, got " + std::to_string(kernel_size));
  }
  return std::make_shared<EcaModule>(kernel_size);
}

}  // namespace senet::nn
