// The base of every layer, block and model: LibTorch's module tree, plus one forward signature, input checks,
// children that can be replaced, and a training mode that a job captures when it is submitted. Knows no file,
// no thread pool and no Node.
#pragma once

#include "graph/value.h"

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <type_traits>
#include <unordered_set>
#include <utility>
#include <vector>

namespace senet::nn {

using graph::Size2;
using graph::Value;

/// What a forward gives; aux_logits is undefined unless SE-Inception-v3 trains with its auxiliary head.
struct Output {
  Value logits;
  Value aux_logits;
};

/// The modules of a tree that are in training mode, captured when a job is submitted.
using TrainingSet = std::unordered_set<const torch::nn::Module*>;

/// While alive, the forwards of this thread take their mode from `set` (which must outlive it) instead of
/// each module's flag.
class TrainingScope {
 public:
  explicit TrainingScope(const TrainingSet& set);
  ~TrainingScope();
  TrainingScope(const TrainingScope&) = delete;
  TrainingScope& operator=(const TrainingScope&) = delete;

  /// False where this thread's scope has no module in training mode.
  static bool may_train();

 private:
  const TrainingSet* previous_;
};

/// While alive, modules constructed on this thread skip every random draw: their weights are zeros whose
/// memory is not touched, and BatchNorm's are 1 and 0.
class SkipInitScope {
 public:
  SkipInitScope();
  ~SkipInitScope();
  SkipInitScope(const SkipInitScope&) = delete;
  SkipInitScope& operator=(const SkipInitScope&) = delete;

  static bool active();

 private:
  bool previous_;
};

class Module;

/// One call of a module's forward.
struct ModuleCall {
  const Module* module;
  std::vector<int64_t> input;   // shape
  std::vector<int64_t> output;  // of the logits, where there are two outputs
};

/// What is noted of a forward, and what parts of it give in place of what they compute.
struct Recording {
  std::vector<ModuleCall> calls;  // a child's before its parent's
  /// Of the modules that are keys: what the last call of each gave, as it was before anything changed it in
  /// place. Where gradients are recorded it has a graph, though no parameter in front of it may want one.
  std::unordered_map<const Module*, at::Tensor> outputs;
  /// What modules give instead, as many elements as they give; a NaN leaves what was computed.
  std::unordered_map<const Module*, at::Tensor> replacements;

  /// What the forward goes on with where `module` gave `output`. Throws ERR_SENET_SHAPE.
  at::Tensor pass(const Module& module, at::Tensor output);
};

/// While alive, every forward that this thread finishes is noted in `recording`.
class RecordingScope {
 public:
  explicit RecordingScope(Recording& recording);
  ~RecordingScope();
  RecordingScope(const RecordingScope&) = delete;
  RecordingScope& operator=(const RecordingScope&) = delete;

  static bool active();

 private:
  Recording* previous_;
};

/// How wide a module's input and output are: the channels of images, the features of vectors. 0 is any width,
/// or one that the module does not know.
struct Width {
  int64_t input = 0;
  int64_t output = 0;
  bool changes = false;  // the output's is another than the input's, though neither is known

  /// Whether what passes through stays as wide as it is.
  bool is_kept() const {
    return input == 0 && output == 0 && !changes;
  }
};

/// The images that a model was designed for.
struct InputSize {
  Size2 usual = {32, 32};
  bool is_only = false;  // others are refused
};

class Module : public torch::nn::Module {
 public:
  /// `type_name` is the name of Python's class ("Conv2d"), and what name() gives.
  explicit Module(std::string type_name);
  Module(const Module&) = delete;  // children are bound to members
  Module& operator=(const Module&) = delete;

  /// Throws what check_input() does, wherever in the tree an input does not fit.
  Value forward(const Value& input);
  Output forward_all(const Value& input);

  /// What forward does, for tensors and for traces; callers use forward, which also checks the input and
  /// records.
  virtual Value compute(const Value& input) = 0;
  virtual Output compute_all(const Value& input);

