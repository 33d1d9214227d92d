#include "optim/optimizer.h"

#include "core/error.h"
#include "core/names.h"

#include <ATen/MemoryOverlap.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_amp_foreach_non_finite_check_and_unscale.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_lerp.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_foreach_sub.h>
#include <ATen/ops/_foreach_zero.h>
#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/_fused_sgd.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/promote_types.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <unordered_set>

namespace senet::optim {
namespace {

// As clip_grad.py: keeps a gradient of zeros from a division by zero.
constexpr double kNormEpsilon = 1e-6;

// Whether element i of one lies where element i of the other does. The stride of a dimension of size 1 means
// nothing.
bool same_memory_order(const at::Tensor& left, const at::Tensor& right) {
  if (!left.is_cpu()) {
    return left.strides() == right.strides();
  }
  for (int64_t i = 0; i < left.dim(); ++i) {
    if (left.size(i) != 1 && left.stride(i) != right.stride(i)) {
      return false;
    }
  }
  return true;
}

// What a fused operator may update in the place of `parameter`: it walks through memory from beginning to
// end, so there must be no gaps in it. Itself, or a copy.
at::Tensor without_gaps(const at::Tensor& parameter) {
  return parameter.is_non_overlapping_and_dense() ? parameter : parameter.clone(at::MemoryFormat::Contiguous);
}

// `tensor` with the dtype, device and memory order of `like`, which has no gaps: itself, or a copy.
at::Tensor aligned(const at::Tensor& tensor, const at::Tensor& like) {
  if (tensor.scalar_type() == like.scalar_type() && tensor.device() == like.device() &&
      same_memory_order(tensor, like)) {
    return tensor.resolve_neg();
  }
  return at::empty_like(like).copy_(tensor);
}

// Waits for a device only where the CPU is to read what it computes: without waiting, it would read too
// early.
at::Tensor copy_to(at::Device device, const at::Tensor& tensor) {
  return tensor.to(device, /*non_blocking=*/!device.is_cpu());
}

void check_parameter(const at::Tensor& parameter) {
  if (!at::isFloatingType(parameter.scalar_type()) || parameter.layout() != at::kStrided) {
    throw Error("ERR_SENET_DTYPE", std::string("an optimiser updates dense floating tensors, got one of ") +
                                       dtype_name(parameter.scalar_type()));
  }
}

void check_gradient(const at::Tensor& parameter, const at::Tensor& gradient) {
  if (gradient.layout() != at::kStrided) {
    throw Error("ERR_SENET_AUTOGRAD", "a gradient is not a dense tensor");
  }
  if (gradient.sizes() != parameter.sizes() || gradient.scalar_type() != parameter.scalar_type() ||
      gradient.device() != parameter.device()) {
    throw Error("ERR_SENET_AUTOGRAD",
                "a gradient does not fit its parameter: expected " + shape_text(parameter.sizes()) + " of " +
                    dtype_name(parameter.scalar_type()) + " on " + device_name(parameter.device()) +
                    ", got " + shape_text(gradient.sizes()) + " of " + dtype_name(gradient.scalar_type()) +
                    " on " + device_name(gradient.device()));
  }
}

// An expanded tensor has fewer numbers than elements. LibTorch refuses to change one, but not before others
// have changed.
void check_writable(const at::Tensor& tensor, const char* what) {
  if (at::has_internal_overlap(tensor) == at::MemOverlap::Yes) {
    throw Error("ERR_SENET_AUTOGRAD", std::string(what) + " of the shape " + shape_text(tensor.sizes()) +
                                          " is expanded: several of its elements are one number in memory, "
                                          "so it cannot be changed in place; use clone()");
  }
}

// What the multi-tensor operators take together.
using Kind = std::tuple<c10::DeviceType, c10::DeviceIndex, at::ScalarType>;

Kind kind_of(const at::Tensor& tensor) {
  return {tensor.device().type(), tensor.device().index(), tensor.scalar_type()};
}

// The gradients that the parameters have, in their order; each may be written to.
std::vector<at::Tensor> gradients_of(const std::vector<at::Tensor>& parameters) {
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& parameter : parameters) {
    const at::Tensor gradient = parameter.grad();
    if (!gradient.defined()) {
      continue;
    }
    check_parameter(parameter);
    check_gradient(parameter, gradient);
    check_writable(gradient, "a gradient");
    gradients.push_back(gradient);
  }
  return gradients;
}

std::map<Kind, std::vector<at::Tensor>> by_kind(const std::vector<at::Tensor>& tensors) {
  std::map<Kind, std::vector<at::Tensor>> batches;
  for (const at::Tensor& tensor : tensors) {
    batches[kind_of(tensor)].push_back(tensor);
  }
  return batches;
}

// In place. mul_ of a number rounds that to the tensor's dtype first, which Python's does not.
const at::Tensor& multiply_in_place(const at::Tensor& tensor, double factor) {
  return tensor.copy_(tensor.mul(factor));
}

}  // namespace

