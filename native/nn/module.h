// The base of every layer, block and model: LibTorch's module tree, plus one forward signature, input checks,
// and a training mode that a job captures when it is submitted. Knows no file, no thread pool and no Node.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <string>
#include <unordered_set>

namespace senet::nn {

/// What a forward gives; aux_logits is undefined unless SE-Inception-v3 trains with its auxiliary head.
struct Output {
  at::Tensor logits;
  at::Tensor aux_logits;
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

class Module : public torch::nn::Module {
 public:
  /// `type_name` is the name of Python's class ("Conv2d"), and what name() gives.
  explicit Module(std::string type_name);

  virtual at::Tensor forward(const at::Tensor& input) = 0;
  virtual Output forward_all(const at::Tensor& input);

  /// Throws ERR_SENET_SHAPE, ERR_SENET_DTYPE or ERR_SENET_DEVICE for an input that forward cannot take. Reads
  /// sizes only, so that it may run on the JS thread.
  virtual void check_input(const at::Tensor& input) const;

  /// Version of the module's own entry in a state dict's `_metadata`.
  virtual int64_t version() const;

  bool in_training() const;

 protected:
  /// Throws ERR_SENET_SHAPE unless `input` is N x channels x H x W with no empty dimension.
  void check_image(const at::Tensor& input, int64_t channels) const;
  /// As above, with any number of channels.
  void check_image(const at::Tensor& input) const;

 private:
  const at::Tensor* first_parameter() const;
};

}  // namespace senet::nn
