// What a compiled model computes, as a list of nodes over numbered values: a traced forward with its patterns
// folded (folding.cpp). Each BatchNorm belongs to its convolution, and a Squeeze-and-Excitation with the
// residual sum and the ReLU that follow it is one node. Says nothing of how it is computed: back ends do.
#pragma once

#include "graph/graph.h"
#include "nn/module.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace senet::inference {

using graph::kNoValue;
using graph::Size2;
/// Index of Plan::values.
using graph::ValueId;

enum class Operation {
  kConvolution,    // with bias, then ReLU if `relu`
  kAffine,         // scale and shift per channel, then ReLU if `relu`
  kSqueezeExcite,  // inputs[0] * sigmoid(w2 . relu(w1 . mean + b1) + b2) [+ inputs[1]], then ReLU if `relu`;
                   // with a channel_kernel inputs[0] * sigmoid(convolved mean)
  kAdd,            // inputs[0] + inputs[1], of one shape, then ReLU if `relu`
  kRelu,
  kMaxPool,
  kAveragePool,
  kGlobalAveragePool,  // to 1 x 1
  kConcatenate,        // along the channels
  kLinear,             // over the channels of a vector, then ReLU if `relu`
  kOperator,           // anything else: graph::compute() of `other`
};

struct Node {
  Operation operation;
  std::string name;  // path of the module in the source: "layer1.0.conv3"
  std::vector<ValueId> inputs = {};
  ValueId output = kNoValue;
  bool relu = false;

  // Tensors are the source's own, in its dtype and on its device: nothing is copied before a program packs
  // it.
  at::Tensor weight = {};  // convolution: out x in / groups x height x width; linear: out x in
  at::Tensor bias = {};    // of both; may be undefined
  std::optional<graph::BatchNorm> batch_norm = {};  // of a convolution, may be none; of an affine
  std::optional<graph::ChannelAffine> affine = {};  // of an affine; of a convolution: what its input goes
                                                    // through first
  graph::Window window = {{1, 1}};                  // of convolutions and pools
  bool ceil_mode = false;                           // of pools
  bool count_include_pad = true;                    // of an average pool
  int64_t groups = 1;
  at::Tensor squeeze_weight = {};  // [hidden, channels]
  at::Tensor squeeze_bias = {};    // [hidden]; may be undefined
  at::Tensor excite_weight = {};   // [channels, hidden]
  at::Tensor excite_bias = {};     // [channels]; may be undefined
  at::Tensor channel_kernel = {};  // [k], in place of squeeze and excite, of odd length
  std::string squeeze_name = {};   // paths of the modules of squeeze_weight (or channel_kernel)
  std::string excite_name = {};    // and of excite_weight
  std::shared_ptr<const graph::Operation> other = {};  // of kOperator
};

struct PlanValue {
  int64_t channels;
  bool is_vector;  // N x channels, else N x channels x height x width
};

struct Plan {
  std::vector<Node> nodes;  // in an order in which they can run
  std::vector<PlanValue> values;
  ValueId input = kNoValue;
  ValueId output = kNoValue;
  nn::InputSize input_size = {};

  const PlanValue& value(ValueId id) const {
    return values[static_cast<size_t>(id)];
  }
  int64_t channels(ValueId id) const {
    return value(id).channels;
  }
};

/// The plan of a traced forward of one input and one output; it holds the same tensors. Throws
/// ERR_SENET_COMPILE for what takes no image or gives neither images nor vectors.
Plan make_plan(const graph::Graph& graph);

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

/// The plan's shape alone, once a program has packed the tensors.
Plan without_tensors(const Plan& plan);

/// Height and width of each value for an input of this size. Throws ERR_SENET_SHAPE where a window does not
/// fit, and for an image that is larger than any memory.
std::vector<Size2> infer_sizes(const Plan& plan, Size2 input);

/// Whether a node's factors may be computed before the convolution that it scales and reads first: a linear 1
/// x 1 convolution's mean is that of its input through its weights. Whether others read the convolution too
/// is for the caller to ask.
bool may_come_first(const Node& excitation, const Node& convolution);

const char* operation_name(const Node& node);

}  // namespace senet::inference