std::vector<std::pair<const char*, at::Tensor*>> ParameterState::fields() {
  return {{"step", &step},
          {"exp_avg", &exp_avg},
          {"exp_avg_sq", &exp_avg_sq},
          {"max_exp_avg_sq", &max_exp_avg_sq},
          {"square_avg", &square_avg},
          {"momentum_buffer", &momentum_buffer},
          {"grad_avg", &grad_avg},
          {"sum", &sum}};
}

// Tensors of one device and dtype, position by position, for one call of a fused operator: those of a
// position have one memory order, without gaps.
struct Optimizer::Batch {
  std::vector<at::Tensor> parameters;
  std::vector<at::Tensor> gradients;
  std::vector<at::Tensor> momentum_buffers;
  std::vector<at::Tensor> exp_avgs;
  std::vector<at::Tensor> exp_avg_sqs;
  std::vector<at::Tensor> max_exp_avg_sqs;
  std::vector<at::Tensor> square_avgs;
  std::vector<at::Tensor> grad_avgs;
  std::vector<at::Tensor> sums;
  std::vector<at::Tensor> steps;
  bool starts_momentum = false;  // of SGD: its buffers hold nothing yet
};

ParameterState* Optimizer::state_of(const at::Tensor& parameter) {
  const auto found = states_.find(parameter.unsafeGetTensorImpl());
  return found == states_.end() ? nullptr : &found->second.state;
}

void Optimizer::set_state(const at::Tensor& parameter, ParameterState state) {
  const at::NoGradGuard no_grad;
  for (auto& [name, field] : state.fields()) {
    if (!field->defined()) {
      continue;
    }
    const bool is_step = field == &state.step;
    const bool fits = is_step ? field->numel() == 1 : field->sizes() == parameter.sizes();
    if (!fits || field->layout() != at::kStrided) {
      throw Error("ERR_SENET_STATE_DICT", std::string("'") + name + "' of a parameter of the shape " +
                                              shape_text(parameter.sizes()) + " has the shape " +
                                              shape_text(field->sizes()));
    }
    // A copy: the file's tensor stays its owner's.
    *field = is_step ? field->detach().to(parameter.options().dtype(at::kFloat), false, true).reshape({})
                     : at::empty_like(parameter).copy_(*field);
  }
  states_[parameter.unsafeGetTensorImpl()] = {parameter, std::move(state)};
}

