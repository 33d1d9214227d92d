#include "graph/graph.h"

#include <algorithm>
#include <utility>

namespace senet::graph {

Uses::Uses(const Graph& graph)
    : graph_(graph), readers_(graph.shapes.size()), producers_(graph.shapes.size(), nullptr) {
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& node = graph.nodes[i];
    for (const ValueId input : node.inputs) {
      readers_[static_cast<size_t>(input)].push_back(i);
    }
    producers_[static_cast<size_t>(node.output)] = &node;
  }
}

const Node* Uses::only_reader(ValueId value) const {
  const std::vector<size_t>& all = readers(value);
  return all.size() == 1 && !is_output(value) ? &graph_.nodes[all.front()] : nullptr;
}

const Node* Uses::producer(ValueId value) const {
  return producers_[static_cast<size_t>(value)];
}

bool Uses::is_output(ValueId value) const {
  return std::find(graph_.outputs.begin(), graph_.outputs.end(), value) != graph_.outputs.end();
}

std::optional<Excitation> find_excitation(const Uses& uses, const Node& scale) {
  if (!std::holds_alternative<Scale>(scale.operation)) {
    return std::nullopt;
  }
  Excitation found{&scale, {}, scale.inputs[0], {}, {}};
  ValueId value = scale.inputs[1];
  const Node* reader = &scale;
  // One operation back, if nobody else reads what it gives.
  const auto back = [&](auto kind) -> const decltype(kind)* {
    const Node* const node = reader == nullptr ? nullptr : uses.producer(value);
    const auto* operation = node == nullptr ? nullptr : std::get_if<decltype(kind)>(&node->operation);
    if (operation == nullptr || uses.only_reader(value) != reader) {
      reader = nullptr;
      return nullptr;
    }
    found.inner.insert(found.inner.begin(), node);
    reader = node;
    value = node->inputs.front();
    return operation;
  };
  back(Sigmoid{});
  const Linear* const excite = back(Linear{});
  back(Relu{});
  const Linear* const squeeze = back(Linear{});
  back(Flatten{});
  const AdaptiveAveragePool* const pool = back(AdaptiveAveragePool{});
  if (pool == nullptr || pool->output_size != Size2{1, 1} || value != found.input ||
      excite->weight.size(0) != squeeze->weight.size(1)) {
    return std::nullopt;
  }
  found.squeeze = *squeeze;
  found.excite = *excite;
  return found;
}

std::vector<at::Tensor> execute(const Graph& graph, const std::vector<at::Tensor>& inputs) {
  std::vector<at::Tensor> values(graph.shapes.size());
  std::vector<int32_t> uses(graph.shapes.size(), 0);
  for (const Node& node : graph.nodes) {
    for (const ValueId input : node.inputs) {
      ++uses[static_cast<size_t>(input)];
    }
  }
  for (const ValueId output : graph.outputs) {
    ++uses[static_cast<size_t>(output)];
  }
  const auto take = [&](ValueId id) {
    at::Tensor& value = values[static_cast<size_t>(id)];
    return --uses[static_cast<size_t>(id)] == 0 ? std::move(value) : value;
  };
  for (size_t i = 0; i < inputs.size(); ++i) {
    values[static_cast<size_t>(graph.inputs[i])] = inputs[i];
  }
  for (const Node& node : graph.nodes) {
    std::vector<at::Tensor> read;
    for (const ValueId input : node.inputs) {
      read.push_back(take(input));
    }
    values[static_cast<size_t>(node.output)] = compute(node.operation, read);
  }
  std::vector<at::Tensor> outputs;
  for (const ValueId output : graph.outputs) {
    outputs.push_back(take(output));
  }
  return outputs;
}

}  // namespace senet::graph
