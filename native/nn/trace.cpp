#include "nn/trace.h"

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

}  // namespace

void add_paths(const Module& module, const std::string& path, graph::Trace& trace) {
  trace.set_path(&module, path);
  for (const auto& item : module.named_modules(path, /*include_self=*/false)) {
    trace.set_path(static_cast<const Module*>(item.value().get()), item.key());
  }
}

graph::Graph trace_evaluation(Module& module) {
  const int64_t channels = input_channels(module);
  const TrainingSet nothing;
  const TrainingScope evaluation(nothing);
  graph::Trace trace;
  add_paths(module, "", trace);
  const Value output = module.forward(trace.input(
      {graph::kUnknown, channels == 0 ? graph::kUnknown : channels, graph::kUnknown, graph::kUnknown}));
  if (channels == 0) {
    throw graph::Untraceable(
        "nothing in it says how many channels its images have; compile the model that it is part of")
        .of(module.name(), "");
  }
  return trace.finish({output});
}

}  // namespace senet::nn
