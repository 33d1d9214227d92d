#include "nn/module.h"

#include "core/error.h"
#include "core/names.h"

#include <ATen/autocast_mode.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/isnan.h>
#include <ATen/ops/where.h>

#include <type_traits>
#include <typeinfo>
#include <utility>

namespace senet::nn {
namespace {

thread_local const TrainingSet* current_training_set = nullptr;
thread_local bool skip_init = false;
thread_local Recording* current_recording = nullptr;

// The modules from `from` down to `to`, which are the first and the last.
bool find_chain(const Module& from, const Module& to, std::vector<const Module*>& chain) {
  chain.push_back(&from);
  if (&from == &to) {
    return true;
  }
  for (const auto& child : from.children()) {
    const auto* module = dynamic_cast<const Module*>(child.get());
    if (module != nullptr && find_chain(*module, to, chain)) {
      return true;
    }
  }
  chain.pop_back();
  return false;
}

}  // namespace

TrainingScope::TrainingScope(const TrainingSet& set) : previous_(std::exchange(current_training_set, &set)) {}

TrainingScope::~TrainingScope() {
  current_training_set = previous_;
}

bool TrainingScope::may_train() {
  return current_training_set == nullptr || !current_training_set->empty();
}

SkipInitScope::SkipInitScope() : previous_(std::exchange(skip_init, true)) {}

SkipInitScope::~SkipInitScope() {
  skip_init = previous_;
}

bool SkipInitScope::active() {
  return skip_init;
}

at::Tensor Recording::pass(const Module& module, at::Tensor output) {
  const auto replacement = replacements.find(&module);
  if (replacement != replacements.end()) {
    const at::Tensor& given = replacement->second;
    if (given.numel() != output.numel()) {
      throw Error("ERR_SENET_SHAPE", module.name() + ": its output has " + std::to_string(output.numel()) +
                                         " elements, what should replace it " +
                                         std::to_string(given.numel()));
    }
    const at::Tensor instead = given.to(output.options()).reshape(output.sizes());
    output = at::where(instead.isnan(), output, instead);
  }
  const auto kept = outputs.find(&module);
  if (kept != outputs.end()) {
    if (at::GradMode::is_enabled() && !output.requires_grad()) {
      output = output.detach().requires_grad_();
    }
    kept->second = output;
    output = output.clone();  // what follows may change it in place
  }
  return output;
}

RecordingScope::RecordingScope(Recording& recording)
    : previous_(std::exchange(current_recording, &recording)) {}

RecordingScope::~RecordingScope() {
  current_recording = previous_;
}

bool RecordingScope::active() {
  return current_recording != nullptr;
}

Module::Module(std::string type_name) : torch::nn::Module(std::move(type_name)) {}

template <class Compute>
std::invoke_result_t<const Compute&> Module::call(const Value& input, const Compute& compute) {
  const auto logits_of = [](auto& output) -> Value& {
    if constexpr (std::is_same_v<std::decay_t<decltype(output)>, Output>) {
      return output.logits;
    } else {
      return output;
    }
  };
  if (graph::Trace* trace = input.trace()) {
    const graph::Trace::Scope scope(*trace, this);
    try {
      check_traced_input(input);
      return compute();
    } catch (const graph::Untraceable& failure) {
      throw failure.of(name(), trace->path());
    }
  }
  check_input(input);
  if (current_recording == nullptr) {
    return compute();
  }
  std::vector<int64_t> shape = input.sizes().vec();  // of the input as it comes
  auto output = compute();
  Value& logits = logits_of(output);
  logits = current_recording->pass(*this, logits.tensor());
  current_recording->calls.push_back({this, std::move(shape), logits.sizes().vec()});
  return output;
}

Value Module::forward(const Value& input) {
  return call(input, [&] { return compute(input); });
}

Output Module::forward_all(const Value& input) {
  return call(input, [&] { return compute_all(input); });
}

Output Module::compute_all(const Value& input) {
  return {compute(input), {}};
}

void Module::check_input(const Value& input) const {
  const at::Tensor* parameter = first_parameter();
  const std::optional<at::TensorOptions> given = input.options();
  if (parameter == nullptr || !given) {
    return;
  }
  const at::ScalarType dtype = given->dtype().toScalarType();
  // In mixed precision a layer meets what the layer before it computed in either.
  const at::DeviceType processor = parameter->device().type();
  const bool is_mixed = at::autocast::is_autocast_enabled(processor) &&
                        parameter->scalar_type() == at::kFloat &&
                        dtype == at::autocast::get_autocast_dtype(processor);
  if (dtype != parameter->scalar_type() && !is_mixed) {
    const std::string expected = dtype_name(parameter->scalar_type());
    throw Error("ERR_SENET_DTYPE", name() + ": expected an input of " + expected +
                                       ", as the module's parameters are, got " + dtype_name(dtype));
  }
  if (given->device() != parameter->device()) {
    throw Error("ERR_SENET_DEVICE", name() + ": expected an input on " + device_name(parameter->device()) +
                                        ", where the module's parameters are, got one on " +
                                        device_name(given->device()));
  }
}

int64_t Module::version() const {
  return 1;
}

bool Module::in_training() const {
  return current_training_set != nullptr ? current_training_set->count(this) != 0 : is_training();
}

InputSize Module::input_size() const {
  return {};
}

Width Module::width() const {
  return {};
}

bool Module::begins_with(const Module&) const {
  return false;
}

bool Module::ends_with(const Module&) const {
  return false;
}

bool Module::may_be_head() const {
  return false;
}

std::shared_ptr<Module> Module::find_child(const std::string& name) const {
  const auto children = named_children();
  const auto* child = children.find(name);
  return child == nullptr ? nullptr : std::dynamic_pointer_cast<Module>(*child);
}

std::shared_ptr<Module> Module::replace_child(const std::string& name, std::shared_ptr<Module> replacement) {
  std::shared_ptr<Module> old = find_child(name);
  const auto member = members_.find(name);
  if (old == nullptr) {
    throw Error("ERR_SENET_ARG_RANGE", this->name() + " has no child '" + name + "'");
  }
  if (member == members_.end()) {
    throw Error("ERR_SENET_ARG_RANGE",
                "'" + name + "' is a fixed part of " + this->name() + " and cannot be replaced");
  }
  const Module& given = *replacement;
  const Module& kept = *old;
  const bool is_head = head_features(name) != 0;
  const bool fits = is_head ? given.may_be_head() : typeid(given) == typeid(kept);
  if (!fits || !member->second(replacement)) {
    const std::string expected =
        is_head ? "an Identity, a Sequential or a Linear" : "a module of its own type, " + old->name();
    throw Error("ERR_SENET_ARG_TYPE",
                "'" + name + "' of " + this->name() + " takes " + expected + ", got " + replacement->name());
  }
  replace_module(name, std::move(replacement));
  return old;
}

int64_t Module::head_features(const std::string& name) const {
  const auto found = head_features_.find(name);
  return found == head_features_.end() ? 0 : found->second;
}

int64_t Module::head_width(const std::string& name) const {
  const Width width = find_child(name)->width();
  return width.is_kept() ? head_features(name) : width.output;
}

void check_width(const Module& root, const Module& parent, const std::string& name,
                 const Module& replacement) {
  const std::shared_ptr<Module> old = parent.find_child(name);
  std::vector<const Module*> chain;
  const Module& given = replacement;
  const int64_t features = parent.head_features(name);
  const bool fits = old != nullptr && (features == 0 ? typeid(*old) == typeid(given) : given.may_be_head());
  if (!fits || !find_chain(root, *old, chain)) {
    return;  // replace_child says what is wrong
  }
  bool at_begin = true;
  bool at_end = true;
  for (size_t i = 0; i + 1 < chain.size(); ++i) {
    at_begin = at_begin && chain[i]->begins_with(*chain[i + 1]);
    at_end = at_end && chain[i]->ends_with(*chain[i + 1]);
  }
  const Width before = features == 0 ? old->width() : Width{features, old->width().output};
  const Width now = replacement.width();
  const auto check = [&](int64_t expected, int64_t actual, const char* verb) {
    if (expected != 0 && actual != 0 && expected != actual) {
      throw Error("ERR_SENET_SHAPE", "'" + name + "' of " + parent.name() + " " + verb + " " +
                                         std::to_string(expected) + " channels or features; the " +
                                         replacement.name() + " that should replace it " + verb + " " +
                                         std::to_string(actual));
    }
  };
  if (!at_begin) {
    check(before.input, now.input, "takes");
  }
  if (!at_end) {
    check(before.output, now.output, "gives");
  }
}

void Module::check_image(const Value& input, int64_t channels) const {
  graph::check_image(input.sizes(), channels, name());
}

void Module::check_traced_input(const Value& input) const {
  try {
    check_input(input);
  } catch (const Error& error) {
    if (std::string(error.code()) != "ERR_SENET_SHAPE" || !input.trace()->is_input(input)) {
      throw;
    }
    throw graph::Untraceable(std::string("it does not take the images of its model: ") + error.what());
  }
}

void Module::check_traced(const Value& input, const char* name, const at::Tensor& tensor,
                          at::IntArrayRef shape) {
  if (input.trace() != nullptr && tensor.defined() && tensor.sizes() != shape) {
    throw graph::Untraceable("the " + std::string(name) + " of '" + input.trace()->path() +
                             "' has another shape than its module");
  }
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
