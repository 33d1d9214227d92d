#include "nn/run.h"

#include "graph/fused_training.h"

#include <ATen/autocast_mode.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

namespace senet::nn {
namespace {

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
    graph::Trace trace;  // without paths: nobody sees its names
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
