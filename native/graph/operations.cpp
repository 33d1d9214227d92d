// Three visitors of all operations: which shapes fit, which they give, and how LibTorch computes them.
#include "graph/operations.h"

#include "core/error.h"
#include "core/names.h"
#include "graph/fused_training.h"
#include "graph/graph.h"
#include "graph/sync_batch_norm.h"

#include <ATen/Context.h>
#include <ATen/ExpandUtils.h>
#include <ATen/ops/adaptive_avg_pool2d.h>
#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/batch_norm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/dropout.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/sigmoid.h>

#include <algorithm>

namespace senet::graph {
namespace {

using Shapes = std::vector<at::IntArrayRef>;
using Tensors = std::vector<at::Tensor>;

bool fits(int64_t size, int64_t expected) {
  return size == expected || size == kUnknown || expected == kUnknown;
}

bool has_empty(at::IntArrayRef shape) {
  return std::find(shape.begin(), shape.end(), 0) != shape.end();
}

// As PyTorch prints a size, with ? for one that a trace does not know.
std::string text_of(at::IntArrayRef shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    text += (i == 0 ? "" : ", ") + (shape[i] == kUnknown ? "?" : std::to_string(shape[i]));
  }
  return text + "]";
}

// The range of axes that a Flatten joins.
std::pair<int64_t, int64_t> axes_of(const Flatten& flatten, int64_t dim) {
  const int64_t dimensions = std::max<int64_t>(dim, 1);
  const auto from_first = [&](int64_t axis) { return axis < 0 ? axis + dimensions : axis; };
  return {from_first(flatten.start), from_first(flatten.end)};
}

// An axis that may be counted from the last of `dimensions`, or -1 where there is none such.
int64_t axis_of(int64_t axis, int64_t dimensions) {
  const int64_t from_first = axis < 0 ? axis + dimensions : axis;
  return from_first >= dimensions ? -1 : std::max<int64_t>(from_first, -1);
}

// --- which shapes fit
// ---------------------------------------------------------------------------------------------------------

template <class Pool>
void check_pool(at::IntArrayRef x, const Pool& pool, const std::string& owner) {
  check_image(x, kUnknown, owner);
  for (const size_t axis : {2, 3}) {
    if (x[axis] != kUnknown &&
        window_count(x[axis], pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode) < 1) {
      throw Error("ERR_SENET_SHAPE", owner + ": an input of the shape " + text_of(x) +
                                         " is smaller than the window of " +
                                         std::to_string(pool.kernel_size) + " with a padding of " +
                                         std::to_string(pool.padding));
    }
  }
}

struct Check {
  const Shapes& inputs;
  const std::string& owner;

  at::IntArrayRef x() const {
    return inputs.front();
  }

