// The blocks of Inception-v3 (Szegedy et al., "Rethinking the Inception Architecture for Computer Vision",
// CVPR 2016), with torchvision's names and widths, each with a place for an SELayer.
#pragma once

#include "nn/se_layer.h"

#include <string>
#include <vector>

namespace senet::nn {

/// Where a block applies its SELayer. PARITY: the original stores the layers and never calls them (kNone).
enum class Recalibrate { kNone, kInput, kOutput };

/// Convolution, BatchNorm (eps 0.001), ReLU.
class BasicConv2d : public Module {
 public:
  explicit BasicConv2d(const Conv2dOptions& options);
  Value compute(const Value& input) override;
  void check_input(const Value& input) const override;
  Width width() const override;
  bool begins_with(const Module& child) const override;

  std::shared_ptr<Conv2d> conv;
  std::shared_ptr<BatchNorm2d> bn;
};

/// What the Inception blocks share: their convolutions run in branches on one input, around which an SELayer
/// stands.
class InceptionBlock : public Module {
 public:
  using Chain = std::vector<std::shared_ptr<BasicConv2d>>;

  Value compute(const Value& input) final;
  void check_input(const Value& input) const override;
  Width width() const override;
  /// Registers an SELayer as the block's last child, for its input or output channels.
  void add_se(Recalibrate where);

  const int64_t in_channels;
  const int64_t out_channels;
  Recalibrate recalibrate = Recalibrate::kNone;
  std::shared_ptr<SELayer> se;  // the child "SELayer"; null before add_se

 protected:
  InceptionBlock(std::string type_name, int64_t in_channels, int64_t out_channels);
  virtual Value run_branches(const Value& input) = 0;
  std::shared_ptr<BasicConv2d> add(const std::string& name, int64_t in, int64_t out, Size2 kernel_size,
                                   Size2 padding = {0, 0}, int64_t stride = 1);
};

/// At 35 x 35.
class InceptionA : public InceptionBlock {
 public:
  InceptionA(int64_t in_channels, int64_t pool_features);
  Chain branch1x1, branch5x5, branch3x3dbl, branch_pool;

 protected:
  Value run_branches(const Value& input) override;
};

/// From 35 x 35 to 17 x 17.
class InceptionB : public InceptionBlock {
 public:
  explicit InceptionB(int64_t in_channels);
  Chain branch3x3, branch3x3dbl;

 protected:
  Value run_branches(const Value& input) override;
};

/// At 17 x 17.
class InceptionC : public InceptionBlock {
 public:
  InceptionC(int64_t in_channels, int64_t channels_7x7);
  Chain branch1x1, branch7x7, branch7x7dbl, branch_pool;

 protected:
  Value run_branches(const Value& input) override;
};

/// From 17 x 17 to 8 x 8.
class InceptionD : public InceptionBlock {
 public:
  explicit InceptionD(int64_t in_channels);
  Chain branch3x3, branch7x7x3;

 protected:
  Value run_branches(const Value& input) override;
};

/// At 8 x 8; two of its branches fork into an a and a b end.
class InceptionE : public InceptionBlock {
 public:
  explicit InceptionE(int64_t in_channels);
  Chain branch1x1, branch3x3, branch3x3dbl, branch_pool;
  std::shared_ptr<BasicConv2d> branch3x3_a, branch3x3_b, branch3x3dbl_a, branch3x3dbl_b;

 protected:
  Value run_branches(const Value& input) override;
};

/// The auxiliary classifier on the 17 x 17 grid. It has no output that an SELayer could stand on.
class InceptionAux : public InceptionBlock {
 public:
  InceptionAux(int64_t in_channels, int64_t num_classes);
  bool ends_with(const Module& child) const override;
  std::shared_ptr<BasicConv2d> conv0, conv1;
  std::shared_ptr<Module> fc;

 protected:
  Value run_branches(const Value& input) override;
};

}  // namespace senet::nn
