#include "nn/trace.h"

#include "graph/fused_training.h"

#include <ATen/autocast_mode.h>

#include <algorithm>
#include <optional>

namespace senet::nn {
namespace {

// The channels that the first part with a width of its own takes, 0 if there is none.
int64_t input_channels(const Module& module) {
  if (const int64_t own = module.width().input) {
    return own;
  }
  for (const auto& child : module.children()) {
    const auto* part = dynamic_cast<const Module*>(child.get());
    if (const int64_t found = part == nullptr ? 0 : input_channels(*part)) {
      return found;
    }
  }
  return 0;
}

bool has_training_parts(const Module& module) {
  if (module.in_training()) {
    return true;
  }
  const auto parts = module.modules(/*include_self=*/false);
  return std::any_of(parts.begin(), parts.end(), [](const auto& part) {
    const auto* own = dynamic_cast<const Module*>(part.get());
    return own != nullptr && own->in_training();
  });
}

// Whether parts of the forward may run in fewer passes.
bool may_fuse(const Module& module, const at::Tensor& input) {
  return input.dim() == 4 && input.is_cpu() && input.scalar_type() == at::kFloat &&
         !at::autocast::is_autocast_enabled(at::kCPU) && !RecordingScope::active() &&
         TrainingScope::may_train() && has_training_parts(module);
}

std::optional<Result> run_fused(Module& module, const at::Tensor& input) {
  graph::Graph graph;
  bool has_both = false;
  try {
    graph::Trace trace;
    add_paths(module, "", trace);
    const Output output = module.forward_all(trace.input(input.sizes().vec(), input.options()));
    has_both = output.aux_logits.defined();
    graph =
        trace.finish(has_both ? std::vector{output.logits, output.aux_logits} : std::vector{output.logits});
  } catch (const graph::Untraceable&) {
    return std::nullopt;
  }
  graph::fuse_training(graph);
  std::vector<at::Tensor> outputs = graph::execute(graph, {input});
  return Result{std::move(outputs.front()), has_both ? std::move(outputs.back()) : at::Tensor()};
}

}  // namespace

void add_paths(const Module& module, const std::string& path, graph::Trace& trace) {
  trace.set_path(&module, path);
  for (const auto& item : module.named_modules(path, /*include_self=*/false)) {
    trace.set_path(static_cast<const Module*>(item.value().get()), item.key());
  }
}

graph::Graph trace_evaluation(Module& module) {
  const int64_t channels = input_channels(module);
  if (channels == 0) {
    throw Error("ERR_SENET_COMPILE", "compile: " + module.name() +
                                         " has no weights of its own; compile the model that it is part of");
  }
  const TrainingSet nothing;
  const TrainingScope evaluation(nothing);
  graph::Trace trace;
  add_paths(module, "", trace);
  const Value output =
      module.forward(trace.input({graph::kUnknown, channels, graph::kUnknown, graph::kUnknown}));
  return trace.finish({output});
}

Result run(Module& module, const at::Tensor& input) {
  if (may_fuse(module, input)) {
    if (std::optional<Result> fused = run_fused(module, input)) {
      return *std::move(fused);
    }
  }
  const Output output = module.forward_all(input);
  return {output.logits.tensor(), output.aux_logits.defined() ? output.aux_logits.tensor() : at::Tensor()};
}

}  // namespace senet::nn