// With everything that the step reads, in the memory order of `updated`. An empty momentum buffer is left to
// the caller.
ParameterState& Optimizer::state_for_step(const at::Tensor& parameter, const at::Tensor& updated,
                                          const OptimizerOptions& options) {
  Entry& entry = states_[parameter.unsafeGetTensorImpl()];
  entry.parameter = parameter;
  ParameterState& state = entry.state;
  const auto ready = [&](at::Tensor& field) {
    field = field.defined() ? aligned(field, updated) : at::zeros_like(updated);
  };
  if (kind_ == OptimizerKind::kSgd) {
    if (state.momentum_buffer.defined()) {
      ready(state.momentum_buffer);
    }
    return state;
  }
  // PyTorch keeps those of RMSprop and Adagrad on the CPU.
  const bool is_adam = kind_ == OptimizerKind::kAdam;
  const auto counter = (is_adam ? parameter.options() : at::TensorOptions(at::kCPU)).dtype(at::kFloat);
  state.step = state.step.defined() ? state.step.to(counter) : at::zeros({}, counter);
  if (kind_ == OptimizerKind::kRmsprop) {
    ready(state.square_avg);
    if (options.momentum > 0) {
      ready(state.momentum_buffer);
    }
    if (options.centered) {
      ready(state.grad_avg);
    }
    return state;
  }
  if (kind_ == OptimizerKind::kAdagrad) {
    state.sum = state.sum.defined() ? aligned(state.sum, updated)
                                    : at::full_like(updated, options.initial_accumulator_value);
    return state;
  }
  ready(state.exp_avg);
  ready(state.exp_avg_sq);
  if (options.amsgrad) {
    ready(state.max_exp_avg_sq);
  }
  return state;
}

void Optimizer::add(Batch& batch, const at::Tensor& parameter, const at::Tensor& updated,
                    const OptimizerOptions& options) {
  ParameterState& state = state_for_step(parameter, updated, options);
  batch.parameters.push_back(updated);
  batch.gradients.push_back(aligned(parameter.grad(), updated));
  if (kind_ == OptimizerKind::kSgd) {
    if (options.momentum != 0) {
      if (!state.momentum_buffer.defined()) {
        state.momentum_buffer = at::empty_like(updated);
      }
      batch.momentum_buffers.push_back(state.momentum_buffer);
    }
    return;
  }
  batch.steps.push_back(state.step);
  if (kind_ == OptimizerKind::kRmsprop) {
    batch.square_avgs.push_back(state.square_avg);
    batch.momentum_buffers.push_back(state.momentum_buffer);
    batch.grad_avgs.push_back(state.grad_avg);
    return;
  }
  if (kind_ == OptimizerKind::kAdagrad) {
    batch.sums.push_back(state.sum);
    return;
  }
  batch.exp_avgs.push_back(state.exp_avg);
  batch.exp_avg_sqs.push_back(state.exp_avg_sq);
  if (options.amsgrad) {
    batch.max_exp_avg_sqs.push_back(state.max_exp_avg_sq);
  }
}

// The gradient downwards, with the weights' own.
at::Tensor Optimizer::decayed(const Batch& batch, size_t index, const OptimizerOptions& options) {
  const at::Tensor gradient = options.maximize ? batch.gradients[index].neg() : batch.gradients[index];
  return options.weight_decay == 0 ? gradient : gradient.add(batch.parameters[index], options.weight_decay);
}

// As torch/optim/sgd.py, _single_tensor_sgd.
void Optimizer::run_sgd_by_parts(const Batch& batch, const OptimizerOptions& options) {
  for (size_t i = 0; i < batch.parameters.size(); ++i) {
    const at::Tensor& parameter = batch.parameters[i];
    at::Tensor gradient = decayed(batch, i, options);
    if (options.momentum != 0) {
      const at::Tensor& buffer = batch.momentum_buffers[i];
      if (batch.starts_momentum) {
        buffer.copy_(gradient);
      } else {
        multiply_in_place(buffer, options.momentum).add_(gradient, 1 - options.dampening);
      }
      gradient = options.nesterov ? gradient.add(buffer, options.momentum) : buffer;
    }
    parameter.add_(gradient, -options.lr);
  }
}

