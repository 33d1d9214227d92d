// make_plan(): the patterns of a traced forward, folded into fewer nodes.
#include "inference/plan.h"

#include "core/error.h"

#include <algorithm>
#include <set>
#include <utility>

namespace senet::inference {
namespace {

// Goes through a traced forward once, in its order. An operation that belongs to the node before it (a
// BatchNorm to its convolution, a ReLU to what it stands behind) changes that node, if nobody else reads what
// that gives.
class Folding {
 public:
  explicit Folding(const graph::Graph& graph)
      : graph_(graph), uses_(graph), ids_(graph.shapes.size(), kNoValue) {
    for (const graph::Node& node : graph.nodes) {
      if (std::optional<graph::Excitation> found = graph::find_excitation(uses_, node)) {
        excitations_.push_back(*found);
        inner_.insert(found->inner.begin(), found->inner.end());
      }
    }
  }

  Plan run() {
    plan_.input = ids_[index(graph_.inputs.front())] = add_value(graph_.inputs.front());
    for (const graph::Node& node : graph_.nodes) {
      current_ = &node;
      check_keeps_images();
      if (inner_.count(&node) == 0) {
        std::visit([this](const auto& operation) { fold(operation); }, node.operation);
      }
    }
    plan_.output = id(graph_.outputs.front());
    return std::move(plan_);
  }

 private:
  // --- one for each operation; what has none of its own is an operator
  // -------------------------------------------------------------------------

  template <class Other>
  void fold(const Other&) {
    add_operator();
  }

  void fold(const graph::Convolution& conv) {
    Node node = make(Operation::kConvolution);
    node.weight = conv.weight;
    node.bias = conv.bias;
    node.window = conv.window;
    node.groups = conv.groups;
    Node* before = foldable(node.inputs.front());
    const bool has_padding = conv.window.padding != Size2{0, 0};
    if (before != nullptr && before->operation == Operation::kAffine && before->affine && !before->relu &&
        conv.groups == 1 && !has_padding) {
      // Without padding, a scale and shift of the input's channels move into the weights.
      node.affine = before->affine;
      node.inputs = before->inputs;
      plan_.nodes.erase(plan_.nodes.begin() + (before - plan_.nodes.data()));
    }
    add(std::move(node));
  }

  void fold(const graph::BatchNorm& norm) {
    Node* before = foldable(id(current_->inputs.front()));
    if (before != nullptr && before->operation == Operation::kConvolution && !before->batch_norm &&
        !before->relu) {
      before->batch_norm = norm;
      alias(before->output);
      return;
    }
    Node node = make(Operation::kAffine);
    node.batch_norm = norm;
    add(std::move(node));
  }

  void fold(const graph::ChannelAffine& affine) {
    Node node = make(Operation::kAffine);
    node.affine = affine;
    add(std::move(node));
  }

  void fold(const graph::Relu&) {
    Node* before = foldable(id(current_->inputs.front()));
    if (before != nullptr && !before->relu) {
      switch (before->operation) {
        case Operation::kConvolution:
        case Operation::kAffine:
        case Operation::kSqueezeExcite:
        case Operation::kAdd:
        case Operation::kLinear:
          before->relu = true;
          alias(before->output);
          return;
        default:
          break;
      }
    }
    if (plan_.value(id(current_->inputs.front())).is_vector) {
      add_operator();
    } else {
      add(make(Operation::kRelu));
    }
  }

  void fold(const graph::MaxPool& pool) {
    add(make_pool(Operation::kMaxPool, pool));
  }

  void fold(const graph::AveragePool& pool) {
    Node node = make_pool(Operation::kAveragePool, pool);
    node.count_include_pad = pool.count_include_pad;
    add(std::move(node));
  }

  void fold(const graph::AdaptiveAveragePool& pool) {
    if (pool.output_size != Size2{1, 1}) {
      add_operator();
    } else if (is_one_pixel(current_->inputs.front()) &&
               uses_.only_reader(current_->inputs.front()) == current_) {
      alias(id(current_->inputs.front()));
    } else {
      add(make(Operation::kGlobalAveragePool));
    }
  }

  void fold(const graph::Flatten&) {
    const ValueId read = current_->inputs.front();
    const graph::Shape& shape = graph_.shape(current_->output);
    if (shape.size() != 2 || plan_.value(id(read)).is_vector || !is_one_pixel(read)) {
      add_operator();
      return;
    }
    // A view of one pixel is a vector, and its memory is the same.
    Node* made = producer(id(read));
    if (made == nullptr || uses_.only_reader(read) != current_) {
      add_operator();
      return;
    }
    plan_.values[index(id(read))].is_vector = true;
    alias(id(read));
  }

  void fold(const graph::Linear& linear) {
    if (!plan_.value(id(current_->inputs.front())).is_vector) {
      refuse("it takes no image; it stands behind Flatten");
    }
    Node node = make(Operation::kLinear);
    node.weight = linear.weight;
    node.bias = linear.bias;
    add(std::move(node));
  }

  void fold(const graph::Scale&) {
    const auto found =
        std::find_if(excitations_.begin(), excitations_.end(),
                     [this](const graph::Excitation& excitation) { return excitation.scale == current_; });
    if (found == excitations_.end()) {
      add_operator();
      return;
    }
    Node node = make(Operation::kSqueezeExcite);
    node.inputs.pop_back();
    node.squeeze_weight = found->squeeze.weight;
    node.squeeze_bias = found->squeeze.bias;
    node.excite_weight = found->excite.weight;
    node.excite_bias = found->excite.bias;
    node.channel_kernel = found->channel_kernel;
    node.squeeze_name = found->squeeze_name;
    node.excite_name = found->excite_name;
    add(std::move(node));
  }

