// From a graph to the steps of a direct program: which nodes become which step, and what is fused. See
// cpu/program.h.
#pragma once

#include "inference/cpu/steps.h"

#include <memory>
#include <vector>

namespace senet::inference {

struct CpuSteps {
  std::vector<std::unique_ptr<Step>> steps;
  std::vector<Buffer> buffers;
};

CpuSteps lower_plan(const Plan& plan, const Kernels& kernels, at::ScalarType element);

}  // namespace senet::inference