  void operator()(const Convolution& conv) const {
    check_image(x(), conv.weight.dim() == 4 ? conv.weight.size(1) * conv.groups : kUnknown, owner);
    const Window& window = conv.window;
    for (const size_t axis : {0, 1}) {
      const int64_t size = x()[2 + axis];
      const int64_t extent = window.dilation[axis] * (window.kernel[axis] - 1) + 1;
      if (size != kUnknown && size + 2 * window.padding[axis] < extent) {
        throw Error("ERR_SENET_SHAPE", owner + ": an input of the shape " + text_of(x()) +
                                           " is smaller than the kernel " + shape_text(window.kernel) +
                                           " with the padding " + shape_text(window.padding) +
                                           " and the dilation " + shape_text(window.dilation));
      }
    }
  }
  void operator()(const Convolution1d& conv) const {
    const int64_t channels = conv.weight.size(1) * conv.groups;
    const int64_t extent = conv.dilation * (conv.weight.size(2) - 1) + 1;
    const bool is_right = x().size() == 3 && fits(x()[1], channels) && !has_empty(x()) &&
                          (x()[2] == kUnknown || x()[2] + 2 * conv.padding >= extent);
    if (!is_right) {
      throw Error("ERR_SENET_SHAPE", owner + ": expected an input of the shape [N, " +
                                         std::to_string(channels) + ", L] with N at least 1 and L at least " +
                                         std::to_string(std::max<int64_t>(extent - 2 * conv.padding, 1)) +
                                         ", got " + text_of(x()));
    }
  }
  void operator()(const Unsqueeze& unsqueeze) const {
    check_axis(unsqueeze.axis, static_cast<int64_t>(x().size()) + 1);
  }
  void operator()(const Squeeze& squeeze) const {
    check_axis(squeeze.axis, static_cast<int64_t>(x().size()));
    const int64_t size = x()[static_cast<size_t>(axis_of(squeeze.axis, static_cast<int64_t>(x().size())))];
    if (!fits(size, 1)) {
      throw Error("ERR_SENET_SHAPE", owner + ": dimension " + std::to_string(squeeze.axis) +
                                         " of an input of the shape " + text_of(x()) + " is not 1");
    }
  }
  void operator()(const BatchNorm& norm) const {
    check_image(x(), norm.weight.dim() == 1 ? norm.weight.size(0) : kUnknown, owner);
    // LibTorch would give an infinite running variance.
    if (norm.training && x()[0] == 1 && x()[2] == 1 && x()[3] == 1) {
      throw Error("ERR_SENET_SHAPE",
                  owner +
                      ": expected more than 1 value per channel when training, got an input of the "
                      "shape " +
                      text_of(x()));
    }
  }
  void operator()(const ChannelAffine& affine) const {
    check_image(x(), static_cast<int64_t>(affine.scale.size()), owner);
  }
  void operator()(const MaxPool& pool) const {
    check_pool(x(), pool, owner);
  }
  void operator()(const AveragePool& pool) const {
    check_pool(x(), pool, owner);
  }
  void operator()(const AdaptiveAveragePool&) const {
    check_image(x(), kUnknown, owner);
  }
  void operator()(const Flatten& flatten) const {
    const auto dim = static_cast<int64_t>(x().size());
    const auto [first, last] = axes_of(flatten, dim);
    if (first < 0 || first > last || last >= std::max<int64_t>(dim, 1)) {
      throw Error("ERR_SENET_SHAPE", owner + ": dimensions " + std::to_string(flatten.start) + " to " +
                                         std::to_string(flatten.end) + " of an input of the shape " +
                                         text_of(x()));
    }
  }
  void operator()(const Linear& linear) const {
    const int64_t features = linear.weight.dim() == 2 ? linear.weight.size(1) : kUnknown;
    if (x().empty() || !fits(x().back(), features) || has_empty(x())) {
      throw Error("ERR_SENET_SHAPE", owner + ": expected an input of the shape [..., " +
                                         std::to_string(features) + "] that is not empty, got " +
                                         text_of(x()));
    }
  }
  void operator()(const Scale&) const {
    const at::IntArrayRef factors = inputs[1];
    const bool is_vector = factors.size() == 2 || (factors.size() == 4 && factors[2] == 1 && factors[3] == 1);
    const bool is_right = x().size() == 4 && is_vector && fits(factors[0], x()[0]) &&
                          (fits(factors[1], x()[1]) || factors[1] == 1);
    if (!is_right) {
      throw Error("ERR_SENET_SHAPE", owner + ": fc gives the shape " + text_of(factors) +
                                         " for an input of the shape " + text_of(x()));
    }
  }
  void operator()(const Add& add) const {
    const at::IntArrayRef y = inputs[1];
    bool is_right = y.size() <= x().size() || !add.in_place;
    for (size_t i = 1; is_right && i <= std::min(x().size(), y.size()); ++i) {
      const int64_t here = x()[x().size() - i];
      const int64_t there = y[y.size() - i];
      is_right = fits(there, here) || there == 1 || (!add.in_place && here == 1);
    }
    if (!is_right) {
      throw Error("ERR_SENET_SHAPE", owner + ": the residual has the shape " + text_of(y) +
                                         " and the block's output " + text_of(x()));
    }
  }
  void operator()(const Concatenate&) const {
    for (const at::IntArrayRef branch : inputs) {
      bool is_right = branch.size() == x().size() && branch.size() > 1;
      for (size_t axis = 0; is_right && axis < branch.size(); ++axis) {
        is_right = axis == 1 || fits(branch[axis], x()[axis]);
      }
      if (!is_right) {
        throw Error("ERR_SENET_SHAPE", owner + ": its branches have different sizes, " + text_of(x()) +
                                           " and " + text_of(branch));
      }
    }
  }
  template <class Any>
  void operator()(const Any&) const {}

 private:
  void check_axis(int64_t axis, int64_t dimensions) const {
    if (axis_of(axis, dimensions) < 0) {
      throw Error("ERR_SENET_SHAPE", owner + ": dimension " + std::to_string(axis) +
                                         " of an input of the shape " + text_of(x()));
    }
  }
};

// --- what they give
// -----------------------------------------------------------------------------------------------------------

struct Give {
  const Shapes& inputs;

  at::IntArrayRef x() const {
    return inputs.front();
  }