// As torch/optim/rmsprop.py, _single_tensor_rmsprop.
void Optimizer::run_rmsprop(const Batch& batch, const OptimizerOptions& options) {
  for (size_t i = 0; i < batch.parameters.size(); ++i) {
    const at::Tensor& parameter = batch.parameters[i];
    const at::Tensor gradient = decayed(batch, i, options);
    const at::Tensor& square_avg = batch.square_avgs[i];
    batch.steps[i].add_(1);
    multiply_in_place(square_avg, options.alpha).addcmul_(gradient, gradient, 1 - options.alpha);
    at::Tensor average;
    if (options.centered) {
      const at::Tensor& grad_avg = batch.grad_avgs[i];
      grad_avg.lerp_(gradient, 1 - options.alpha);
      average = square_avg.addcmul(grad_avg, grad_avg, -1).sqrt_();
    } else {
      average = square_avg.sqrt();
    }
    average.add_(options.eps);
    if (options.momentum > 0) {
      const at::Tensor& buffer = batch.momentum_buffers[i];
      multiply_in_place(buffer, options.momentum).addcdiv_(gradient, average);
      parameter.add_(buffer, -options.lr);
    } else {
      parameter.addcdiv_(gradient, average, -options.lr);
    }
  }
}

// As torch/optim/adagrad.py, _single_tensor_adagrad.
void Optimizer::run_adagrad(const Batch& batch, const OptimizerOptions& options) {
  for (size_t i = 0; i < batch.parameters.size(); ++i) {
    const at::Tensor gradient = decayed(batch, i, options);
    const double done = batch.steps[i].item<float>();
    batch.steps[i].add_(1);
    batch.sums[i].addcmul_(gradient, gradient, 1);
    const at::Tensor spread = batch.sums[i].sqrt().add_(options.eps);
    batch.parameters[i].addcdiv_(gradient, spread, -options.lr / (1 + done * options.lr_decay));
  }
}

void Optimizer::run(Batch& batch, const OptimizerOptions& options, const at::Tensor& found_inf) const {
  const at::Device device = batch.parameters.front().device();
  const std::optional<at::Tensor> found =
      found_inf.defined() ? std::optional(copy_to(device, found_inf)) : std::nullopt;
  if (kind_ == OptimizerKind::kSgd) {
    if (found && batch.starts_momentum) {
      // A first step that does not happen must leave no memory that nobody wrote. Without dampening, which
      // step() sees to, a first step is one whose buffers were 0.
      at::_foreach_zero_(batch.momentum_buffers);
      batch.starts_momentum = false;
    }
    if (found && device.is_cpu() && found->item<float>() == 1) {
      return;
    }
    // LibTorch 2.13's fused operator forgets to write 16-bit parameters on a CPU, but for the last few of
    // each.
    const at::Tensor& first = batch.parameters.front();
    if (first.is_cpu() && at::isReducedFloatingType(first.scalar_type())) {
      run_sgd_by_parts(batch, options);
      return;
    }
    at::_fused_sgd_(batch.parameters, batch.gradients, batch.momentum_buffers, options.weight_decay,
                    options.momentum, options.lr, options.dampening, options.nesterov, options.maximize,
                    batch.starts_momentum, std::optional<at::Tensor>(), found);
    return;
  }
  if (kind_ == OptimizerKind::kRmsprop) {
    run_rmsprop(batch, options);
    return;
  }
  if (kind_ == OptimizerKind::kAdagrad) {
    run_adagrad(batch, options);
    return;
  }
  at::_foreach_add_(batch.steps, 1);
  const auto fused = [&](auto operation) {
    operation(batch.parameters, batch.gradients, batch.exp_avgs, batch.exp_avg_sqs, batch.max_exp_avg_sqs,
              batch.steps, options.lr, options.beta1, options.beta2, options.weight_decay, options.eps,
              options.amsgrad, options.maximize, std::optional<at::Tensor>(), found);
  };
  if (!options.decoupled_weight_decay) {
    fused([](auto&&... arguments) { at::_fused_adam_(arguments...); });
  } else {
    fused([](auto&&... arguments) { at::_fused_adamw_(arguments...); });
  }
  if (found) {
    at::_foreach_sub_(batch.steps, std::vector<at::Tensor>(batch.steps.size(), *found));
  }
}

