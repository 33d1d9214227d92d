// fuse_training(): finds what fused_training.h computes in fewer passes.
#include "graph/fused_training.h"

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

namespace senet::graph {
namespace {

// relu(se(norm(x)) + residual), if it stands there and nobody else reads what is between.
struct Tail {
  std::vector<const Node*> nodes;  // in their order, from the norm to the ReLU
  Excitation excitation;
  ValueId input;
  ValueId residual;
};

template <class Kind>
const Node* producer_of(const Uses& uses, ValueId value) {
  const Node* const node = uses.producer(value);
  return node != nullptr && std::holds_alternative<Kind>(node->operation) ? node : nullptr;
}

std::optional<Tail> find_tail(const Graph& graph, const Uses& uses, size_t relu) {
  const Node* const last = &graph.nodes[relu];
  const Node* const sum = producer_of<Add>(uses, last->inputs.front());
  // Right after each other, so that nothing happens to the residual in between.
  if (relu == 0 || sum != &graph.nodes[relu - 1] || uses.only_reader(sum->output) != last) {
    return std::nullopt;
  }
  const Node* const scale = producer_of<Scale>(uses, sum->inputs[0]);
  if (scale == nullptr || uses.only_reader(scale->output) != sum) {
    return std::nullopt;
  }
  std::optional<Excitation> found = find_excitation(uses, *scale);
  if (!found || uses.readers(found->input).size() != 2 || uses.is_output(found->input)) {
    return std::nullopt;
  }
  const Node* const norm = producer_of<BatchNorm>(uses, found->input);
  if (norm == nullptr || uses.only_reader(norm->inputs.front()) != norm) {
    return std::nullopt;
  }
  std::vector<const Node*> nodes = {norm};
  nodes.insert(nodes.end(), found->inner.begin(), found->inner.end());
  nodes.insert(nodes.end(), {scale, sum, last});
  return Tail{std::move(nodes), *std::move(found), norm->inputs.front(), sum->inputs[1]};
}

// The nodes of a tail as a graph of their own, over values of its own numbering.
Graph cut_out(const Graph& graph, const Tail& tail) {
  Graph apart;
  std::map<ValueId, ValueId> numbers;
  const auto number = [&](ValueId value) {
    const auto [found, is_new] = numbers.try_emplace(value, static_cast<ValueId>(apart.shapes.size()));
    if (is_new) {
      apart.shapes.push_back(graph.shape(value));
    }
    return found->second;
  };
  apart.inputs = {number(tail.input), number(tail.residual)};
  for (const Node* node : tail.nodes) {
    std::vector<ValueId> inputs;
    for (const ValueId input : node->inputs) {
      inputs.push_back(number(input));
    }
    apart.nodes.push_back(
        {node->operation, node->name, node->owner, std::move(inputs), number(node->output)});
  }
  apart.outputs = {apart.nodes.back().output};
  return apart;
}

Recalibration make_recalibration(const Graph& graph, Tail tail) {
  auto apart = std::make_shared<Graph>(cut_out(graph, tail));
  Excitation& found = tail.excitation;
  return {std::get<BatchNorm>(tail.nodes.front()->operation), std::move(found.squeeze),
          std::move(found.excite), std::move(found.channel_kernel), std::move(apart)};
}

}  // namespace

void fuse_training(Graph& graph) {
  const Uses uses(graph);
  std::vector<bool> is_gone(graph.nodes.size(), false);
  const auto remove = [&](const Node* node) {
    is_gone[static_cast<size_t>(node - graph.nodes.data())] = true;
  };
  std::vector<Node> fused;
  const auto replace = [&](const Node& last, Operation operation, std::vector<ValueId> inputs) {
    fused.push_back({std::move(operation), last.name, last.owner, std::move(inputs), last.output});
  };
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& node = graph.nodes[i];
    const auto* relu = std::get_if<Relu>(&node.operation);
    if (relu == nullptr) {
      continue;
    }
    if (std::optional<Tail> tail = find_tail(graph, uses, i)) {
      std::for_each(tail->nodes.begin(), tail->nodes.end(), remove);
      const std::vector<ValueId> inputs = {tail->input, tail->residual};
      replace(node, make_recalibration(graph, *std::move(tail)), inputs);
      continue;
    }
    const Node* const norm = producer_of<BatchNorm>(uses, node.inputs.front());
    if (norm != nullptr && norm == &graph.nodes[i - 1] && uses.only_reader(norm->output) == &node) {
      remove(norm);
      remove(&node);
      replace(node, BatchNormRelu{std::get<BatchNorm>(norm->operation), relu->in_place}, norm->inputs);
    }
  }
  // Each in the place of its last node.
  std::vector<Node> nodes;
  auto next = fused.begin();
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    Node& node = graph.nodes[i];
    if (next != fused.end() && next->output == node.output) {
      nodes.push_back(std::move(*next++));
    } else if (!is_gone[i]) {
      nodes.push_back(std::move(node));
    }
  }
  graph.nodes = std::move(nodes);
}

}  // namespace senet::graph
