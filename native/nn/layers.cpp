#include "nn/layers.h"

#include "nn/fused_training.h"

#include "core/error.h"
#include "core/names.h"
#include "nn/init.h"

#include <ATen/Context.h>
#include <ATen/ops/adaptive_avg_pool2d.h>
#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/batch_norm.h>
#include <ATen/ops/dropout.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

namespace senet::nn {
namespace {

// Whether a layer leaves the width of what passes through as it is. Flatten makes channels, height and width
// one.
bool keeps_width(const Module& layer, const Width& width) {
  return width.input == 0 && width.output == 0 && dynamic_cast<const Flatten*>(&layer) == nullptr;
}

}  // namespace

Conv2d::Conv2d(const Conv2dOptions& options) : Module("Conv2d"), options(options) {
  const at::Tensor data = new_parameter({options.out_channels, options.in_channels / options.groups,
                                         options.kernel_size[0], options.kernel_size[1]});
  init_default_weight(data);
  weight = register_parameter("weight", data);
  if (options.with_bias) {
    const at::Tensor bias_data = new_parameter({options.out_channels});
    init_default_bias(bias_data, weight);
    bias = register_parameter("bias", bias_data);
  }
}

at::Tensor Conv2d::compute(const at::Tensor& input) {
  return convolve(input, weight, bias,
                  {options.kernel_size, options.stride, options.padding, options.dilation}, options.groups);
}

void Conv2d::check_input(const at::Tensor& input) const {
  Module::check_input(input);
  check_image(input, options.in_channels);
  for (const size_t i : {0, 1}) {
    const int64_t window = options.dilation[i] * (options.kernel_size[i] - 1) + 1;
    if (input.size(2 + static_cast<int64_t>(i)) + 2 * options.padding[i] < window) {
      throw Error("ERR_SENET_SHAPE", "Conv2d: an input of the shape " + shape_text(input.sizes()) +
                                         " is smaller than the kernel " + shape_text(options.kernel_size) +
                                         " with the padding " + shape_text(options.padding) +
                                         " and the dilation " + shape_text(options.dilation));
    }
  }
}

Width Conv2d::width() const {
  return {options.in_channels, options.out_channels};
}

std::shared_ptr<Conv2d> conv3x3(int64_t in_channels, int64_t out_channels, int64_t stride) {
  return std::make_shared<Conv2d>(Conv2dOptions{in_channels, out_channels, {3, 3}, {stride, stride}, {1, 1}});
}

std::shared_ptr<Conv2d> conv1x1(int64_t in_channels, int64_t out_channels, int64_t stride) {
  return std::make_shared<Conv2d>(Conv2dOptions{in_channels, out_channels, {1, 1}, {stride, stride}});
}

BatchNorm2d::BatchNorm2d(int64_t features, double eps, double momentum)
    : Module("BatchNorm2d"), features(features), eps(eps), momentum(momentum) {
  weight = register_parameter("weight", at::ones({features}));
  bias = register_parameter("bias", at::zeros({features}));
  running_mean = register_buffer("running_mean", at::zeros({features}));
  running_var = register_buffer("running_var", at::ones({features}));
  num_batches_tracked = register_buffer("num_batches_tracked", at::zeros({}, at::kLong));
}

at::Tensor BatchNorm2d::compute(const at::Tensor& input) {
  const bool training = in_training();
  double factor = momentum;
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
    if (momentum < 0) {
      factor = 1.0 / num_batches_tracked.item<double>();
    }
  }
  // LibTorch's backward for channels-last reads the weight as if it were contiguous.
  return at::batch_norm(input, weight.contiguous(), bias.contiguous(), running_mean, running_var, training,
                        factor, eps, at::globalContext().userEnabledCuDNN());
}

void BatchNorm2d::check_input(const at::Tensor& input) const {
  Module::check_input(input);
  check_image(input, features);
}

int64_t BatchNorm2d::version() const {
  return 2;
}