void Optimizer::step(const std::vector<ParameterGroup>& groups, const at::Tensor& found_inf) {
  const at::NoGradGuard no_grad;
  std::unordered_set<const at::TensorImpl*> seen;
  for (const ParameterGroup& group : groups) {
    for (const at::Tensor& parameter : group.parameters) {
      if (!seen.insert(parameter.unsafeGetTensorImpl()).second) {
        throw Error("ERR_SENET_ARG_RANGE", "a parameter appears twice among the groups of an optimiser");
      }
      check_parameter(parameter);
      if (parameter.grad().defined()) {
        check_gradient(parameter, parameter.grad());
        check_writable(parameter, "a parameter");
        // LibTorch's operators refuse it, when half of the step is done.
        if (parameter.scalar_type() != at::kDouble && std::isfinite(group.options.lr) &&
            std::abs(group.options.lr) > std::numeric_limits<float>::max()) {
          throw Error("ERR_SENET_ARG_RANGE",
                      "lr: expected a number that float32 can hold, got " + std::to_string(group.options.lr));
        }
      }
    }
  }
  const bool is_known = found_inf.defined() && (found_inf.is_cpu() || must_know(groups));
  if (is_known && found_inf.item<float>() == 1) {
    return;
  }
  for (const ParameterGroup& group : groups) {
    step(group, is_known ? at::Tensor() : found_inf);
  }
}

// Whether a step has to know if it happens: SGD's first one with dampening is another than a later one, and
// those that are no fused operator cannot be told by a device.
bool Optimizer::must_know(const std::vector<ParameterGroup>& groups) {
  if (kind_ == OptimizerKind::kRmsprop || kind_ == OptimizerKind::kAdagrad) {
    return true;
  }
  return kind_ == OptimizerKind::kSgd &&
         std::any_of(groups.begin(), groups.end(), [&](const ParameterGroup& group) {
           const auto starts = [&](const at::Tensor& parameter) {
             const ParameterState* const state = state_of(parameter);
             return parameter.grad().defined() && (state == nullptr || !state->momentum_buffer.defined());
           };
           return group.options.momentum != 0 && group.options.dampening != 0 &&
                  std::any_of(group.parameters.begin(), group.parameters.end(), starts);
         });
}

// Parameters that are views of one memory are updated in their order, as in PyTorch: so one that has to be
// copied first goes by itself, when those before it are done.
void Optimizer::step(const ParameterGroup& group, const at::Tensor& found_inf) {
  std::map<Kind, Batch> batches;
  bool starts_momentum = false;  // of what is in `batches`
  const auto flush = [&] {
    for (auto& [key, batch] : batches) {
      batch.starts_momentum = starts_momentum;
      run(batch, group.options, found_inf);
      // The fused operators do not count as changes in place; backward through an older graph would compute
      // with the new values.
      for (const at::Tensor& updated : batch.parameters) {
        updated.unsafeGetTensorImpl()->bump_version();
      }
    }
    batches.clear();
  };
  for (const at::Tensor& parameter : group.parameters) {
    if (!parameter.grad().defined()) {
      continue;
    }
    const ParameterState* state = state_of(parameter);
    const bool starts = kind_ == OptimizerKind::kSgd && group.options.momentum != 0 &&
                        (state == nullptr || !state->momentum_buffer.defined());
    const bool alone =
        !parameter.is_non_overlapping_and_dense() || !same_memory_order(parameter.grad(), parameter);
    if (alone || starts != starts_momentum) {
      flush();
    }
    starts_momentum = starts;
    const at::Tensor updated = without_gaps(parameter);
    add(batches[kind_of(parameter)], parameter, updated, group.options);
    if (alone) {
      flush();
      if (!updated.is_same(parameter)) {
        parameter.copy_(updated);
      }
    }
  }
  flush();
}

