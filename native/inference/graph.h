// What a compiled model computes, as a list of nodes over numbered values: the model's module tree with its
// containers resolved, each BatchNorm belonging to its convolution, and the Squeeze-and-Excitation of a block
// with its residual sum and ReLU in one node. Says nothing of how it is computed: direct_program.h and
// aten_program.h do.
#pragma once

#include "nn/layers.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace senet::inference {

/// Index of Graph::channels; every value is N x channels x height x width.
using ValueId = int32_t;
inline constexpr ValueId kNoValue = -1;

enum class Operation {
  kConvolution,    // with bias, then ReLU if `relu`
  kAffine,         // scale and shift per channel, then ReLU if `relu`
  kSqueezeExcite,  // inputs[0] * sigmoid(w2 . relu(w1 . mean + b1) + b2) [+ inputs[1]], then ReLU if `relu`
  kRelu,
  kMaxPool,
  kAveragePool,        // zeros of the padding count
  kGlobalAveragePool,  // to 1 x 1
  kConcatenate,        // along the channels
  kLinear,             // over the channels of a 1 x 1 image
};

struct Node {
  Operation operation;
  std::string name;  // path of the module in the source: "layer1.0.conv3"
  std::vector<ValueId> inputs = {};
  ValueId output = kNoValue;
  bool relu = false;

  // Tensors are the source's own, in its dtype and on its device: nothing is copied before a program packs
  // it.
  at::Tensor weight = {};                       // convolution: out x in x height x width; linear: out x in
  at::Tensor bias = {};                         // linear; may be undefined
  const nn::BatchNorm2d* batch_norm = nullptr;  // of a convolution, may be null; of an affine
  bool half_normalisation =
      false;                  // of a convolution: its input goes through Inception's `transform_input` first
  nn::Size2 stride = {1, 1};  // of pools as well
  nn::Size2 padding = {0, 0};
  nn::Size2 kernel = {1, 1};       // of convolutions and pools
  at::Tensor squeeze_weight = {};  // [hidden, channels]
  at::Tensor squeeze_bias = {};    // [hidden]; may be undefined
  at::Tensor excite_weight = {};   // [channels, hidden]
  at::Tensor excite_bias = {};     // [channels]; may be undefined
};

struct Graph {
  std::vector<Node> nodes;        // in an order in which they can run
  std::vector<int64_t> channels;  // of each value
  ValueId input = kNoValue;
  ValueId output = kNoValue;
  bool output_is_vector = false;    // N x channels instead of N x channels x 1 x 1
  nn::Size2 usual_size = {32, 32};  // of an image
  bool only_usual_size = false;     // others are refused

  /// Appends the node and gives its output, a new value.
  ValueId add(Node node, int64_t output_channels);
};

/// The graph of a module in evaluation mode. It refers to the module, which must outlive it.
/// Throws ERR_SENET_COMPILE for a module that takes no image, and for one with a part that the nodes cannot
/// say: what stands in the module decides, never what the place held when it was made.
Graph build_graph(nn::Module& module);

/// y = scale * weight * x + bias: what a convolution with its BatchNorm (and what its input goes through
/// first) comes to, a linear layer, or a BatchNorm alone (weight is then a vector). All but the weight is
/// float64 on the CPU, and so is the product, so that it is rounded once, when it is packed.
struct Linearised {
  at::Tensor weight;  // as the module has it, or float64
  at::Tensor scale;   // broadcasts against the weight; undefined: 1
  at::Tensor bias;

  /// scale * weight, contiguous.
  at::Tensor product() const;
  /// Of output channels [first, first + count) and of input channels [first_input, first_input + inputs).
  at::Tensor product(int64_t first, int64_t count, int64_t first_input, int64_t inputs) const;
};
Linearised linearise(const Node& node);

/// The graph's shape alone, once a program has packed the tensors: it refers to no module.
Graph without_tensors(const Graph& graph);

/// Height and width of each value for an input of this size. Throws ERR_SENET_SHAPE where a window does not
/// fit, and for an image that is larger than any memory.
std::vector<nn::Size2> infer_sizes(const Graph& graph, nn::Size2 input);

const char* operation_name(Operation operation);

}  // namespace senet::inference
