#include "graph/value.h"

#include <algorithm>
#include <iterator>
#include <map>

namespace senet::graph {

// What all aliases and views of a value share: an in-place operation changes it for all of them.
struct Slot {
  ValueId current;
  Shape shape;
};

struct View {
  Flatten flatten;
  std::string name;  // these two as a Node's
  std::string owner;
};

struct Value::Traced {
  Trace* trace;
  std::shared_ptr<Slot> slot;
  std::vector<View> views;  // of the slot
  Shape shape;              // with the views
  std::optional<at::TensorOptions> options;
};

Untraceable Untraceable::of(const std::string& module, const std::string& path) const {
  if (has_module_) {
    return *this;
  }
  Untraceable named("compile: " + module + (path.empty() ? "" : " ('" + path + "')") +
                    " cannot be compiled: " + what());
  named.has_module_ = true;
  return named;
}

Trace* Value::trace() const {
  return traced_ == nullptr ? nullptr : traced_->trace;
}

const at::Tensor& Value::tensor() const {
  if (traced_ != nullptr) {
    throw Untraceable("its forward reads numbers");
  }
  return tensor_;
}

at::IntArrayRef Value::sizes() const {
  return traced_ != nullptr ? at::IntArrayRef(traced_->shape) : tensor_.sizes();
}

int64_t Value::size(int64_t axis) const {
  const at::IntArrayRef all = sizes();
  return all[static_cast<size_t>(axis < 0 ? axis + static_cast<int64_t>(all.size()) : axis)];
}

bool Value::is_empty() const {
  const at::IntArrayRef all = sizes();
  return std::find(all.begin(), all.end(), 0) != all.end();
}

std::optional<at::TensorOptions> Value::options() const {
  return traced_ != nullptr ? traced_->options : std::optional(tensor_.options());
}

Value apply(Operation operation, const std::vector<Value>& inputs, const std::string& owner) {
  std::vector<at::IntArrayRef> shapes;
  Trace* trace = nullptr;
  for (const Value& input : inputs) {
    shapes.push_back(input.sizes());
    trace = trace == nullptr ? input.trace() : trace;
  }
  check_shapes(operation, shapes, owner);
  if (trace != nullptr) {
    return trace->record(std::move(operation), inputs, owner);
  }
  std::vector<at::Tensor> tensors;
  for (const Value& input : inputs) {
    tensors.push_back(input.tensor());
  }
  return compute(operation, tensors);
}

Value Trace::input(Shape shape, std::optional<at::TensorOptions> options) {
  graph_.shapes.push_back(shape);
  const auto id = static_cast<ValueId>(graph_.shapes.size() - 1);
  graph_.inputs.push_back(id);
  return Value(std::make_shared<const Value::Traced>(
      Value::Traced{this, std::make_shared<Slot>(Slot{id, shape}), {}, shape, options}));
}

Value Trace::record(Operation operation, const std::vector<Value>& inputs, const std::string& owner) {
  owner_ = owner;
  if (is_finished_) {
    throw Untraceable("its forward has ended: what was traced in it is of no use afterwards");
  }
  std::vector<at::IntArrayRef> shapes;
  for (const Value& input : inputs) {
    if (input.trace() != this) {
      throw Untraceable("its forward uses a tensor that is no parameter and does not come from its input");
    }
    shapes.push_back(input.sizes());
  }
  Shape shape = output_shape(operation, shapes);
  const Value::Traced& first = *inputs.front().traced_;
  if (const auto* flatten = std::get_if<Flatten>(&operation)) {
    Value::Traced view = first;
    view.views.push_back({*flatten, path(), owner});
    view.shape = std::move(shape);
    return Value(std::make_shared<const Value::Traced>(std::move(view)));
  }
  const auto* relu = std::get_if<Relu>(&operation);
  const auto* sum = std::get_if<Add>(&operation);
  if (relu != nullptr && relu->in_place) {
    // What it does to a view it does to the whole.
    first.slot->current = add(std::move(operation), {first.slot->current}, first.slot->shape);
    return inputs.front();
  }
  std::vector<ValueId> ids;
  for (const Value& input : inputs) {
    ids.push_back(read(input));
  }
  if (sum != nullptr && sum->in_place) {
    if (!first.views.empty()) {
      throw Untraceable("its forward adds to a view in place");
    }
    first.slot->current = add(std::move(operation), std::move(ids), std::move(shape));
    return inputs.front();
  }
  const ValueId id = add(std::move(operation), std::move(ids), shape);
  return Value(std::make_shared<const Value::Traced>(
      Value::Traced{this, std::make_shared<Slot>(Slot{id, shape}), {}, shape, first.options}));
}

bool Trace::is_input(const Value& value) const {
  const ValueId id = value.traced_->slot->current;
  return value.traced_->views.empty() &&
         std::find(graph_.inputs.begin(), graph_.inputs.end(), id) != graph_.inputs.end();
}

Graph Trace::finish(const std::vector<Value>& outputs) {
  if (is_finished_) {
    throw Untraceable("its forward has ended: what was traced in it is of no use afterwards");
  }
  for (const Value& output : outputs) {
    if (output.trace() != this) {
      throw Untraceable("its forward gives a tensor that does not come from its input");
    }
    graph_.outputs.push_back(read(output));
  }
  is_finished_ = true;
  return std::move(graph_);
}

std::string Trace::path() const {
  const auto found = paths_.find(module_);
  return found == paths_.end() ? std::string() : found->second;
}

// The value as it is now; its views become nodes where they are read, once.
ValueId Trace::read(const Value& value) {
  const Value::Traced& traced = *value.traced_;
  ValueId id = traced.slot->current;
  for (const auto& [flatten, name, owner] : traced.views) {
    const auto same = std::find_if(graph_.nodes.begin(), graph_.nodes.end(), [&](const Node& node) {
      const auto* other = std::get_if<Flatten>(&node.operation);
      return other != nullptr && node.inputs.front() == id && other->start == flatten.start &&
             other->end == flatten.end;
    });
    if (same != graph_.nodes.end()) {
      id = same->output;
    } else {
      graph_.shapes.push_back(output_shape(flatten, {at::IntArrayRef(graph_.shape(id))}));
      const auto flat = static_cast<ValueId>(graph_.shapes.size() - 1);
      graph_.nodes.push_back({flatten, name, owner, {id}, flat});
      id = flat;
    }
  }
  return id;
}

ValueId Trace::add(Operation operation, std::vector<ValueId> inputs, Shape shape) {
  graph_.shapes.push_back(std::move(shape));
  const auto id = static_cast<ValueId>(graph_.shapes.size() - 1);
  graph_.nodes.push_back({std::move(operation), path(), owner_, std::move(inputs), id});
  return id;
}

}  // namespace senet::graph