at::Tensor clip_gradients(const std::vector<at::Tensor>& parameters, double max_norm, double norm_type,
                          bool error_if_nonfinite) {
  const at::NoGradGuard no_grad;
  const std::vector<at::Tensor> gradients = gradients_of(parameters);
  if (gradients.empty()) {
    return at::zeros({}, at::kFloat);
  }
  const at::Device first_device = gradients.front().device();
  auto batches = by_kind(gradients);
  std::vector<at::Tensor> norms;
  for (const auto& [kind, batch] : batches) {
    for (const at::Tensor& norm : at::_foreach_norm(batch, norm_type)) {
      norms.push_back(norm.to(first_device));
    }
  }
  // Groups of several dtypes meet in the widest.
  at::ScalarType widest = norms.front().scalar_type();
  for (const at::Tensor& norm : norms) {
    widest = at::promote_types(widest, norm.scalar_type());
  }
  for (at::Tensor& norm : norms) {
    norm = norm.to(widest);
  }
  const at::Tensor total = at::linalg_vector_norm(at::stack(norms), norm_type);
  if (error_if_nonfinite && !std::isfinite(total.item<double>())) {
    throw Error("ERR_SENET_AUTOGRAD", "the norm of the gradients is " + std::to_string(total.item<double>()) +
                                          ", so they cannot be clipped (errorIfNonfinite: false scales them "
                                          "by it all the same)");
  }
  const at::Tensor scale = at::clamp(max_norm / (total + kNormEpsilon), std::nullopt, 1.0);
  for (auto& [kind, batch] : batches) {
    at::_foreach_mul_(batch, scale.to(batch.front().device()));
  }
  return total;
}

at::Tensor unscale_gradients(const std::vector<at::Tensor>& parameters, const at::Tensor& scale) {
  const at::NoGradGuard no_grad;
  const std::vector<at::Tensor> gradients = gradients_of(parameters);
  for (const at::Tensor& gradient : gradients) {
    if (gradient.scalar_type() == at::kHalf) {
      throw Error(
          "ERR_SENET_DTYPE",
          "a gradient is float16: its scale cannot be taken back without losing what the scale saved; "
          "keep the parameters in float32 and compute in float16 under autocast");
    }
  }
  const at::Tensor inverse = scale.to(at::kDouble).reciprocal().to(at::kFloat);
  at::Tensor found = at::zeros({}, scale.options());
  for (auto& [kind, batch] : by_kind(gradients)) {
    const at::Device device = batch.front().device();
    at::Tensor here = device == scale.device() ? found : at::zeros({}, scale.options().device(device));
    at::_amp_foreach_non_finite_check_and_unscale_(batch, here, copy_to(device, inverse));
    if (!here.is_same(found)) {
      found = at::maximum(found, here.to(scale.device()));
    }
  }
  return found;
}

void average_into(const std::vector<at::Tensor>& averages, const std::vector<at::Tensor>& values,
                  double weight) {
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < averages.size(); ++i) {
    if (averages[i].sizes() != values[i].sizes() || averages[i].scalar_type() != values[i].scalar_type() ||
        averages[i].device() != values[i].device()) {
      throw Error("ERR_SENET_SHAPE",
                  "the module's tensors changed in shape, dtype or device since the average began");
    }
  }
  std::map<Kind, std::pair<std::vector<at::Tensor>, std::vector<at::Tensor>>> batches;
  for (size_t i = 0; i < averages.size(); ++i) {
    if (!averages[i].is_floating_point() || weight == 1) {
      averages[i].copy_(values[i]);
      continue;
    }
    auto& batch = batches[kind_of(averages[i])];
    batch.first.push_back(averages[i]);
    batch.second.push_back(values[i]);
  }
  for (auto& [key, batch] : batches) {
    at::_foreach_lerp_(batch.first, batch.second, weight);
  }
}

}  // namespace senet::optim
