// What a forward computes: operations in the order in which it asked for them, over numbered values.
#pragma once

#include "graph/operations.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace senet::graph {

/// Index of Graph::shapes.
using ValueId = int32_t;
inline constexpr ValueId kNoValue = -1;

struct Node {
  Operation operation;
  std::string name;   // path of the module that asked for it: "layer1.0.conv3"
  std::string owner;  // its class: "Conv2d"
  std::vector<ValueId> inputs;
  ValueId output;
};

struct Graph {
  std::vector<Node> nodes;
  std::vector<Shape> shapes;  // of each value
  std::vector<ValueId> inputs;
  std::vector<ValueId> outputs;

  const Shape& shape(ValueId value) const {
    return shapes[static_cast<size_t>(value)];
  }
};

/// Who reads and who makes each value.
class Uses {
 public:
  explicit Uses(const Graph& graph);

  /// Indices of the nodes that read a value, in order, once for each reading.
  const std::vector<size_t>& readers(ValueId value) const {
    return readers_[static_cast<size_t>(value)];
  }
  /// The one reader of a value that is read once and is no output of the graph.
  const Node* only_reader(ValueId value) const;
  /// Null for an input of the graph.
  const Node* producer(ValueId value) const;
  bool is_output(ValueId value) const;

 private:
  const Graph& graph_;
  std::vector<std::vector<size_t>> readers_;
  std::vector<const Node*> producers_;
};

/// The operations of an SELayer or SEModule, scale(x, sigmoid(excite(relu(squeeze(mean(x)))))), or of an
/// EcaModule, scale(x, sigmoid(convolve(mean(x)))) with a kernel along the channels.
struct Excitation {
  const Node* scale;
  std::vector<const Node*> inner;  // the others, in their order
  ValueId input;                   // x
  Linear squeeze;
  Linear excite;
  at::Tensor channel_kernel;  // [k], in place of both; else undefined
  std::string squeeze_name;   // paths of the modules of `squeeze` (or the kernel), and of `excite`
  std::string excite_name;
};

/// Those that end in `scale`, if they stand there and nobody else reads what is between.
std::optional<Excitation> find_excitation(const Uses& uses, const Node& scale);

/// Computes the graph with LibTorch, node by node: the same as the forward that was traced. Values are
/// released when their last reader has them.
std::vector<at::Tensor> execute(const Graph& graph, const std::vector<at::Tensor>& inputs);

}  // namespace senet::graph
