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

namespace {

// Goes back from a node along first inputs, as long as nobody else reads what lies between.
class Backwards {
 public:
  Backwards(const Uses& uses, const Node& from, ValueId value) : uses_(uses), reader_(&from), value_(value) {}

  // The operation that gave the present value, if it is of this kind.
  template <class Kind>
  const Kind* peek() const {
    const Node* const node = uses_.producer(value_);
    return node != nullptr && uses_.only_reader(value_) == reader_ ? std::get_if<Kind>(&node->operation)
                                                                   : nullptr;
  }
  // The same, and goes behind it.
  template <class Kind>
  const Kind* take() {
    const Kind* const operation = peek<Kind>();
    if (operation != nullptr) {
      reader_ = uses_.producer(value_);
      value_ = reader_->inputs.front();
      taken.insert(taken.begin(), reader_);
    }
    return operation;
  }
  // A linear layer over the channels of a vector: as such, or as a 1 x 1 convolution of one pixel.
  std::optional<Linear> take_linear() {
    if (const auto* linear = take<Linear>()) {
      return *linear;
    }
    const auto* conv = peek<Convolution>();
    if (conv == nullptr || conv->groups != 1 || conv->weight.dim() != 4 ||
        conv->window.kernel != Size2{1, 1} || conv->window.padding != Size2{0, 0}) {
      return std::nullopt;
    }
    take<Convolution>();
    return Linear{conv->weight.flatten(1), conv->bias};
  }

  ValueId value() const {
    return value_;
  }
  // Of what was taken last.
  const std::string& name() const {
    return reader_->name;
  }

  std::vector<const Node*> taken;  // in the order of the graph

 private:
  const Uses& uses_;
  const Node* reader_;
  ValueId value_;
};

// sigmoid(excite(relu(squeeze(...))))
bool take_squeeze_and_excite(Backwards& back, Excitation& found) {
  if (back.take<Sigmoid>() == nullptr) {
    return false;
  }
  const std::optional<Linear> excite = back.take_linear();
  found.excite_name = back.name();
  if (!excite || back.take<Relu>() == nullptr) {
    return false;
  }
  const std::optional<Linear> squeeze = back.take_linear();
  found.squeeze_name = back.name();
  if (!squeeze || excite->weight.size(0) != squeeze->weight.size(1)) {
    return false;
  }
  found.squeeze = *squeeze;
  found.excite = *excite;
  back.take<Flatten>();
  return true;
}

// sigmoid(convolve(...)) along the channels
bool take_channel_kernel(Backwards& back, Excitation& found) {
  if (back.take<Squeeze>() == nullptr || back.take<Sigmoid>() == nullptr) {
    return false;
  }
  const auto* conv = back.take<Convolution1d>();
  found.squeeze_name = back.name();
  if (conv == nullptr || conv->weight.numel() != conv->weight.size(2) || conv->bias.defined() ||
      conv->stride != 1 || conv->dilation != 1 || conv->weight.size(2) != 2 * conv->padding + 1 ||
      back.take<Unsqueeze>() == nullptr || back.take<Flatten>() == nullptr) {
    return false;
  }
  found.channel_kernel = conv->weight.flatten();
  return true;
}

}  // namespace

std::optional<Excitation> find_excitation(const Uses& uses, const Node& scale) {
  if (!std::holds_alternative<Scale>(scale.operation)) {
    return std::nullopt;
  }
  Excitation found{&scale, {}, scale.inputs[0], {}, {}, {}, {}, {}};
  Backwards back(uses, scale, scale.inputs[1]);
  const bool is_found = back.peek<Squeeze>() != nullptr ? take_channel_kernel(back, found)
                                                        : take_squeeze_and_excite(back, found);
  const auto* pool = is_found ? back.take<AdaptiveAveragePool>() : nullptr;
  if (pool == nullptr || pool->output_size != Size2{1, 1} || back.value() != found.input) {
    return std::nullopt;
  }
  found.inner = std::move(back.taken);
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