  Shape operator()(const Convolution& conv) const {
    Shape shape = {x()[0], conv.weight.size(0), 0, 0};
    for (const size_t axis : {0, 1}) {
      const int64_t extent = conv.window.dilation[axis] * (conv.window.kernel[axis] - 1) + 1;
      shape[2 + axis] =
          window_count(x()[2 + axis], extent, conv.window.stride[axis], conv.window.padding[axis]);
    }
    return shape;
  }
  Shape operator()(const Convolution1d& conv) const {
    return {x()[0], conv.weight.size(0),
            window_count(x()[2], conv.dilation * (conv.weight.size(2) - 1) + 1, conv.stride, conv.padding)};
  }
  Shape operator()(const Unsqueeze& unsqueeze) const {
    Shape shape = x().vec();
    shape.insert(shape.begin() + axis_of(unsqueeze.axis, static_cast<int64_t>(shape.size()) + 1), 1);
    return shape;
  }
  Shape operator()(const Squeeze& squeeze) const {
    Shape shape = x().vec();
    shape.erase(shape.begin() + axis_of(squeeze.axis, static_cast<int64_t>(shape.size())));
    return shape;
  }
  Shape operator()(const MaxPool& pool) const {
    return pooled(pool);
  }
  Shape operator()(const AveragePool& pool) const {
    return pooled(pool);
  }
  Shape operator()(const AdaptiveAveragePool& pool) const {
    return {x()[0], x()[1], pool.output_size[0], pool.output_size[1]};
  }
  Shape operator()(const Flatten& flatten) const {
    if (x().empty()) {
      return {1};
    }
    const auto [first, last] = axes_of(flatten, static_cast<int64_t>(x().size()));
    Shape shape(x().begin(), x().begin() + first);
    int64_t product = 1;
    for (int64_t axis = first; axis <= last; ++axis) {
      const int64_t size = x()[static_cast<size_t>(axis)];
      product = size == kUnknown || product == kUnknown ? kUnknown : product * size;
    }
    shape.push_back(product);
    shape.insert(shape.end(), x().begin() + last + 1, x().end());
    return shape;
  }
  Shape operator()(const Linear& linear) const {
    Shape shape = x().vec();
    shape.back() = linear.weight.size(0);
    return shape;
  }
  Shape operator()(const Add&) const {
    const at::IntArrayRef y = inputs[1];
    Shape shape = (x().size() >= y.size() ? x() : y).vec();
    const at::IntArrayRef other = x().size() >= y.size() ? y : x();
    for (size_t i = 1; i <= other.size(); ++i) {
      int64_t& size = shape[shape.size() - i];
      const int64_t there = other[other.size() - i];
      size = size == 1 || (size == kUnknown && there != 1) ? there : size;
    }
    return shape;
  }
  Shape operator()(const Concatenate&) const {
    Shape shape = x().vec();
    shape[1] = 0;
    for (const at::IntArrayRef branch : inputs) {
      shape[1] = branch[1] == kUnknown || shape[1] == kUnknown ? kUnknown : shape[1] + branch[1];
      for (size_t axis = 0; axis < shape.size(); ++axis) {
        shape[axis] = axis != 1 && shape[axis] == kUnknown ? branch[axis] : shape[axis];
      }
    }
    return shape;
  }
  template <class SameShape>
  Shape operator()(const SameShape&) const {
    return x().vec();
  }

 private:
  template <class Pool>
  Shape pooled(const Pool& pool) const {
    const auto count = [&](int64_t size) {
      return window_count(size, pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode);
    };
    return {x()[0], x()[1], count(x()[2]), count(x()[3])};
  }
};

// --- how LibTorch computes them
// ------------------------------------------------------------------------------------------------

struct Compute {
  const Tensors& inputs;

  const at::Tensor& x() const {
    return inputs.front();
  }

