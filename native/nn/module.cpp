#include "nn/module.h"

#include "core/error.h"
#include "core/names.h"

#include <utility>

namespace senet::nn {
namespace {

thread_local const TrainingSet* current_training_set = nullptr;
thread_local bool skip_init = false;

}  // namespace

TrainingScope::TrainingScope(const TrainingSet& set) : previous_(std::exchange(current_training_set, &set)) {}

TrainingScope::~TrainingScope() {
  current_training_set = previous_;
}

SkipInitScope::SkipInitScope() : previous_(std::exchange(skip_init, true)) {}

SkipInitScope::~SkipInitScope() {
  skip_init = previous_;
}

bool SkipInitScope::active() {
  return skip_init;
}

Module::Module(std::string type_name) : torch::nn::Module(std::move(type_name)) {}

Output Module::forward_all(const at::Tensor& input) {
  return {forward(input), {}};
}

void Module::check_input(const at::Tensor& input) const {
  const at::Tensor* parameter = first_parameter();
  if (parameter == nullptr) {
    return;
  }
  if (input.scalar_type() != parameter->scalar_type()) {
    const std::string expected = dtype_name(parameter->scalar_type());
    throw Error("ERR_SENET_DTYPE", name() + ": expected an input of " + expected +
                                       ", as the module's parameters are, got " +
                                       dtype_name(input.scalar_type()));
  }
  if (input.device() != parameter->device()) {
    throw Error("ERR_SENET_DEVICE", name() + ": expected an input on " + device_name(parameter->device()) +
                                        ", where the module's parameters are, got one on " +
                                        device_name(input.device()));
  }
}

int64_t Module::version() const {
  return 1;
}

bool Module::in_training() const {
  return current_training_set != nullptr ? current_training_set->count(this) != 0 : is_training();
}

void Module::check_image(const at::Tensor& input, int64_t channels) const {
  if (input.dim() == 4 && input.size(1) == channels && input.numel() > 0) {
    return;
  }
  throw Error("ERR_SENET_SHAPE", name() + ": expected an input of the shape [N, " + std::to_string(channels) +
                                     ", H, W] with N, H and W at least 1, got " + shape_text(input.sizes()));
}

void Module::check_image(const at::Tensor& input) const {
  if (input.dim() == 4 && input.numel() > 0) {
    return;
  }
  throw Error("ERR_SENET_SHAPE", name() +
                                     ": expected an input of the shape [N, C, H, W], all at least 1, got " +
                                     shape_text(input.sizes()));
}

const at::Tensor* Module::first_parameter() const {
  if (!parameters_.is_empty()) {
    return &parameters_.front().value();
  }
  for (const auto& child : children()) {
    const auto* module = dynamic_cast<const Module*>(child.get());
    const at::Tensor* parameter = module != nullptr ? module->first_parameter() : nullptr;
    if (parameter != nullptr) {
      return parameter;
    }
  }
  return nullptr;
}

}  // namespace senet::nn
