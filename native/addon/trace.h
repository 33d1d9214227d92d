// TypeScript forwards, traced: they are called with values that are no numbers yet, and what they do with
// them is noted in a graph (graph/value.h). Everything else in the addon refuses such a value by itself.
#pragma once

#include "addon/environment.h"
#include "addon/modules.h"
#include "graph/graph.h"

#include <memory>
#include <vector>

namespace senet::addon {

/// channels -> the handle of a traced N x channels x H x W.
Napi::Value trace_input(Environment& environment, const Napi::CallbackInfo& info);
/// module, traced value, path of the module -> what its forward gives, traced.
Napi::Value trace_module(Environment& environment, const Napi::CallbackInfo& info);
/// operator name, positional arguments, keywords or null -> what it gives, traced.
Napi::Value trace_operator(Environment& environment, const Napi::CallbackInfo& info);
/// A forward that was traced, with the modules whose tensors its graph holds.
struct TracedForward {
  std::shared_ptr<graph::Graph> graph;
  std::vector<ModuleUse> used;
};
/// What was traced on the way to this value; the session is over.
TracedForward take_traced(const Napi::Value& output);

/// A job: what was traced on the way to this value, compiled. Of the forward's output, its class, dtype and
/// allowTF32.
Napi::Value compile_traced(Environment& environment, const Napi::CallbackInfo& info);

}  // namespace senet::addon
