// A module's forward as a graph. A compiled model is made of one of evaluation mode (trace_evaluation), once;
// run() (nn/run.h) traces a training step anew each time, since shapes and modes may have changed.
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

}  // namespace senet::nn
