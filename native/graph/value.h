// What flows through a forward: a tensor, or what a trace knows of one. A forward is written once, against
// Value; given a tensor it computes, given a traced value it notes its operations in a graph.
#pragma once

#include "core/error.h"
#include "graph/graph.h"
#include "graph/operations.h"

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace senet::graph {

class Trace;

/// Thrown where a trace cannot follow: ERR_SENET_COMPILE, in the name of the innermost module.
class Untraceable : public Error {
 public:
  explicit Untraceable(const std::string& why) : Error("ERR_SENET_COMPILE", why) {}
  /// The same, saying whose forward it is, unless it says so already.
  Untraceable of(const std::string& module, const std::string& path) const;

 private:
  bool has_module_ = false;
};

class Value {
 public:
  Value() = default;
  Value(at::Tensor tensor) : tensor_(std::move(tensor)) {}  // NOLINT: a tensor is a value

  bool defined() const {
    return traced_ != nullptr || tensor_.defined();
  }
  /// Null for a tensor.
  Trace* trace() const;
  /// Throws Untraceable for what is no tensor yet: a forward that reads numbers cannot be traced.
  const at::Tensor& tensor() const;

  /// With kUnknown for what a trace does not know.
  at::IntArrayRef sizes() const;
  int64_t dim() const {
    return static_cast<int64_t>(sizes().size());
  }
  /// Of an axis, which counts from the last if it is negative.
  int64_t size(int64_t axis) const;
  bool is_empty() const;
  /// None if a trace does not know it.
  std::optional<at::TensorOptions> options() const;

 private:
  friend class Trace;
  struct Traced;
  explicit Value(std::shared_ptr<const Traced> traced) : traced_(std::move(traced)) {}

  at::Tensor tensor_;
  std::shared_ptr<const Traced> traced_;
};

/// Computes the operation, or notes it where one of the inputs is traced. `owner`, the class of the module
/// that does it, stands in errors. Throws ERR_SENET_SHAPE.
Value apply(Operation operation, const std::vector<Value>& inputs, const std::string& owner);

/// Collects what a forward does in a Graph. In-place operations are followed: whoever reads a value later, or
/// a view of it, reads what it has become.
class Trace {
 public:
  Trace() = default;
  Trace(const Trace&) = delete;
  Trace& operator=(const Trace&) = delete;

  /// Where a module stands whose forward is traced; names its nodes.
  void set_path(const void* module, std::string path) {
    paths_[module] = std::move(path);
  }

  /// An input of the graph. Without `options`, its dtype and device are anyone's.
  Value input(Shape shape, std::optional<at::TensorOptions> options = std::nullopt);
  Value record(Operation operation, const std::vector<Value>& inputs, const std::string& owner);
  /// Whether a value is an input of the graph as it came.
  bool is_input(const Value& value) const;
  Graph finish(const std::vector<Value>& outputs);

  /// While alive, nodes are named for `module`.
  class Scope {
   public:
    Scope(Trace& trace, const void* module) : trace_(trace), outer_(std::exchange(trace.module_, module)) {}
    ~Scope() {
      trace_.module_ = outer_;
    }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Trace& trace_;
    const void* outer_;
  };

  /// Of the module whose forward is running; empty for the root.
  std::string path() const;

 private:
  ValueId read(const Value& value);
  ValueId add(Operation operation, std::vector<ValueId> inputs, Shape shape);

  std::string owner_;  // of what is being recorded
  bool is_finished_ = false;

  Graph graph_;
  std::unordered_map<const void*, std::string> paths_;
  const void* module_ = nullptr;
};

}  // namespace senet::graph
