// The layers of torch.nn that the models are made of, with PyTorch's names, keys, defaults and initial draws.
// They stand in for LibTorch's own, which always draw their weights and have no input checks.
// Tensors are public and are replaced by nobody: their data is (Tensor::set_data). Children are replaced by
// Module::replace_child alone.
#pragma once

#include "nn/options.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace senet::nn {

struct Conv2dOptions {
  int64_t in_channels;
  int64_t out_channels;
  Size2 kernel_size;
  Size2 stride = {1, 1};
  Size2 padding = {0, 0};
  Size2 dilation = {1, 1};
  int64_t groups = 1;
  bool with_bias = false;  // every convolution of the models is followed by a BatchNorm2d
};

class Conv2d : public Module {
 public:
  static std::shared_ptr<Module> make(OptionReader& options);
  explicit Conv2d(const Conv2dOptions& options);
  Value compute(const Value& input) override;
  void check_input(const Value& input) const override;

  Width width() const override;

  const Conv2dOptions options;
  at::Tensor weight;  // out x in / groups x kernel height x kernel width
  at::Tensor bias;    // undefined without bias

 private:
  graph::Convolution operation() const;
};

struct Conv1dOptions {
  int64_t in_channels;
  int64_t out_channels;
  int64_t kernel_size;
  int64_t stride = 1;
  int64_t padding = 0;
  int64_t dilation = 1;
  int64_t groups = 1;
  bool with_bias = true;
};

class Conv1d : public Module {
 public:
  static std::shared_ptr<Module> make(OptionReader& options);
  explicit Conv1d(const Conv1dOptions& options);
  Value compute(const Value& input) override;
  void check_input(const Value& input) const override;

  Width width() const override;

  const Conv1dOptions options;
  at::Tensor weight;  // out x in / groups x kernel
  at::Tensor bias;    // undefined without bias

 private:
  graph::Convolution1d operation() const;
};

/// 3 x 3 with padding 1.
std::shared_ptr<Conv2d> conv3x3(int64_t in_channels, int64_t out_channels, int64_t stride = 1);
std::shared_ptr<Conv2d> conv1x1(int64_t in_channels, int64_t out_channels, int64_t stride = 1);

/// With affine parameters and running statistics. A negative momentum stands for None in Python: the average
/// of all batches.
class BatchNorm2d : public Module {
 public:
  static std::shared_ptr<Module> make(OptionReader& options);
  explicit BatchNorm2d(int64_t features, double eps = 1e-5, double momentum = graph::kUsualMomentum);
  Value compute(const Value& input) override;
  void check_input(const Value& input) const override;
  int64_t version() const override;  // 2, since num_batches_tracked
  Width width() const override;

  const int64_t features;
  const double eps;
  const double momentum;
  at::Tensor weight;
  at::Tensor bias;
  at::Tensor running_mean;
  at::Tensor running_var;
  at::Tensor num_batches_tracked;  // int64, no dimensions
  bool sync = false;  // as torch.nn.SyncBatchNorm: in training over the images of the whole group

 private:
  graph::BatchNorm operation() const;
};

/// The standard deviation of torchvision's Inception3 for weights that have none of their own.
inline constexpr double kInceptionStandardDeviation = 0.1;

class Linear : public Module {
 public:
  static std::shared_ptr<Module> make(OptionReader& options);
  Linear(int64_t in_features, int64_t out_features, bool with_bias = true);
  Value compute(const Value& input) override;
  void check_input(const Value& input) const override;

  Width width() const override;
  bool may_be_head() const override {
    return true;
  }

  const int64_t in_features;
  const int64_t out_features;
  at::Tensor weight;  // out x in
  at::Tensor bias;    // undefined without bias
  /// Read by init_inception only.
  double inception_standard_deviation = kInceptionStandardDeviation;
};

/// In place by default, as everywhere in the originals: it changes its input.
class ReLU : public Module {
 public:
  static std::shared_ptr<Module> make(OptionReader& options);
  explicit ReLU(bool in_place = true);
  Value compute(const Value& input) override;

  const bool in_place;
};

class Sigmoid : public Module {
 public:
  static std::shared_ptr<Module> make(OptionReader& options);
  Sigmoid();
  Value compute(const Value& input) override;
};

class MaxPool2d : public Module {
 public:
  static std::shared_ptr<Module> make(OptionReader& options);
  explicit MaxPool2d(const graph::MaxPool& options);
  Value compute(const Value& input) override;
  void check_input(const Value& input) const override;

  const graph::MaxPool options;
};

class AvgPool2d : public Module {
 public:
  static std::shared_ptr<Module> make(OptionReader& options);
  explicit AvgPool2d(const graph::AveragePool& options);
  Value compute(const Value& input) override;
  void check_input(const Value& input) const override;

  const graph::AveragePool options;
};

class AdaptiveAvgPool2d : public Module {
 public:
  static std::shared_ptr<Module> make(OptionReader& options);
  explicit AdaptiveAvgPool2d(Size2 output_size = {1, 1});
  Value compute(const Value& input) override;
  void check_input(const Value& input) const override;

  const Size2 output_size;
};

class Dropout : public Module {
 public:
  static std::shared_ptr<Module> make(OptionReader& options);
  explicit Dropout(double probability = 0.5);
  Value compute(const Value& input) override;

  const double probability;
};

/// Joins the dimensions from `start` to `end` (which counts from the last if it is negative) into one.
class Flatten : public Module {
 public:
  static std::shared_ptr<Module> make(OptionReader& options);
  explicit Flatten(int64_t start = 1, int64_t end = -1);
  Value compute(const Value& input) override;
  void check_input(const Value& input) const override;
  Width width() const override;

  const int64_t start;
  const int64_t end;
};

/// Gives its input.
class Identity : public Module {
 public:
  static std::shared_ptr<Module> make(OptionReader& options);
  Identity();
  Value compute(const Value& input) override;
  bool may_be_head() const override {
    return true;
  }
};

/// A network's last layer: a Linear from `features` to `classes`, or, for none, an Identity, with which the
/// network gives its features (timm's `create_classifier`).
std::shared_ptr<Module> make_head(int64_t features, int64_t classes);

/// Children are named "0", "1", ... and run in that order; without any, it gives its input.
class Sequential : public Module {
 public:
  static std::shared_ptr<Module> make(OptionReader& options);
  explicit Sequential(std::vector<std::shared_ptr<Module>> layers);
  /// Of Python's OrderedDict: children under their own names.
  explicit Sequential(std::vector<std::pair<std::string, std::shared_ptr<Module>>> layers);
  Value compute(const Value& input) override;
  void check_input(const Value& input) const override;
  Width width() const override;
  bool begins_with(const Module& child) const override;
  bool ends_with(const Module& child) const override;
  bool may_be_head() const override {
    return true;
  }

  const std::vector<std::shared_ptr<Module>>& layers() const {
    return layers_;
  }

 private:
  std::vector<std::shared_ptr<Module>> layers_;
};

}  // namespace senet::nn
