// fuse_training(): finds what fused_training.h computes in fewer passes.
#include "graph/fused_training.h"

#include <memory>
#include <optional>
#include <set>
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

Recalibration make_recalibration(const Graph& graph, const Tail& tail) {
  auto apart = std::make_shared<Graph>();
  apart->shapes = graph.shapes;
  apart->inputs = {tail.input, tail.residual};
  apart->outputs = {tail.nodes.back()->output};
  for (const Node* node : tail.nodes) {
    apart->nodes.push_back(*node);
  }
  const Excitation& found = tail.excitation;
  return {std::get<BatchNorm>(tail.nodes.front()->operation), found.squeeze, found.excite,
          found.channel_kernel, std::move(apart)};
}

}  // namespace

void fuse_training(Graph& graph) {
  const Uses uses(graph);
  std::set<const Node*> gone;
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
    if (const std::optional<Tail> tail = find_tail(graph, uses, i)) {
      gone.insert(tail->nodes.begin(), tail->nodes.end());
      replace(node, make_recalibration(graph, *tail), {tail->input, tail->residual});
      continue;
    }
    const Node* const norm = producer_of<BatchNorm>(uses, node.inputs.front());
    if (norm != nullptr && norm == &graph.nodes[i - 1] && uses.only_reader(norm->output) == &node) {
      gone.insert({norm, &node});
      replace(node, BatchNormRelu{std::get<BatchNorm>(norm->operation), relu->in_place}, norm->inputs);
    }
  }
  // Each in the place of its last node.
  std::vector<Node> nodes;
  auto next = fused.begin();
  for (const Node& node : graph.nodes) {
    if (next != fused.end() && next->output == node.output) {
      nodes.push_back(std::move(*next++));
    } else if (gone.count(&node) == 0) {
      nodes.push_back(node);
    }
  }
  graph.nodes = std::move(nodes);
}

}  // namespace senet::graph
