#include "nn/layers.h"

#include "nn/fused_training.h"

#include "core/error.h"
#include "core/names.h"
#include "nn/init.h"

#include <ATen/Context.h>
#include <ATen/ops/adaptive_avg_pool2d.h>
#include <ATen/ops/batch_norm.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/dropout.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/zeros.h>

namespace senet::nn {

Conv2d::Conv2d(const Conv2dOptions& options) : Module("Conv2d"), options(options) {
  const at::Tensor data = new_parameter(
      {options.out_channels, options.in_channels, options.kernel_size[0], options.kernel_size[1]});
  init_default_weight(data);
  weight = register_parameter("weight", data);
}

at::Tensor Conv2d::forward(const at::Tensor& input) {
  return at::conv2d(input, weight, {}, options.stride, options.padding);
}

void Conv2d::check_input(const at::Tensor& input) const {
  Module::check_input(input);
  check_image(input, options.in_channels);
  for (const size_t i : {0, 1}) {
    if (input.size(2 + static_cast<int64_t>(i)) + 2 * options.padding[i] < options.kernel_size[i]) {
      throw Error("ERR_SENET_SHAPE", "Conv2d: an input of the shape " + shape_text(input.sizes()) +
                                         " is smaller than the kernel " + shape_text(options.kernel_size) +
                                         " with the padding " + shape_text(options.padding));
    }
  }
}

std::shared_ptr<Conv2d> conv3x3(int64_t in_channels, int64_t out_channels, int64_t stride) {
  return std::make_shared<Conv2d>(Conv2dOptions{in_channels, out_channels, {3, 3}, {stride, stride}, {1, 1}});
}

std::shared_ptr<Conv2d> conv1x1(int64_t in_channels, int64_t out_channels, int64_t stride) {
  return std::make_shared<Conv2d>(Conv2dOptions{in_channels, out_channels, {1, 1}, {stride, stride}});
}

BatchNorm2d::BatchNorm2d(int64_t features, double eps) : Module("BatchNorm2d"), features(features), eps(eps) {
  weight = register_parameter("weight", at::ones({features}));
  bias = register_parameter("bias", at::zeros({features}));
  running_mean = register_buffer("running_mean", at::zeros({features}));
  running_var = register_buffer("running_var", at::ones({features}));
  num_batches_tracked = register_buffer("num_batches_tracked", at::zeros({}, at::kLong));
}

at::Tensor BatchNorm2d::forward(const at::Tensor& input) {
  constexpr double kMomentum = 0.1;
  const bool training = in_training();
  if (training) {
    // LibTorch would give an infinite running variance.
    if (input.numel() == input.size(1)) {
      throw Error(
          "ERR_SENET_SHAPE",
          "BatchNorm2d: expected more than 1 value per channel when training, got an input of the shape " +
              shape_text(input.sizes()));
    }
    if (can_fuse_training(input, *this)) {
      return fused_batch_norm(input, *this, /*relu=*/false);
    }
    num_batches_tracked.add_(1);
  }
  return at::batch_norm(input, weight, bias, running_mean, running_var, training, kMomentum, eps,
                        at::globalContext().userEnabledCuDNN());
}

void BatchNorm2d::check_input(const at::Tensor& input) const {
  Module::check_input(input);
  check_image(input, features);
}

int64_t BatchNorm2d::version() const {
  return 2;
}

Linear::Linear(int64_t in_features, int64_t out_features, bool with_bias)
    : Module("Linear"), in_features(in_features), out_features(out_features) {
  const at::Tensor data = new_parameter({out_features, in_features});
  init_default_weight(data);
  weight = register_parameter("weight", data);
  if (with_bias) {
    const at::Tensor bias_data = new_parameter({out_features});
    init_default_bias(bias_data, weight);
    bias = register_parameter("bias", bias_data);
  }
}

at::Tensor Linear::forward(const at::Tensor& input) {
  return at::linear(input, weight, bias);
}

void Linear::check_input(const at::Tensor& input) const {
  Module::check_input(input);
  if (input.dim() == 0 || input.size(-1) != in_features || input.numel() == 0) {
    throw Error("ERR_SENET_SHAPE", "Linear: expected an input of the shape [..., " +
                                       std::to_string(in_features) + "] that is not empty, got " +
                                       shape_text(input.sizes()));
  }
}

ReLU::ReLU() : Module("ReLU") {}

at::Tensor ReLU::forward(const at::Tensor& input) {
  return input.relu_();
}

Sigmoid::Sigmoid() : Module("Sigmoid") {}

at::Tensor Sigmoid::forward(const at::Tensor& input) {
  return at::sigmoid(input);
}

MaxPool2d::MaxPool2d(int64_t kernel_size, int64_t stride, int64_t padding)
    : Module("MaxPool2d"), kernel_size(kernel_size), stride(stride), padding(padding) {}

at::Tensor MaxPool2d::forward(const at::Tensor& input) {
  return at::max_pool2d(input, kernel_size, stride, padding);
}

void MaxPool2d::check_input(const at::Tensor& input) const {
  check_image(input);
}

AdaptiveAvgPool2d::AdaptiveAvgPool2d() : Module("AdaptiveAvgPool2d") {}

at::Tensor AdaptiveAvgPool2d::forward(const at::Tensor& input) {
  return at::adaptive_avg_pool2d(input, {1, 1});
}

void AdaptiveAvgPool2d::check_input(const at::Tensor& input) const {
  check_image(input);
}

Dropout::Dropout() : Module("Dropout") {}

at::Tensor Dropout::forward(const at::Tensor& input) {
  return at::dropout(input, 0.5, in_training());
}

Sequential::Sequential(std::vector<std::shared_ptr<Module>> given)
    : Module("Sequential"), layers(std::move(given)) {
  for (size_t i = 0; i < layers.size(); ++i) {
    register_module(std::to_string(i), layers[i]);
  }
}

at::Tensor Sequential::forward(const at::Tensor& input) {
  at::Tensor x = input;
  for (const auto& layer : layers) {
    x = layer->forward(x);
  }
  return x;
}

void Sequential::check_input(const at::Tensor& input) const {
  layers.front()->check_input(input);
}

}  // namespace senet::nn
