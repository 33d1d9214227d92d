// Optimisers on LibTorch's fused multi-tensor operators where it has one, gradient clipping and averaging of
// weights. Everything that the operators take on trust (sizes, memory order, dtypes, devices: `_fused_sgd_`
// reads past a gradient that is too short) is checked or put right here first. Knows no threads and no Node:
// a step is one call, by one thread at a time.
//
// Follows torch/optim/{sgd,adam,adamw,rmsprop,adagrad}.py, torch/nn/utils/clip_grad.py,
// torch/amp/grad_scaler.py and torch/optim/swa_utils.py of PyTorch 2.13.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace senet::optim {

enum class OptimizerKind { kSgd, kAdam, kRmsprop, kAdagrad };

/// Of one parameter group; an optimiser reads what its kind has.
struct OptimizerOptions {
  double lr = 0;
  double weight_decay = 0;
  bool maximize = false;
  // SGD; RMSprop its momentum
  double momentum = 0;
  double dampening = 0;
  bool nesterov = false;
  // Adam; AdamW with decoupled_weight_decay
  double beta1 = 0;
  double beta2 = 0;
  double eps = 0;  // of all but SGD
  bool amsgrad = false;
  bool decoupled_weight_decay = false;
  // RMSprop
  double alpha = 0;
  bool centered = false;
  // Adagrad
  double lr_decay = 0;
  double initial_accumulator_value = 0;
};

struct ParameterGroup {
  std::vector<at::Tensor> parameters;
  OptimizerOptions options;
};

/// What an optimiser remembers of one parameter; undefined where its kind or options do not need it.
struct ParameterState {
  at::Tensor momentum_buffer;
  at::Tensor step;  // float32, of no dimensions, as PyTorch's
  at::Tensor exp_avg;
  at::Tensor exp_avg_sq;
  at::Tensor max_exp_avg_sq;
  at::Tensor square_avg;
  at::Tensor grad_avg;
  at::Tensor sum;

  /// By Python's names and in its order.
  std::vector<std::pair<const char*, at::Tensor*>> fields();
};

class Optimizer {
 public:
  explicit Optimizer(OptimizerKind kind) : kind_(kind) {}

  /// Updates every parameter that has a gradient. Throws before any of them changed if one cannot be.
  /// `found_inf`, if it is defined (of unscale_gradients): nothing changes if it is 1. Nobody waits for a
  /// device that computes it, but at SGD's first step with dampening, and in RMSprop and Adagrad.
  void step(const std::vector<ParameterGroup>& groups, const at::Tensor& found_inf = {});

  /// Null for a parameter that has none yet.
  ParameterState* state_of(const at::Tensor& parameter);
  /// Replaces the state of a parameter; throws ERR_SENET_STATE_DICT for a tensor of another shape.
  void set_state(const at::Tensor& parameter, ParameterState state);
  void clear_state() {
    states_.clear();
  }

 private:
  struct Entry {
    at::Tensor parameter;  // keeps the address, which is the key, from being used again
    ParameterState state;
  };
  struct Batch;

  void step(const ParameterGroup& group, const at::Tensor& found_inf);
  bool must_know(const std::vector<ParameterGroup>& groups);
  ParameterState& state_for_step(const at::Tensor& parameter, const at::Tensor& updated,
                                 const OptimizerOptions& options);
  void add(Batch& batch, const at::Tensor& parameter, const at::Tensor& updated,
           const OptimizerOptions& options);
  void run(Batch& batch, const OptimizerOptions& options, const at::Tensor& found_inf) const;
  static at::Tensor decayed(const Batch& batch, size_t index, const OptimizerOptions& options);
  static void run_sgd_by_parts(const Batch& batch, const OptimizerOptions& options);
  static void run_rmsprop(const Batch& batch, const OptimizerOptions& options);
  static void run_adagrad(const Batch& batch, const OptimizerOptions& options);

  OptimizerKind kind_;
  std::unordered_map<const at::TensorImpl*, Entry> states_;
};

/// Scales the gradients so that their norm is at most `max_norm`; the norm before that, 0 if there are none.
at::Tensor clip_gradients(const std::vector<at::Tensor>& parameters, double max_norm, double norm_type,
                          bool error_if_nonfinite);

/// Divides the gradients by `scale` (float32, of no dimensions), as torch.amp.GradScaler does: by one product
/// with its reciprocal. Gives 1 if any of them is infinite or NaN, else 0: float32, of no dimensions, where
/// `scale` is. Waits for no device.
at::Tensor unscale_gradients(const std::vector<at::Tensor>& parameters, const at::Tensor& scale);

/// averages = averages + weight * (values - averages), for floating tensors; others are copied.
void average_into(const std::vector<at::Tensor>& averages, const std::vector<at::Tensor>& values,
                  double weight);

}  // namespace senet::optim
