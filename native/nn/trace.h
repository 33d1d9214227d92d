// A module's forward as a whole: traced, or run on numbers.
#pragma once

#include "graph/graph.h"
#include "nn/module.h"

namespace senet::nn {

/// What a module computes in evaluation mode, for images of any number and size; the graph holds the module's
/// own tensors. Throws ERR_SENET_COMPILE in the name of the module that cannot be traced, ERR_SENET_SHAPE for
/// parts that do not fit together.
graph::Graph trace_evaluation(Module& module);

/// Names the parts of `module` by their paths in a larger one, where it stands at `path`.
void add_paths(const Module& module, const std::string& path, graph::Trace& trace);

struct Result {
  at::Tensor logits;
  at::Tensor aux_logits;  // as Output's
};

/// The module's forward, in each part's present mode: training steps with what can be computed in fewer
/// passes rewritten (graph/fused_training.h).
Result run(Module& module, const at::Tensor& input);

}  // namespace senet::nn