Width BatchNorm2d::width() const {
  return {features, features};
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

at::Tensor Linear::compute(const at::Tensor& input) {
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

Width Linear::width() const {
  return {in_features, out_features};
}

ReLU::ReLU(bool in_place) : Module("ReLU"), in_place(in_place) {}

at::Tensor ReLU::compute(const at::Tensor& input) {
  return in_place ? input.relu_() : at::relu(input);
}

Sigmoid::Sigmoid() : Module("Sigmoid") {}

at::Tensor Sigmoid::compute(const at::Tensor& input) {
  return at::sigmoid(input);
}

void check_window(const Module& pool, const at::Tensor& input, int64_t kernel_size, int64_t padding) {
  for (const int64_t axis : {2, 3}) {
    if (input.size(axis) + 2 * padding < kernel_size) {
      throw Error("ERR_SENET_SHAPE", pool.name() + ": an input of the shape " + shape_text(input.sizes()) +
                                         " is smaller than the window of " + std::to_string(kernel_size) +
                                         " with a padding of " + std::to_string(padding));
    }
  }
}

MaxPool2d::MaxPool2d(int64_t kernel_size, int64_t stride, int64_t padding)
    : Module("MaxPool2d"), kernel_size(kernel_size), stride(stride), padding(padding) {}

at::Tensor MaxPool2d::compute(const at::Tensor& input) {
  return at::max_pool2d(input, kernel_size, stride, padding);
}

void MaxPool2d::check_input(const at::Tensor& input) const {
  check_image(input);
  check_window(*this, input, kernel_size, padding);
}

AvgPool2d::AvgPool2d(int64_t kernel_size, int64_t stride, int64_t padding)
    : Module("AvgPool2d"), kernel_size(kernel_size), stride(stride), padding(padding) {}

at::Tensor AvgPool2d::compute(const at::Tensor& input) {
  return at::avg_pool2d(input, kernel_size, stride, padding);
}

void AvgPool2d::check_input(const at::Tensor& input) const {
  check_image(input);
  check_window(*this, input, kernel_size, padding);
}

AdaptiveAvgPool2d::AdaptiveAvgPool2d(Size2 output_size)
    : Module("AdaptiveAvgPool2d"), output_size(output_size) {}

at::Tensor AdaptiveAvgPool2d::compute(const at::Tensor& input) {
  return at::adaptive_avg_pool2d(input, output_size);
}

void AdaptiveAvgPool2d::check_input(const at::Tensor& input) const {
  check_image(input);
}

Dropout::Dropout(double probability) : Module("Dropout"), probability(probability) {}

at::Tensor Dropout::compute(const at::Tensor& input) {
  return at::dropout(input, probability, in_training());
}

Flatten::Flatten(int64_t start, int64_t end) : Module("Flatten"), start(start), end(end) {}

at::Tensor Flatten::compute(const at::Tensor& input) {
  return input.flatten(start, end);
}

void Flatten::check_input(const at::Tensor& input) const {
  const int64_t dimensions = std::max<int64_t>(input.dim(), 1);
  const auto from_first = [&](int64_t dimension) {
    return dimension < 0 ? dimension + dimensions : dimension;
  };
  const int64_t first = from_first(start);
  const int64_t last = from_first(end);
  if (first < 0 || first > last || last >= dimensions) {
    throw Error("ERR_SENET_SHAPE", "Flatten: dimensions " + std::to_string(start) + " to " +
                                       std::to_string(end) + " of an input of the shape " +
                                       shape_text(input.sizes()));
  }
}

Identity::Identity() : Module("Identity") {}

at::Tensor Identity::compute(const at::Tensor& input) {
  return input;
}

Sequential::Sequential(std::vector<std::shared_ptr<Module>> given)
    : Module("Sequential"), layers_(std::move(given)) {
  for (size_t i = 0; i < layers_.size(); ++i) {
    add_child(std::to_string(i), layers_[i], layers_[i]);
  }
}

at::Tensor Sequential::compute(const at::Tensor& input) {
  at::Tensor x = input;
  for (const auto& layer : layers_) {
    x = layer->forward(x);
  }
  return x;
}

void Sequential::check_input(const at::Tensor& input) const {
  Module::check_input(input);
  if (!layers_.empty()) {
    layers_.front()->check_input(input);
  }
}

// Each layer is asked once: the question goes down the whole tree.
Width Sequential::width() const {
  Width width;
  bool is_first = true;
  for (const auto& layer : layers_) {
    const Width own = layer->width();
    if (keeps_width(*layer, own)) {
      continue;
    }
    if (is_first) {
      width.input = own.input;
      is_first = false;
    }
    width.output = own.output;
  }
  return width;
}

bool Sequential::begins_with(const Module& child) const {
  for (const auto& layer : layers_) {
    if (layer.get() == &child) {
      return true;
    }
    if (!keeps_width(*layer, layer->width())) {
      return false;
    }
  }
  return false;
}

bool Sequential::ends_with(const Module& child) const {
  for (auto layer = layers_.rbegin(); layer != layers_.rend(); ++layer) {
    if (layer->get() == &child) {
      return true;
    }
    if (!keeps_width(**layer, (*layer)->width())) {
      return false;
    }
  }
  return false;
}

}  // namespace senet::nn
