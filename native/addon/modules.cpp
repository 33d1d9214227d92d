// A tree of modules lives as long as one of its handles or jobs does, and changes only while no job uses it:
// first that, behind it the functions of the export table.
#include "addon/modules.h"

#include "addon/convert.h"
#include "addon/mode.h"
#include "addon/tensor_use.h"
#include "addon/wrap.h"
#include "core/error.h"
#include "core/names.h"
#include "models/registry.h"
#include "nn/layers.h"
#include "nn/module.h"
#include "nn/run.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <optional>
#include <sstream>
#include <string>
#include <unordered_map>
#include <vector>

namespace senet::addon {
namespace {

struct Node;

// A module that is no other's child, with all its descendants: "a job is running" and "disposed" are facts of
// the whole. Changed on the JavaScript thread alone, but for `jobs`.
struct Tree {
  std::shared_ptr<nn::Module> root;  // null once disposed
  std::shared_ptr<const nn::TrainingSet>
      training;  // replaced, never changed: queued jobs hold the one of their call
  std::atomic<int> jobs{0};
  std::unordered_map<const nn::Module*, std::weak_ptr<Node>> nodes;  // of the modules that have handles
};

// A module that has handles, which share this: when the module moves into another tree, `tree` is changed
// here.
struct Node {
  std::shared_ptr<Tree> tree;
  nn::Module* module;  // alive as long as tree->root is
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
  std::shared_ptr<Node> node;
  int64_t reported_bytes = 0;

