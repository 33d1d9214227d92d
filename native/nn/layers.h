// The layers of torch.nn that the models are made of, with PyTorch's names, keys, defaults and initial draws.
// They stand in for LibTorch's own, which always draw their weights and have no input checks.
// Tensors and children are public and are replaced by nobody: their data is (Tensor::set_data).
#pragma once

#include "nn/module.h"

#include <array>
#include <memory>
#include <vector>

namespace senet::nn {

/// Height and width.
using Size2 = std::array<int64_t, 2>;

struct Conv2dOptions {
  int64_t in_channels;
  int64_t out_channels;
  Size2 kernel_size;
  Size2 stride = {1, 1};
  Size2 padding = {0, 0};
};

/// Convolution without bias: every convolution of these models is followed by a BatchNorm2d.
class Conv2d : public Module {
 public:
  explicit Conv2d(const Conv2dOptions& options);
  at::Tensor forward(const at::Tensor& input) override;
  void check_input(const at::Tensor& input) const override;

  const Conv2dOptions options;
  at::Tensor weight;  // out x in x kernel height x kernel width
};

/// 3 x 3 with padding 1.
std::shared_ptr<Conv2d> conv3x3(int64_t in_channels, int64_t out_channels, int64_t stride = 1);
std::shared_ptr<Conv2d> conv1x1(int64_t in_channels, int64_t out_channels, int64_t stride = 1);

/// momentum 0.1, with affine parameters and running statistics.
class BatchNorm2d : public Module {
 public:
  explicit BatchNorm2d(int64_t features, double eps = 1e-5);
  at::Tensor forward(const at::Tensor& input) override;
  void check_input(const at::Tensor& input) const override;
  int64_t version() const override;  // 2, since num_batches_tracked

  const int64_t features;
  const double eps;
  at::Tensor weight;
  at::Tensor bias;
  at::Tensor running_mean;
  at::Tensor running_var;
  at::Tensor num_batches_tracked;  // int64, no dimensions
};

/// The standard deviation of torchvision's Inception3 for weights that have none of their own.
inline constexpr double kInceptionStandardDeviation = 0.1;

class Linear : public Module {
 public:
  Linear(int64_t in_features, int64_t out_features, bool with_bias = true);
  at::Tensor forward(const at::Tensor& input) override;
  void check_input(const at::Tensor& input) const override;

  const int64_t in_features;
  const int64_t out_features;
  at::Tensor weight;  // out x in
  at::Tensor bias;    // undefined without bias
  /// Read by init_inception only.
  double inception_standard_deviation = kInceptionStandardDeviation;
};

/// In place, as everywhere in the originals: it changes its input.
class ReLU : public Module {
 public:
  ReLU();
  at::Tensor forward(const at::Tensor& input) override;
};

class Sigmoid : public Module {
 public:
  Sigmoid();
  at::Tensor forward(const at::Tensor& input) override;
};

/// Floor mode.
class MaxPool2d : public Module {
 public:
  MaxPool2d(int64_t kernel_size, int64_t stride, int64_t padding = 0);
  at::Tensor forward(const at::Tensor& input) override;
  void check_input(const at::Tensor& input) const override;

  const int64_t kernel_size;
  const int64_t stride;
  const int64_t padding;
};

/// To an output of 1 x 1.
class AdaptiveAvgPool2d : public Module {
 public:
  AdaptiveAvgPool2d();
  at::Tensor forward(const at::Tensor& input) override;
  void check_input(const at::Tensor& input) const override;
};

/// Probability 0.5.
class Dropout : public Module {
 public:
  Dropout();
  at::Tensor forward(const at::Tensor& input) override;
};

/// Children are named "0", "1", ... and run in that order.
class Sequential : public Module {
 public:
  explicit Sequential(std::vector<std::shared_ptr<Module>> layers);
  at::Tensor forward(const at::Tensor& input) override;
  void check_input(const at::Tensor& input) const override;

  const std::vector<std::shared_ptr<Module>> layers;
};

}  // namespace senet::nn
