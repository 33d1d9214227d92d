// A module's forward on numbers: the one entry of every native forward.
//
// A float32 forward of 4-D input on the CPU without autocast, of a module with a part in training mode, is
// traced anew at each call (unless its calls are recorded), rewritten (graph/fused_training.h) and run by
// graph::execute(). All others, and those that cannot be traced, are computed as the module's forward stands.
// What a rewritten node does with an input that its fused function does not take, it decides when it is
// computed.
#pragma once

#include "nn/module.h"

#include <ATen/core/Tensor.h>

namespace senet::nn {

struct Result {
  at::Tensor logits;
  at::Tensor aux_logits;  // as Output's
};

/// The module's forward, in each part's present mode.
Result run(Module& module, const at::Tensor& input);

}  // namespace senet::nn
