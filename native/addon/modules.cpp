#include "addon/modules.h"

#include "addon/convert.h"
#include "addon/wrap.h"
#include "core/error.h"
#include "core/names.h"
#include "models/registry.h"
#include "nn/module.h"

#include <ATen/core/grad_mode.h>

#include <atomic>
#include <optional>

namespace senet::addon {
namespace {

// A module with all its descendants. Handles of one tree share it, so that "a job is running" and "disposed"
// are facts of the whole tree.
struct Tree {
  std::shared_ptr<nn::Module> root;  // null once disposed
  std::shared_ptr<const nn::TrainingSet>
      training;  // replaced, never changed: queued jobs hold the one of their call
  std::atomic<int> jobs{0};
};

// Counts a job as using the tree for as long as the job's work exists.
class TreeUse {
 public:
  explicit TreeUse(std::shared_ptr<Tree> tree) : tree_(std::move(tree)), root_(tree_->root) {
    ++tree_->jobs;
  }
  TreeUse(const TreeUse&) = delete;
  TreeUse& operator=(const TreeUse&) = delete;
  ~TreeUse() {
    root_.reset();  // before the count: who sees 0 may rely on the job's references being gone
    --tree_->jobs;
  }

 private:
  std::shared_ptr<Tree> tree_;
  std::shared_ptr<nn::Module> root_;
};

struct ModuleBox {
  static constexpr napi_type_tag kTag{0x1d7b5f60c3e94a28, 0xa6480e92d15b7c3f};
  std::shared_ptr<Tree> tree;
  nn::Module* module;  // alive as long as tree->root is
  int64_t reported_bytes = 0;

