// The third of the three stages from a plan to a program of our kernels (cpu/program.h): each unit becomes a
// step with the kernels of a processor, its weights packed as these read them (packing.h). Which algorithm a
// convolution has is chosen here.
#pragma once

#include "inference/cpu/place.h"

#include <memory>
#include <string>
#include <vector>

namespace senet::inference {

using Steps = std::vector<std::unique_ptr<Step>>;

/// `kernels` must have kernels for the elements. The steps do without the plan.
Steps pack_steps(const Fused& fused, const Placed& placed, const Kernels& kernels, bool is_float);

/// A line for each step: "convolution conv2: 1 -> 2; panels of 4 + 3 vectors, winograd, relu; 73984 bytes".
std::string to_string(const Steps& steps);

}  // namespace senet::inference
