#include "inference/plan.h"

#include "core/error.h"

#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

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
      if (inner_.count(&node) == 0) {
        current_ = &node;
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
    add_pool(Operation::kMaxPool, pool);
  }

  void fold(const graph::AveragePool& pool) {
    add_pool(Operation::kAveragePool, pool);
  }

  void fold(const graph::AdaptiveAveragePool& pool) {
    if (pool.output_size != Size2{1, 1}) {
      add_operator();
    } else if (is_one_pixel(current_->inputs.front())) {
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
    if (made == nullptr || plan_.output == id(read) || uses_.readers(read).size() != 1) {
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
  void add_pool(Operation operation, const Pool& pool) {
    Node node = make(operation);
    node.window = {
        {pool.kernel_size, pool.kernel_size}, {pool.stride, pool.stride}, {pool.padding, pool.padding}};
    add(std::move(node));
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

// Always a copy.
at::Tensor to_float64(const at::Tensor& tensor) {
  return tensor.detach().to(at::TensorOptions(at::kCPU).dtype(at::kDouble), /*non_blocking=*/false,
                            /*copy=*/true);
}

// Of one value for one image. Whoever computes with sizes needs no check for overflow; an expanded tensor may
// be described as larger than any memory.
constexpr int64_t kMostElements = int64_t{1} << 40;

int64_t window_count(int64_t size, const graph::Window& window, size_t axis, const std::string& name) {
  const int64_t padded = size + 2 * window.padding[axis];
  const int64_t extent = window.dilation[axis] * (window.kernel[axis] - 1) + 1;
  if (padded < extent) {
    throw Error("ERR_SENET_SHAPE", "'" + name + "' has a window of " + std::to_string(extent) +
                                       ", its input is only " + std::to_string(padded) + " with padding");
  }
  return (padded - extent) / window.stride[axis] + 1;
}

// The shape of a value for one image.
graph::Shape shape_of(const Plan& plan, ValueId value, const std::vector<Size2>& sizes) {
  const Size2& size = sizes[static_cast<size_t>(value)];
  return plan.value(value).is_vector ? graph::Shape{1, plan.channels(value)}
                                     : graph::Shape{1, plan.channels(value), size[0], size[1]};
}

Size2 infer_operator(const Plan& plan, const Node& node, const std::vector<Size2>& sizes) {
  std::vector<graph::Shape> shapes;
  for (const ValueId input : node.inputs) {
    shapes.push_back(shape_of(plan, input, sizes));
  }
  const std::vector<at::IntArrayRef> inputs(shapes.begin(), shapes.end());
  graph::check_shapes(*node.other, inputs, node.name);
  const graph::Shape shape = graph::output_shape(*node.other, inputs);
  if (shape[1] != plan.channels(node.output)) {
    throw Error("ERR_SENET_SHAPE", "'" + node.name + "' gives " + std::to_string(shape[1]) +
                                       " features for an image of this size; what reads them takes " +
                                       std::to_string(plan.channels(node.output)));
  }
  return shape.size() == 4 ? Size2{shape[2], shape[3]} : Size2{1, 1};
}

}  // namespace

Plan make_plan(const graph::Graph& graph) {
  return Folding(graph).run();
}

at::Tensor Linearised::product() const {
  const at::Tensor whole = to_float64(weight);
  return scale.defined() ? whole * scale : whole;
}

at::Tensor Linearised::product(int64_t first, int64_t count, int64_t first_input, int64_t inputs) const {
  at::Tensor rows = to_float64(weight.narrow(0, first, count).narrow(1, first_input, inputs)).contiguous();
  return scale.defined() ? rows.mul_(scale.narrow(0, first, count)) : rows;
}

Linearised linearise(const Node& node) {
  const at::TensorOptions options = at::TensorOptions(at::kCPU).dtype(at::kDouble);
  Linearised result;
  if (node.weight.defined()) {
    result.weight = node.weight.detach();
    result.bias = node.bias.defined() ? to_float64(node.bias) : at::zeros({node.weight.size(0)}, options);
  }
  if (node.batch_norm) {
    const graph::BatchNorm& bn = *node.batch_norm;
    const at::Tensor scale = to_float64(bn.weight) / (to_float64(bn.running_var) + bn.eps).sqrt();
    const at::Tensor shift = to_float64(bn.bias) - to_float64(bn.running_mean) * scale;
    if (node.weight.defined()) {
      result.scale = scale.reshape({-1, 1, 1, 1});
      result.bias = result.bias * scale + shift;
    } else {
      result = {scale, {}, shift};
    }
  }
  if (node.affine) {
    const at::Tensor scale = at::tensor(node.affine->scale, options);
    const at::Tensor shift = at::tensor(node.affine->shift, options);
    if (!node.weight.defined()) {
      return {scale, {}, shift};
    }
    // Of the input's channels: without padding it moves into the weights.
    const at::Tensor folded = result.product();
    result.bias = result.bias + (folded * shift.reshape({1, -1, 1, 1})).sum(at::IntArrayRef{1, 2, 3});
    result.weight = folded * scale.reshape({1, -1, 1, 1});
    result.scale = at::Tensor();
  }
  return result;
}

Plan without_tensors(const Plan& plan) {
  Plan result = plan;
  for (Node& node : result.nodes) {
    for (at::Tensor* tensor : {&node.weight, &node.bias, &node.squeeze_weight, &node.squeeze_bias,
                               &node.excite_weight, &node.excite_bias}) {
      *tensor = at::Tensor();
    }
    node.batch_norm.reset();
  }
  return result;
}

std::vector<Size2> infer_sizes(const Plan& plan, Size2 input) {
  int64_t widest = 1;
  for (const PlanValue& value : plan.values) {
    widest = std::max(widest, value.channels);
  }
  if (input[0] > kMostElements / widest / input[1]) {
    throw Error("ERR_SENET_SHAPE", "an image of " + std::to_string(input[0]) + " x " +
                                       std::to_string(input[1]) + " is too large for any memory");
  }
  std::vector<Size2> sizes(plan.values.size(), Size2{0, 0});
  const auto of = [&](ValueId value) -> Size2& { return sizes[static_cast<size_t>(value)]; };
  of(plan.input) = input;
  for (const Node& node : plan.nodes) {
    Size2 size = of(node.inputs.front());
    switch (node.operation) {
      case Operation::kConvolution:
      case Operation::kMaxPool:
      case Operation::kAveragePool:
        for (const size_t axis : {0, 1}) {
          size[axis] = window_count(size[axis], node.window, axis, node.name);
        }
        break;
      case Operation::kGlobalAveragePool:
        size = {1, 1};
        break;
      case Operation::kSqueezeExcite:
      case Operation::kAdd:
        if (node.inputs.size() > 1 && of(node.inputs[1]) != size) {
          throw Error("ERR_SENET_SHAPE",
                      "'" + node.name + "': the residual is " + std::to_string(of(node.inputs[1])[0]) +
                          " x " + std::to_string(of(node.inputs[1])[1]) + " and the block's output " +
                          std::to_string(size[0]) + " x " + std::to_string(size[1]));
        }
        break;
      case Operation::kConcatenate:
        for (const ValueId part : node.inputs) {
          if (of(part) != size) {
            throw Error("ERR_SENET_SHAPE", "'" + node.name + "': its branches have different sizes");
          }
        }
        break;
      case Operation::kOperator:
        size = infer_operator(plan, node, sizes);
        break;
      case Operation::kAffine:
      case Operation::kRelu:
      case Operation::kLinear:
        break;
    }
    of(node.output) = size;
  }
  return sizes;
}

const char* operation_name(const Node& node) {
  switch (node.operation) {
    case Operation::kConvolution:
      return "convolution";
    case Operation::kAffine:
      return "affine";
    case Operation::kSqueezeExcite:
      return "squeeze_excite";
    case Operation::kAdd:
      return "add";
    case Operation::kRelu:
      return "relu";
    case Operation::kMaxPool:
      return "max_pool";
    case Operation::kAveragePool:
      return "average_pool";
    case Operation::kGlobalAveragePool:
      return "global_average_pool";
    case Operation::kConcatenate:
      return "concatenate";
    case Operation::kLinear:
      return "linear";
    case Operation::kOperator:
      return graph::operation_name(*node.other);
  }
  return "?";
}

}  // namespace senet::inference