  void released(Napi::Env env) {
    if (reported_bytes != 0) {
      Napi::MemoryManagement::AdjustExternalMemory(env, -reported_bytes);
    }
    reported_bytes = 0;
    node.reset();
  }
};

Node& to_node(const Napi::Value& value) {
  const auto* box = unwrap<ModuleBox>(value);
  if (box == nullptr) {
    throw Error("ERR_SENET_ARG_TYPE", "expected a module, got " + describe_value(value));
  }
  if (box->node->tree->root == nullptr) {
    throw Error("ERR_SENET_DISPOSED", "the module was disposed");
  }
  return *box->node;
}

void check_idle(const Tree& tree) {
  const int jobs = tree.jobs.load();
  if (jobs != 0) {
    throw Error(
        "ERR_SENET_BUSY",
        std::to_string(jobs) + " job(s) on this module are queued or running; await them before changing it");
  }
}

// The trees of an array of modules, none of which may have a job.
std::vector<std::shared_ptr<Tree>> to_idle_trees(const Napi::Value& value) {
  if (!value.IsArray()) {
    throw Error("ERR_SENET_ARG_TYPE", "expected an array of modules, got " + describe_value(value));
  }
  const auto array = value.As<Napi::Array>();
  std::vector<std::shared_ptr<Tree>> trees;
  for (uint32_t i = 0, length = array.Length(); i < length; ++i) {
    trees.push_back(to_node(array.Get(i)).tree);
    check_idle(*trees.back());
  }
  return trees;
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

// The nodes of `from`, for `module` and everything below it, become nodes of `to`.
void move_nodes(Tree& from, const std::shared_ptr<Tree>& to, const nn::Module& module) {
  const auto move = [&](const nn::Module* one) {
    const auto found = from.nodes.find(one);
    if (found == from.nodes.end()) {
      return;
    }
    if (const std::shared_ptr<Node> node = found->second.lock()) {
      node->tree = to;
    }
    to->nodes.insert(from.nodes.extract(found));
  };
  move(&module);
  for (const auto& below : module.modules(/*include_self=*/false)) {
    move(static_cast<const nn::Module*>(below.get()));
  }
}

// A module that is to become a part of another tree: it must be no part of one yet, and have no job.
Node& to_free_node(const Napi::Value& value, const char* what) {
  Node& node = to_node(value);
  if (node.tree->root.get() != node.module) {
    throw Error("ERR_SENET_MODULE_TREE",
                std::string(what) + ": this " + node.module->name() + " is part of another module already");
  }
  check_idle(*node.tree);
  return node;
}

// Makes the root of another tree, which is registered in `tree` by now, a part of it.
void adopt(const std::shared_ptr<Tree>& tree, Node& free_node) {
  const std::shared_ptr<Tree> old = free_node.tree;
  move_nodes(*old, tree, *free_node.module);
  old->root.reset();
}

// `adopted` receives the nodes of modules among the options.
nn::OptionValue to_option(const Napi::Value& value, const std::string& name, std::vector<Node*>& adopted) {
  const auto to_module = [&](const Napi::Value& handle) {
    Node& node = to_free_node(handle, name.c_str());
    if (std::find(adopted.begin(), adopted.end(), &node) != adopted.end()) {
      throw Error("ERR_SENET_MODULE_TREE", name + ": this " + node.module->name() + " is there twice");
    }
    adopted.push_back(&node);
    return std::static_pointer_cast<nn::Module>(node.module->shared_from_this());
  };
  if (value.IsBoolean()) {
    return value.As<Napi::Boolean>().Value();
  }
  if (value.IsString()) {
    return value.As<Napi::String>().Utf8Value();
  }
  if (name == "modules" && value.IsArray()) {
    const auto array = value.As<Napi::Array>();
    std::vector<std::shared_ptr<nn::Module>> modules;
    for (uint32_t i = 0, length = array.Length(); i < length; ++i) {
      modules.push_back(to_module(array.Get(i)));
    }
    return modules;
  }
  if (value.IsArray()) {
    return to_int64_array(value, name.c_str());
  }
  if (unwrap<ModuleBox>(value) != nullptr) {
    return to_module(value);
  }
  if (value.IsNumber()) {
    const double number = value.As<Napi::Number>().DoubleValue();
    if (number != std::floor(number)) {  // NaN too
      return number;
    }
  }
  return to_int64(value, name.c_str());
}

Napi::Object wrap_module(Napi::Env env, const std::shared_ptr<Tree>& tree, nn::Module* module,
                         int64_t reported_bytes) {
  std::weak_ptr<Node>& known = tree->nodes[module];
  std::shared_ptr<Node> node = known.lock();
  if (node == nullptr) {
    node = std::make_shared<Node>(Node{tree, module});
    known = node;
  }
  auto box = std::make_unique<ModuleBox>();
  box->node = std::move(node);
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

// Where a path of names leads.
const nn::Module& part_of(const nn::Module& module, const std::string& path) {
  const nn::Module* part = &module;
  std::istringstream names(path);
  for (std::string name; std::getline(names, name, '.');) {
    part = part->find_child(name).get();  // which its parent keeps
    if (part == nullptr) {
      throw Error("ERR_SENET_ARG_RANGE", module.name() + " has no module at '" + path + "'");
    }
  }
  return *part;
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
  target.set_data(source.detach().resolve_neg());  // compile() reads memory as it is
  target.set_requires_grad(requires_grad);
}

}  // namespace

ModuleUse use_module(const Napi::Value& value) {
  const Node& node = to_node(value);
  return {node.module, std::make_shared<const TreeUse>(node.tree)};
}

Napi::Value create_module(Environment& environment, const Napi::CallbackInfo& info) {
  const std::string type = to_string(info[0], "module type");
  nn::Options options;
  std::vector<Node*> adopted;
  const auto given = info[1].As<Napi::Object>();
  const Napi::Array names = given.GetPropertyNames();
  for (uint32_t i = 0; i < names.Length(); ++i) {
    const std::string name = names.Get(i).As<Napi::String>().Utf8Value();
    const Napi::Value value = given.Get(name);
    if (!value.IsNull() && !value.IsUndefined()) {
      options[name] = to_option(value, name, adopted);
    }
  }
  auto tree = std::make_shared<Tree>();
  tree->root = models::create_module(type, options);
  for (Node* node : adopted) {
    adopt(tree, *node);
  }
  tree->training = collect_training(*tree->root);
  nn::Module* root = tree->root.get();
  return wrap_module(environment.env(), tree, root, bytes_of(*root));
}

Napi::Value module_node(Environment& environment, const Napi::CallbackInfo& info) {
  const Node& node = to_node(info[0]);
  const Napi::Env env = environment.env();
  nn::Module& module = *node.module;
  auto children = Napi::Array::New(env);
  uint32_t next = 0;
  for (const auto& item : module.named_children()) {
    auto* child = dynamic_cast<nn::Module*>(item.value().get());
    if (child == nullptr) {
      throw Error("ERR_SENET_INTERNAL", "the child '" + item.key() + "' is no senet module");
    }
    auto entry = Napi::Array::New(env, 4);
    entry.Set(0u, item.key());
    entry.Set(1u, child->name());
    entry.Set(2u, wrap_module(env, node.tree, child, 0));
    entry.Set(3u, static_cast<double>(module.head_features(item.key())));
    children.Set(next++, entry);
  }
  auto facts = Napi::Object::New(env);
  facts.Set("type", module.name());
  facts.Set("version", static_cast<double>(module.version()));
  const nn::Width width = module.width();
  facts.Set("width", from_shape(env, {width.input, width.output}));
  facts.Set("parameters", named_tensors(environment, module.named_parameters(/*recurse=*/false)));
  facts.Set("buffers", named_tensors(environment, module.named_buffers(/*recurse=*/false)));
  facts.Set("children", children);
  return facts;
}

Napi::Value module_forward(Environment& environment, const Napi::CallbackInfo& info) {
  const Node& node = to_node(info[0]);
  const at::Tensor input = to_tensor(info[1], "input");
  const Mode mode{to_bool(info[2], "gradMode"), to_autocast(info[3])};
  {
    const ModeScope mode_scope(mode);
    node.module->check_input(input);
  }
  const int64_t job = environment.submit(
      [used = use_module(info[0]), training = node.tree->training, input, mode,
       read = std::make_shared<const TensorUse>(std::vector{input}, TensorUse::Part::kNumbers)]() -> Deliver {
        const ModeScope mode_scope(mode);
        const nn::TrainingScope scope(*training);
        nn::Result output = nn::run(*used.module, input);
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
  return environment.job_number(job);
}

Napi::Value module_record(Environment& environment, const Napi::CallbackInfo& info) {
  const Node& node = to_node(info[0]);
  const at::Tensor input = to_tensor(info[1], "input");
  const Mode mode{to_bool(info[2], "gradMode"), to_autocast(info[3])};
  {
    const ModeScope mode_scope(mode);
    node.module->check_input(input);
  }
  nn::Recording recording;
  std::vector<const nn::Module*> wanted;
  const auto paths = info[4].As<Napi::Array>();
  for (uint32_t i = 0; i < paths.Length(); ++i) {
    wanted.push_back(&part_of(*node.module, to_string(paths.Get(i), "path")));
    recording.outputs[wanted.back()];
  }
  const auto changes = info[5].As<Napi::Array>();
  for (uint32_t i = 0; i < changes.Length(); ++i) {
    const auto change = changes.Get(i).As<Napi::Array>();
    recording.replacements[&part_of(*node.module, to_string(change.Get(0u), "path"))] =
        to_tensor(change.Get(1u), "replacement");
  }
  const int64_t job = environment.submit([used = use_module(info[0]), input, mode, wanted = std::move(wanted),
                                          recording = std::move(recording)]() mutable -> Deliver {
    const ModeScope mode_scope(mode);
    const nn::TrainingSet nothing;
    at::Tensor output;
    {
      const nn::TrainingScope evaluation(nothing);
      const nn::RecordingScope scope(recording);
      output = used.module->forward(input).tensor();
    }
    std::unordered_map<const nn::Module*, std::string> paths{{used.module, ""}};
    for (const auto& item : used.module->named_modules()) {
      paths[static_cast<const nn::Module*>(item.value().get())] = item.key();
    }
    std::vector<std::string> names;
    for (const nn::ModuleCall& call : recording.calls) {
      names.push_back(paths[call.module]);
    }
    std::vector<at::Tensor> outputs;
    for (const nn::Module* module : wanted) {
      outputs.push_back(recording.outputs[module]);
    }
    return [output = std::move(output), outputs = std::move(outputs), calls = std::move(recording.calls),
            names = std::move(names)](Environment& here) mutable -> Napi::Value {
      const Napi::Env env = here.env();
      auto list = Napi::Array::New(env, calls.size());
      for (size_t i = 0; i < calls.size(); ++i) {
        auto entry = Napi::Array::New(env, 3);
        entry.Set(0u, names[i]);
        entry.Set(1u, from_shape(env, calls[i].input));
        entry.Set(2u, from_shape(env, calls[i].output));
        list.Set(static_cast<uint32_t>(i), entry);
      }
      auto result = Napi::Object::New(env);
      result.Set("output", wrap_tensor(here, std::move(output)));
      result.Set("calls", list);
      result.Set("outputs", wrap_tensors(here, std::move(outputs)));
      return result;
    };
  });
  return environment.job_number(job);
}

Napi::Value set_training(Environment& environment, const Napi::CallbackInfo& info) {
  const Node& node = to_node(info[0]);
  node.module->train(to_bool(info[1], "mode"));
  node.tree->training = collect_training(*node.tree->root);
  return environment.env().Undefined();
}

Napi::Value is_training(Environment& environment, const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(environment.env(), to_node(info[0]).module->is_training());
}

Napi::Value sync_batch_norms(Environment& environment, const Napi::CallbackInfo& info) {
  const Node& node = to_node(info[0]);
  check_idle(*node.tree);
  const auto mark = [](torch::nn::Module* module) {
    if (auto* norm = dynamic_cast<nn::BatchNorm2d*>(module)) {
      norm->sync = true;
    }
  };
  mark(node.module);
  for (const auto& below : node.module->modules(/*include_self=*/false)) {
    mark(below.get());
  }
  return environment.env().Undefined();
}

Napi::Value replace_module(Environment& environment, const Napi::CallbackInfo& info) {
  const Node& parent = to_node(info[0]);
  const std::string name = to_string(info[1], "name");
  const std::shared_ptr<Tree> tree = parent.tree;
  check_idle(*tree);
  Node& replacement = to_free_node(info[2], name.c_str());
  if (replacement.tree == tree) {
    throw Error("ERR_SENET_MODULE_TREE", name + ": a module cannot be a part of itself");
  }
  nn::check_width(*tree->root, *parent.module, name, *replacement.module);
  const std::shared_ptr<nn::Module> old = parent.module->replace_child(
      name, std::static_pointer_cast<nn::Module>(replacement.module->shared_from_this()));
  adopt(tree, replacement);
  // What was replaced is free again.
  auto freed = std::make_shared<Tree>();
  freed->root = old;
  freed->training = collect_training(*old);
  move_nodes(*tree, freed, *old);
  tree->training = collect_training(*tree->root);
  return environment.env().Undefined();
}

Napi::Value module_to(Environment& environment, const Napi::CallbackInfo& info) {
  const auto trees = to_idle_trees(info[0]);
  const std::vector<at::Tensor> tensors = to_tensors(info[1], "tensors");
  check_gradients_idle(tensors);
  check_numbers_idle(tensors);
  std::optional<at::ScalarType> dtype;
  std::optional<at::Device> device;
  std::optional<at::MemoryFormat> format;
  if (!info[2].IsUndefined()) {
    dtype = parse_dtype(to_string(info[2], "dtype"));
  }
  if (!info[3].IsUndefined()) {
    device = to_device(info[3]);
  }
  if (!info[4].IsUndefined()) {
    format = parse_memory_format(to_string(info[4], "memoryFormat"));
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
  for (const at::Tensor& tensor : tensors) {
    replacements.emplace_back(tensor, convert(tensor));
    if (tensor.grad().defined()) {
      gradients.emplace_back(tensor, convert(tensor.grad()));
    }
  }
  for (auto& [tensor, gradient] : gradients) {
    tensor.mutable_grad() = at::Tensor();
  }
  for (auto& [tensor, replacement] : replacements) {
    tensor.set_data(replacement);
  }
  for (auto& [tensor, gradient] : gradients) {
    tensor.mutable_grad() = gradient;
  }
  return environment.env().Undefined();
}

Napi::Value module_load(Environment& environment, const Napi::CallbackInfo& info) {
  const auto trees = to_idle_trees(info[0]);
  if (!info[1].IsArray()) {
    throw Error("ERR_SENET_ARG_TYPE", "expected an array of names");
  }
  const auto names = info[1].As<Napi::Array>();
  const std::vector<at::Tensor> targets = to_tensors(info[2], "targets");
  check_gradients_idle(targets);
  const bool assign = to_bool(info[4], "assign");
  if (assign) {
    check_numbers_idle(targets);
  }
  if (!info[3].IsArray() || names.Length() != targets.size() ||
      info[3].As<Napi::Array>().Length() != targets.size()) {
    throw Error("ERR_SENET_ARG_TYPE", "expected as many names and sources as targets");
  }
  const auto given = info[3].As<Napi::Array>();
  std::vector<std::pair<at::Tensor, at::Tensor>> pairs;
  for (size_t i = 0; i < targets.size(); ++i) {
    const std::string name = to_string(names.Get(static_cast<uint32_t>(i)), "name");
    const at::Tensor& target = targets[i];
    const at::Tensor source = to_tensor(given.Get(static_cast<uint32_t>(i)), name.c_str());
    if (source.sizes() != target.sizes()) {
      throw Error("ERR_SENET_STATE_DICT", "'" + name + "' has the shape " + shape_text(target.sizes()) +
                                              ", got " + shape_text(source.sizes()));
    }
    if (assign && target.requires_grad() && !source.is_floating_point()) {
      throw Error("ERR_SENET_DTYPE", "'" + name + "' is a parameter and cannot adopt a tensor of " +
                                         dtype_name(source.scalar_type()));
    }
    if (source.layout() != at::kStrided) {
      throw Error("ERR_SENET_DTYPE", "'" + name + "' is not a dense tensor");
    }
    pairs.emplace_back(target, source);
  }
  for (auto& [target, source] : pairs) {
    load_into(target, source, assign);
  }
  return environment.env().Undefined();
}

Napi::Value assert_idle(Environment& environment, const Napi::CallbackInfo& info) {
  check_idle(*to_node(info[0]).tree);
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
  Tree& tree = *box->node->tree;
  if (tree.root != nullptr && tree.root.get() != box->node->module) {
    throw Error("ERR_SENET_MODULE_TREE", "this " + box->node->module->name() + " is part of another module");
  }
  tree.root.reset();  // jobs that run hold it until they end
  return environment.env().Undefined();
}

}  // namespace senet::addon