  at::Tensor operator()(const Convolution& conv) const {
    return convolve(x(), conv.weight, conv.bias, conv.window, conv.groups);
  }
  at::Tensor operator()(const Convolution1d& conv) const {
    // As an image of one row, so that what keeps oneDNN's faults away serves it too.
    const Window window = {{1, conv.weight.size(2)}, {1, conv.stride}, {0, conv.padding}, {1, conv.dilation}};
    return convolve(x().unsqueeze(2), conv.weight.unsqueeze(2), conv.bias, window, conv.groups).squeeze(2);
  }
  at::Tensor operator()(const BatchNorm& norm) const {
    double factor = norm.momentum;
    if (norm.training) {
      if (can_fuse_batch_norm(x(), norm)) {
        return fused_batch_norm(x(), norm, /*relu=*/false);
      }
      at::Tensor counter = norm.num_batches_tracked;
      counter.add_(1);
      if (factor < 0) {
        factor = 1.0 / counter.item<double>();
      }
      if (const auto group = norm.sync ? collective() : nullptr; group != nullptr && group->size() > 1) {
        return sync_batch_norm(x(), norm, factor, group);
      }
    }
    // LibTorch's backward for channels-last reads the weight as if it were contiguous.
    return at::batch_norm(x(), norm.weight.contiguous(), norm.bias.contiguous(), norm.running_mean,
                          norm.running_var, norm.training, factor, norm.eps,
                          at::globalContext().userEnabledCuDNN());
  }
  // (narrow would give another memory format, and so other kernels than PyTorch's, for channels-last input.)
  at::Tensor operator()(const ChannelAffine& affine) const {
    Tensors channels;
    for (size_t i = 0; i < affine.scale.size(); ++i) {
      channels.push_back(x().select(1, static_cast<int64_t>(i)).unsqueeze(1) * affine.scale[i] +
                         affine.shift[i]);
    }
    return at::cat(channels, 1);
  }
  at::Tensor operator()(const Relu& relu) const {
    return relu.in_place ? x().relu_() : at::relu(x());
  }
  at::Tensor operator()(const Sigmoid&) const {
    return at::sigmoid(x());
  }
  at::Tensor operator()(const Dropout& dropout) const {
    return at::dropout(x(), dropout.probability, /*train=*/true);
  }
  at::Tensor operator()(const MaxPool& pool) const {
    return at::max_pool2d(x(), pool.kernel_size, pool.stride, pool.padding, /*dilation=*/1, pool.ceil_mode);
  }
  at::Tensor operator()(const AveragePool& pool) const {
    return at::avg_pool2d(x(), pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode,
                          pool.count_include_pad);
  }
  at::Tensor operator()(const AdaptiveAveragePool& pool) const {
    return at::adaptive_avg_pool2d(x(), pool.output_size);
  }
  at::Tensor operator()(const Flatten& flatten) const {
    return x().flatten(flatten.start, flatten.end);
  }
  at::Tensor operator()(const Unsqueeze& unsqueeze) const {
    return x().unsqueeze(unsqueeze.axis);
  }
  at::Tensor operator()(const Squeeze& squeeze) const {
    return x().squeeze(squeeze.axis);
  }
  at::Tensor operator()(const Linear& linear) const {
    return at::linear(x(), linear.weight, linear.bias);
  }
  at::Tensor operator()(const Scale&) const {
    return x() * (inputs[1].dim() == 4 ? inputs[1] : inputs[1].unsqueeze(-1).unsqueeze(-1));
  }
  at::Tensor operator()(const Add& add) const {
    if (!add.in_place) {
      return x() + inputs[1];
    }
    at::Tensor sum = x();
    return sum += inputs[1];
  }
  at::Tensor operator()(const Concatenate&) const {
    return at::cat(inputs, 1);
  }
  at::Tensor operator()(const BatchNormRelu& both) const {
    if (can_fuse_batch_norm(x(), both.norm)) {
      return fused_batch_norm(x(), both.norm, /*relu=*/true);
    }
    return Compute{{(*this)(both.norm)}}(Relu{both.in_place});
  }
  at::Tensor operator()(const Recalibration& whole) const {
    return can_fuse_recalibration(x(), whole, inputs[1]) ? fused_recalibration(x(), whole, inputs[1])
                                                         : execute(*whole.apart, inputs).front();
  }
};

constexpr const char* kNames[] = {
    "convolution", "convolution_1d", "batch_norm",      "channel_affine", "relu",
    "sigmoid",     "dropout",        "max_pool",        "average_pool",   "adaptive_average_pool",
    "flatten",     "unsqueeze",      "squeeze",         "linear",         "scale",
    "add",         "concatenate",    "batch_norm_relu", "recalibration"};
static_assert(std::size(kNames) == std::variant_size_v<Operation>);

}  // namespace

const char* operation_name(const Operation& operation) {
  return kNames[operation.index()];
}

int64_t window_count(int64_t size, int64_t extent, int64_t stride, int64_t padding, bool ceil_mode) {
  if (size == kUnknown) {
    return kUnknown;
  }
  const int64_t room = size + 2 * padding - extent + (ceil_mode ? stride - 1 : 0);
  if (room < 0) {
    return 0;
  }
  const int64_t count = room / stride + 1;
  return ceil_mode && (count - 1) * stride >= size + padding ? count - 1 : count;
}

void check_image(at::IntArrayRef shape, int64_t channels, const std::string& owner) {
  if (shape.size() == 4 && fits(shape[1], channels) && !has_empty(shape)) {
    return;
  }
  throw Error(
      "ERR_SENET_SHAPE",
      owner +
          (channels == kUnknown ? ": expected an input of the shape [N, C, H, W], all at least 1, got "
                                : ": expected an input of the shape [N, " + std::to_string(channels) +
                                      ", H, W] with N, H and W at least 1, got ") +
          text_of(shape));
}

void check_shapes(const Operation& operation, const std::vector<at::IntArrayRef>& inputs,
                  const std::string& owner) {
  std::visit(Check{inputs, owner}, operation);
}

Shape output_shape(const Operation& operation, const std::vector<at::IntArrayRef>& inputs) {
  return std::visit(Give{inputs}, operation);
}

at::Tensor compute(const Operation& operation, const std::vector<at::Tensor>& inputs) {
  return std::visit(Compute{inputs}, operation);
}

}  // namespace senet::graph
