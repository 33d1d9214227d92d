// From a graph to the steps of a direct program: which nodes become which step, and what is fused. See
// direct_program.h.
#pragma once

#include "inference/direct_steps.h"

#include <memory>
#include <vector>

namespace senet::inference {

struct DirectSteps {
  std::vector<std::unique_ptr<Step>> steps;
  std::vector<Buffer> buffers;
};

DirectSteps lower_plan(const Plan& plan, const Kernels& kernels, at::ScalarType element);

}  // namespace senet::inference