  /// Throws ERR_SENET_SHAPE, ERR_SENET_DTYPE or ERR_SENET_DEVICE for an input that forward cannot take. Reads
  /// sizes only, so that it may run on the JS thread.
  virtual void check_input(const Value& input) const;

  /// Version of the module's own entry in a state dict's `_metadata`.
  virtual int64_t version() const;

  /// Of this module alone: in the thread's TrainingScope, or by its own flag where there is none.
  bool in_training() const;

  virtual InputSize input_size() const;
  virtual Width width() const;
  /// Whether this module's input goes to `child` first, or the output of `child` is this module's own: then
  /// that width is nobody else's business.
  virtual bool begins_with(const Module& child) const;
  virtual bool ends_with(const Module& child) const;
  /// Whether a network's head may be one of this type.
  virtual bool may_be_head() const;

  /// The child of this name, or null.
  std::shared_ptr<Module> find_child(const std::string& name) const;
  /// Puts `replacement` where the child `name` is, in the same place of the order, and gives the old one.
  /// Throws ERR_SENET_ARG_RANGE if there is no such child or it cannot be replaced, ERR_SENET_ARG_TYPE unless
  /// both are of one type, or the child is a head.
  std::shared_ptr<Module> replace_child(const std::string& name, std::shared_ptr<Module> replacement);

  /// Values of one image that the head `name` is given; 0 if no head has this name.
  int64_t head_features(const std::string& name) const;

 protected:
  /// Registers `child`, puts it into `member` (of this object, where it stays), and lets replace_child()
  /// change both.
  template <class M, class Child>
  void add_child(const std::string& name, std::shared_ptr<M>& member, std::shared_ptr<Child> child) {
    member = register_module(name, std::move(child));
    members_[name] = [&member](const std::shared_ptr<Module>& replacement) {
      auto typed = std::dynamic_pointer_cast<M>(replacement);
      if (typed == nullptr) {
        return false;
      }
      member = std::move(typed);
      return true;
    };
  }

  /// As add_child(), of the layer that makes a network's classes of its features: a Linear, an Identity or a
  /// Sequential that takes N x `features` may replace it.
  void add_head(const std::string& name, std::shared_ptr<Module>& member, int64_t features,
                std::shared_ptr<Module> head) {
    add_child(name, member, std::move(head));
    head_features_[name] = features;
  }

  /// What the head `name` gives of one image: its classes, or the features where it keeps them.
  int64_t head_width(const std::string& name) const;

  /// Throws ERR_SENET_SHAPE unless `input` is N x channels x H x W with no empty dimension.
  void check_image(const Value& input, int64_t channels) const;

  /// A trace takes a tensor's shape for the module's: throws Untraceable where it was changed in place.
  static void check_traced(const Value& input, const char* name, const at::Tensor& tensor,
                           at::IntArrayRef shape);

  /// An operation of this module's forward.
  Value apply(graph::Operation operation, const std::vector<Value>& inputs) const {
    return graph::apply(std::move(operation), inputs, name());
  }

 private:
  template <class Compute>
  std::invoke_result_t<const Compute&> call(const Value& input, const Compute& compute);
  // As check_input(). What the graph's own input does not fit was chosen by who traces, and cannot be traced.
  void check_traced_input(const Value& input) const;
  const at::Tensor* first_parameter() const;

  std::map<std::string, std::function<bool(const std::shared_ptr<Module>&)>> members_;  // set a member
  std::map<std::string, int64_t> head_features_;
};

/// Throws ERR_SENET_SHAPE unless `replacement` is as wide as the child `name` of `parent`, a head's as its
/// features are. Where the child stands at the beginning or the end of the whole `root`, that width is free.
void check_width(const Module& root, const Module& parent, const std::string& name,
                 const Module& replacement);

}  // namespace senet::nn