  void fold(const graph::Add&) {
    if (graph_.shape(current_->inputs[0]).size() != 4 || graph_.shape(current_->inputs[1]).size() != 4 ||
        plan_.channels(id(current_->inputs[0])) != plan_.channels(id(current_->inputs[1])) ||
        is_one_pixel(current_->inputs[0]) != is_one_pixel(current_->inputs[1])) {
      add_operator();
      return;
    }
    for (const size_t side : {0, 1}) {
      Node* before = foldable(id(current_->inputs[side]));
      if (before != nullptr && before->operation == Operation::kSqueezeExcite && !before->relu &&
          before->inputs.size() == 1) {
        // At the place of the sum: what is added may be made between the two.
        Node node = std::move(*before);
        plan_.nodes.erase(plan_.nodes.begin() + (before - plan_.nodes.data()));
        node.inputs.push_back(id(current_->inputs[1 - side]));
        ids_[index(current_->output)] = node.output;
        plan_.nodes.push_back(std::move(node));
        return;
      }
    }
    add(make(Operation::kAdd));
  }

  void fold(const graph::Concatenate&) {
    if (graph_.shape(current_->output).size() != 4) {
      add_operator();
      return;
    }
    Node node = make(Operation::kConcatenate);
    std::vector<ValueId> parts;
    for (const ValueId part : std::exchange(node.inputs, {})) {
      Node* before = foldable(part);
      if (before != nullptr && before->operation == Operation::kConcatenate) {
        parts.insert(parts.end(), before->inputs.begin(), before->inputs.end());
        plan_.nodes.erase(plan_.nodes.begin() + (before - plan_.nodes.data()));
      } else {
        parts.push_back(part);
      }
    }
    node.inputs = std::move(parts);
    add(std::move(node));
  }

  // -------------------------------------------------------------------------------------------------------

  template <class Pool>
  Node make_pool(Operation operation, const Pool& pool) const {
    Node node = make(operation);
    node.window = {
        {pool.kernel_size, pool.kernel_size}, {pool.stride, pool.stride}, {pool.padding, pool.padding}};
    node.ceil_mode = pool.ceil_mode;
    return node;
  }

  void add_operator() {
    Node node = make(Operation::kOperator);
    node.other = std::make_shared<const graph::Operation>(current_->operation);
    add(std::move(node));
  }

  Node make(Operation operation) const {
    Node node{operation, current_->name};
    for (const ValueId input : current_->inputs) {
      node.inputs.push_back(id(input));
    }
    return node;
  }

  void add(Node node) {
    node.output = add_value(current_->output);
    ids_[index(current_->output)] = node.output;
    plan_.nodes.push_back(std::move(node));
  }

  // The current operation gives a value that is there already.
  void alias(ValueId value) {
    ids_[index(current_->output)] = value;
  }

  ValueId add_value(ValueId traced) {
    const graph::Shape& shape = graph_.shape(traced);
    if (shape.size() != 2 && shape.size() != 4) {
      refuse("it gives neither images nor vectors");
    }
    plan_.values.push_back({shape[1] != graph::kUnknown ? shape[1] : wanted_features(traced),
                            /*is_vector=*/shape.size() == 2});
    return static_cast<ValueId>(plan_.values.size() - 1);
  }

  // Of a vector whose length depends on the image's size: as its reader wants it.
  int64_t wanted_features(ValueId traced) const {
    for (const size_t reader : uses_.readers(traced)) {
      if (const auto* linear = std::get_if<graph::Linear>(&graph_.nodes[reader].operation)) {
        return linear->weight.size(1);
      }
    }
    refuse("the length of its vectors depends on the size of the image, and no Linear says what it is");
  }

  ValueId id(ValueId traced) const {
    return ids_[index(traced)];
  }

  Node* producer(ValueId value) {
    const auto found = std::find_if(plan_.nodes.begin(), plan_.nodes.end(),
                                    [value](const Node& node) { return node.output == value; });
    return found == plan_.nodes.end() ? nullptr : &*found;
  }

  // What made a value that the current operation alone reads.
  Node* foldable(ValueId value) {
    for (const ValueId traced : current_->inputs) {
      if (id(traced) == value && uses_.only_reader(traced) == current_) {
        return producer(value);
      }
    }
    return nullptr;
  }

  // A batch may have any number of images, so that they stay apart.
  void check_keeps_images() const {
    const auto* flatten = std::get_if<graph::Flatten>(&current_->operation);
    const auto dimensions = static_cast<int64_t>(graph_.shape(current_->inputs.front()).size());
    const auto is_first = [&](int64_t axis) { return axis == 0 || axis == -dimensions; };
    if (flatten != nullptr && is_first(flatten->start) && !is_first(flatten->end)) {
      refuse("it joins the images of a batch");
    }
  }

  bool is_one_pixel(ValueId traced) const {
    const graph::Shape& shape = graph_.shape(traced);
    return shape.size() == 4 && shape[2] == 1 && shape[3] == 1;
  }

  [[noreturn]] void refuse(const std::string& why) const {
    throw Error("ERR_SENET_COMPILE", "compile: " + current_->owner +
                                         (current_->name.empty() ? "" : " ('" + current_->name + "')") +
                                         " cannot be compiled: " + why);
  }

  static size_t index(ValueId value) {
    return static_cast<size_t>(value);
  }

  const graph::Graph& graph_;
  const graph::Uses uses_;
  std::vector<graph::Excitation> excitations_;
  std::set<const graph::Node*> inner_;  // of them, but for the scales
  std::vector<ValueId> ids_;            // traced -> planned
  const graph::Node* current_ = nullptr;
  Plan plan_;
};

}  // namespace

Plan make_plan(const graph::Graph& graph) {
  return Folding(graph).run();
}

}  // namespace senet::inference