  void released(Napi::Env env) {
    if (reported_bytes != 0) {
      Napi::MemoryManagement::AdjustExternalMemory(env, -reported_bytes);
    }
    reported_bytes = 0;
    tree.reset();
  }
};

ModuleBox& to_box(const Napi::Value& value) {
  auto* box = unwrap<ModuleBox>(value);
  if (box == nullptr) {
    throw Error("ERR_SENET_ARG_TYPE", "expected a module, got " + describe_value(value));
  }
  if (box->tree->root == nullptr) {
    throw Error("ERR_SENET_DISPOSED", "the module was disposed");
  }
  return *box;
}

void check_idle(const Tree& tree) {
  const int jobs = tree.jobs.load();
  if (jobs != 0) {
    throw Error(
        "ERR_SENET_BUSY",
        std::to_string(jobs) + " job(s) on this module are queued or running; await them before changing it");
  }
}

std::shared_ptr<const nn::TrainingSet> collect_training(const nn::Module& root) {
  auto set = std::make_shared<nn::TrainingSet>();
  for (const auto& module : root.modules(/*include_self=*/false)) {
    if (module->is_training()) {
      set->insert(module.get());
    }
  }
  if (root.is_training()) {
    set->insert(&root);
  }
  return set;
}

int64_t bytes_of(const nn::Module& module) {
  int64_t bytes = 0;
  for (const auto& parameter : module.parameters()) {
    bytes += static_cast<int64_t>(parameter.nbytes());
  }
  for (const auto& buffer : module.buffers()) {
    bytes += static_cast<int64_t>(buffer.nbytes());
  }
  return bytes;
}

models::OptionValue to_option(const Napi::Value& value, const std::string& name) {
  if (value.IsBoolean()) {
    return value.As<Napi::Boolean>().Value();
  }
  if (value.IsString()) {
    return value.As<Napi::String>().Utf8Value();
  }
  if (value.IsArray()) {
    return to_int64_array(value, name.c_str());
  }
  if (unwrap<ModuleBox>(value) != nullptr) {
    const ModuleBox& box = to_box(value);
    return std::static_pointer_cast<nn::Module>(box.module->shared_from_this());
  }
  return to_int64(value, name.c_str());
}

Napi::Object wrap_module(Napi::Env env, std::shared_ptr<Tree> tree, nn::Module* module,
                         int64_t reported_bytes) {
  auto box = std::make_unique<ModuleBox>();
  box->tree = std::move(tree);
  box->module = module;
  box->reported_bytes = reported_bytes;
  if (reported_bytes != 0) {
    Napi::MemoryManagement::AdjustExternalMemory(env, reported_bytes);
  }
  return wrap(env, std::move(box));
}

Napi::Array named_tensors(Environment& environment,
                          const torch::OrderedDict<std::string, at::Tensor>& tensors) {
  auto array = Napi::Array::New(environment.env());
  uint32_t next = 0;
  for (const auto& item : tensors) {
    auto pair = Napi::Array::New(environment.env(), 2);
    pair.Set(0u, item.key());
    pair.Set(1u, wrap_tensor(environment, item.value()));
    array.Set(next++, pair);
  }
  return array;
}

// As PyTorch's load_state_dict: copies into the tensor, or with `assign` adopts the given one (its dtype and
// device).
void load_into(at::Tensor target, const at::Tensor& source, bool assign) {
  at::NoGradGuard no_grad;
  if (!assign) {
    target.copy_(source);
    return;
  }
  const bool requires_grad = target.requires_grad();
  target.mutable_grad() = at::Tensor();
  target.set_data(source.detach());
  target.set_requires_grad(requires_grad);
}

}  // namespace

ModuleUse use_module(const Napi::Value& value) {
  const ModuleBox& box = to_box(value);
  return {box.module, std::make_shared<const TreeUse>(box.tree)};
}

Napi::Value create_module(Environment& environment, const Napi::CallbackInfo& info) {
  const std::string type = to_string(info[0], "module type");
  models::Options options;
  const auto given = info[1].As<Napi::Object>();
  const Napi::Array names = given.GetPropertyNames();
  for (uint32_t i = 0; i < names.Length(); ++i) {
    const std::string name = names.Get(i).As<Napi::String>().Utf8Value();
    const Napi::Value value = given.Get(name);
    if (!value.IsNull() && !value.IsUndefined()) {
      options[name] = to_option(value, name);
    }
  }
  auto tree = std::make_shared<Tree>();
  tree->root = models::create_module(type, options);
  tree->training = collect_training(*tree->root);
  nn::Module* root = tree->root.get();
  return wrap_module(environment.env(), tree, root, bytes_of(*root));
}

Napi::Value module_tree(Environment& environment, const Napi::CallbackInfo& info) {
  const ModuleBox& box = to_box(info[0]);
  const Napi::Env env = environment.env();
  auto nodes = Napi::Array::New(env);
  uint32_t next = 0;
  for (const auto& item : box.module->named_modules()) {
    auto* module = dynamic_cast<nn::Module*>(item.value().get());
    if (module == nullptr) {
      throw Error("ERR_SENET_INTERNAL", "the child '" + item.key() + "' is no senet module");
    }
    auto node = Napi::Object::New(env);
    node.Set("path", item.key());
    node.Set("type", module->name());
    node.Set("version", static_cast<double>(module->version()));
    node.Set("handle", wrap_module(env, box.tree, module, 0));
    node.Set("parameters", named_tensors(environment, module->named_parameters(/*recurse=*/false)));
    node.Set("buffers", named_tensors(environment, module->named_buffers(/*recurse=*/false)));
    nodes.Set(next++, node);
  }
  return nodes;
}

Napi::Value module_forward(Environment& environment, const Napi::CallbackInfo& info) {
  const ModuleBox& box = to_box(info[0]);
  const at::Tensor input = to_tensor(info[1], "input");
  const bool grad_mode = to_bool(info[2], "gradMode");
  box.module->check_input(input);
  const int64_t job = environment.submit(
      [used = use_module(info[0]), training = box.tree->training, input, grad_mode]() -> Deliver {
        const c10::AutoGradMode mode(grad_mode);
        const nn::TrainingScope scope(*training);
        nn::Output output = used.module->forward_all(input);
        return [output = std::move(output)](Environment& here) mutable -> Napi::Value {
          if (!output.aux_logits.defined()) {
            return wrap_tensor(here, std::move(output.logits));
          }
          auto both = Napi::Object::New(here.env());
          both.Set("logits", wrap_tensor(here, std::move(output.logits)));
          both.Set("auxLogits", wrap_tensor(here, std::move(output.aux_logits)));
          return both;
        };
      });
  return Napi::Number::New(environment.env(), static_cast<double>(job));
}

Napi::Value set_training(Environment& environment, const Napi::CallbackInfo& info) {
  const ModuleBox& box = to_box(info[0]);
  box.module->train(to_bool(info[1], "mode"));
  box.tree->training = collect_training(*box.tree->root);
  return environment.env().Undefined();
}

Napi::Value is_training(Environment& environment, const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(environment.env(), to_box(info[0]).module->is_training());
}

Napi::Value module_to(Environment& environment, const Napi::CallbackInfo& info) {
  const ModuleBox& box = to_box(info[0]);
  check_idle(*box.tree);
  std::optional<at::ScalarType> dtype;
  std::optional<at::Device> device;
  std::optional<at::MemoryFormat> format;
  if (!info[1].IsUndefined()) {
    dtype = parse_dtype(to_string(info[1], "dtype"));
  }
  if (!info[2].IsUndefined()) {
    device = to_device(info[2]);
  }
  if (!info[3].IsUndefined()) {
    format = parse_memory_format(to_string(info[3], "memoryFormat"));
  }
  if (dtype && !at::isFloatingType(*dtype)) {
    throw Error("ERR_SENET_DTYPE",
                std::string("a module converts to floating dtypes only, got ") + dtype_name(*dtype));
  }
  const auto convert = [&](const at::Tensor& tensor) {
    at::TensorOptions options = tensor.options();
    // PARITY: PyTorch converts floating tensors only; LibTorch's own Module::to would turn
    // num_batches_tracked into a float as well.
    if (dtype && tensor.is_floating_point()) {
      options = options.dtype(*dtype);
    }
    if (device) {
      options = options.device(*device);
    }
    const at::MemoryFormat kept = format && tensor.dim() == 4 ? *format : at::MemoryFormat::Preserve;
    return tensor.detach().to(options, /*non_blocking=*/false, /*copy=*/false, kept);
  };
  // Everything is converted before anything is replaced: a failure (no memory) leaves the module as it was.
  std::vector<std::pair<at::Tensor, at::Tensor>> replacements;
  std::vector<std::pair<at::Tensor, at::Tensor>> gradients;
  for (const at::Tensor& parameter : box.module->parameters()) {
    replacements.emplace_back(parameter, convert(parameter));
    if (parameter.grad().defined()) {
      gradients.emplace_back(parameter, convert(parameter.grad()));
    }
  }
  for (const at::Tensor& buffer : box.module->buffers()) {
    replacements.emplace_back(buffer, convert(buffer));
  }
  for (auto& [parameter, gradient] : gradients) {
    parameter.mutable_grad() = at::Tensor();
  }
  for (auto& [tensor, replacement] : replacements) {
    tensor.set_data(replacement);
  }
  for (auto& [parameter, gradient] : gradients) {
    parameter.mutable_grad() = gradient;
  }
  return environment.env().Undefined();
}

Napi::Value module_load(Environment& environment, const Napi::CallbackInfo& info) {
  const ModuleBox& box = to_box(info[0]);
  check_idle(*box.tree);
  if (!info[1].IsArray() || !info[2].IsArray()) {
    throw Error("ERR_SENET_ARG_TYPE", "expected arrays of names and tensors");
  }
  const auto names = info[1].As<Napi::Array>();
  const auto tensors = info[2].As<Napi::Array>();
  const bool assign = to_bool(info[3], "assign");
  const auto parameters = box.module->named_parameters();
  const auto buffers = box.module->named_buffers();
  std::vector<std::pair<at::Tensor, at::Tensor>> pairs;
  for (uint32_t i = 0, length = names.Length(); i < length; ++i) {
    const std::string name = to_string(names.Get(i), "name");
    const at::Tensor* parameter = parameters.find(name);
    const at::Tensor* target = parameter != nullptr ? parameter : buffers.find(name);
    if (target == nullptr) {
      throw Error("ERR_SENET_STATE_DICT", "the module has no '" + name + "'");
    }
    const at::Tensor source = to_tensor(tensors.Get(i), name.c_str());
    if (source.sizes() != target->sizes()) {
      throw Error("ERR_SENET_STATE_DICT", "'" + name + "' has the shape " + shape_text(target->sizes()) +
                                              ", got " + shape_text(source.sizes()));
    }
    if (assign && parameter != nullptr && !source.is_floating_point()) {
      throw Error("ERR_SENET_DTYPE", "'" + name + "' is a parameter and cannot adopt a tensor of " +
                                         dtype_name(source.scalar_type()));
    }
    if (source.layout() != at::kStrided) {
      throw Error("ERR_SENET_DTYPE", "'" + name + "' is not a dense tensor");
    }
    pairs.emplace_back(*target, source);
  }
  for (auto& [target, source] : pairs) {
    load_into(target, source, assign);
  }
  return environment.env().Undefined();
}

Napi::Value assert_idle(Environment& environment, const Napi::CallbackInfo& info) {
  check_idle(*to_box(info[0]).tree);
  return environment.env().Undefined();
}

Napi::Value dispose_module(Environment& environment, const Napi::CallbackInfo& info) {
  auto* box = unwrap<ModuleBox>(info[0]);
  if (box == nullptr) {
    throw Error("ERR_SENET_ARG_TYPE", "expected a module, got " + describe_value(info[0]));
  }
  if (box->reported_bytes != 0) {
    Napi::MemoryManagement::AdjustExternalMemory(environment.env(), -box->reported_bytes);
    box->reported_bytes = 0;
  }
  box->tree->root.reset();  // jobs that run hold it until they end
  return environment.env().Undefined();
}

}  // namespace senet::addon
