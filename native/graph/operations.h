// The operations that forwards are made of: what each of them needs to know, which shapes it takes and gives,
// and how LibTorch computes it. An operation is a value; Value (value.h) computes it or notes it in a graph.
// Whoever adds one gives it a struct, a place in `Operation` and its rules in operations.cpp: a back end that
// does not know it computes it with compute().
#pragma once

#include "graph/convolution.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

namespace senet::graph {

/// torch.nn.functional.conv2d; the bias may be undefined.
struct Convolution {
  at::Tensor weight;  // out x in / groups x kernel height x kernel width
  at::Tensor bias;
  Window window;
  int64_t groups = 1;
};

/// How much of a running statistic a batch replaces, where nobody says otherwise.
inline constexpr double kUsualMomentum = 0.1;

/// torch.nn.functional.batch_norm with affine parameters and running statistics.
struct BatchNorm {
  at::Tensor weight;
  at::Tensor bias;
  at::Tensor running_mean;
  at::Tensor running_var;
  at::Tensor num_batches_tracked;
  double eps = 1e-5;
  double momentum = kUsualMomentum;  // negative: the average of all batches
  bool training = false;
  bool sync = false;  // in training, over the images of all processes of the group
};

/// scale * x + shift, per channel, with constants.
struct ChannelAffine {
  std::vector<double> scale;
  std::vector<double> shift;
};

struct Relu {
  bool in_place = false;  // changes its input, as PyTorch's
};

struct Sigmoid {};

/// In training; in evaluation mode there is none.
struct Dropout {
  double probability;
};

/// torch.nn.functional.conv1d; the bias may be undefined.
struct Convolution1d {
  at::Tensor weight;  // out x in / groups x kernel
  at::Tensor bias;
  int64_t stride = 1;
  int64_t padding = 0;
  int64_t dilation = 1;
  int64_t groups = 1;
};

/// torch.nn.functional.max_pool2d.
struct MaxPool {
  int64_t kernel_size;
  int64_t stride;
  int64_t padding = 0;
  bool ceil_mode = false;  // a last window that the input does not fill counts
};

/// torch.nn.functional.avg_pool2d.
struct AveragePool {
  int64_t kernel_size;
  int64_t stride;
  int64_t padding = 0;
  bool ceil_mode = false;
  bool count_include_pad = true;  // the zeros of the padding count as values
};

struct AdaptiveAveragePool {
  Size2 output_size = {1, 1};
};

/// Joins the dimensions from `start` to `end` (which counts from the last if it is negative) into one.
struct Flatten {
  int64_t start = 1;
  int64_t end = -1;
};

/// A dimension of one before `axis`, which counts from the last if it is negative; and without that one.
struct Unsqueeze {
  int64_t axis;
};
struct Squeeze {
  int64_t axis;
};

/// torch.nn.functional.linear; the bias may be undefined.
struct Linear {
  at::Tensor weight;  // out x in
  at::Tensor bias;
};

/// Of images and a factor for each of their channels, N x C x H x W and N x C or N x C x 1 x 1.
struct Scale {};

struct Add {
  bool in_place = false;  // changes the first input; the second broadcasts to it
};

/// Along the channels.
struct Concatenate {};

struct Graph;

/// relu(batch_norm(x)) in training; made by fuse_training().
struct BatchNormRelu {
  BatchNorm norm;
  bool in_place;
};

/// relu(se(batch_norm(x)) + residual) in training, inputs x and the residual; made by fuse_training().
struct Recalibration {
  BatchNorm norm;
  Linear squeeze;
  Linear excite;
  at::Tensor channel_kernel;           // [k], in place of both; else undefined
  std::shared_ptr<const Graph> apart;  // the same as single operations, for what cannot be fused
};

using Operation = std::variant<Convolution, Convolution1d, BatchNorm, ChannelAffine, Relu, Sigmoid, Dropout,
                               MaxPool, AveragePool, AdaptiveAveragePool, Flatten, Unsqueeze, Squeeze, Linear,
                               Scale, Add, Concatenate, BatchNormRelu, Recalibration>;

/// "convolution", "batch_norm", ...
const char* operation_name(const Operation& operation);

/// A size that a trace does not know.
inline constexpr int64_t kUnknown = -1;
using Shape = std::vector<int64_t>;

/// How often a window of this extent (with its dilation) is laid along an axis, 0 if it does not
/// fit; kUnknown of kUnknown. With `ceil_mode` the last may reach beyond the padding, if it begins before the
/// padding behind the input.
int64_t window_count(int64_t size, int64_t extent, int64_t stride, int64_t padding, bool ceil_mode = false);

/// Throws ERR_SENET_SHAPE, in the name of `owner`, unless the shape is N x channels x H x W with no empty
/// dimension; kUnknown is any number of channels.
void check_image(at::IntArrayRef shape, int64_t channels, const std::string& owner);

/// Throws ERR_SENET_SHAPE, in the name of `owner` ("SEBottleneck"), where these shapes do not fit together,
/// and for windows that do not fit into their image. Unknown sizes fit.
void check_shapes(const Operation& operation, const std::vector<at::IntArrayRef>& inputs,
                  const std::string& owner);

/// The shape of what an operation gives, with what is unknown as kUnknown. The inputs passed check_shapes().
Shape output_shape(const Operation& operation, const std::vector<at::IntArrayRef>& inputs);

/// Computes it with LibTorch, gradients included.
at::Tensor compute(const Operation& operation, const std::vector<at::Tensor>& inputs);

}  // namespace senet::graph
