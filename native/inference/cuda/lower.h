// From a plan to the steps of a CUDA program: which nodes are computed together, and their weights, packed on
// the device.
//
// What is fused, and why it is the same function:
//
// - BatchNorms are part of their convolutions (plan.h); bias and ReLU happen in the convolution's kernel.
//
// - In a bottleneck the mean that SE takes of the last (1 x 1) convolution, mean(W3 x + b3), is W3 mean(x) +
// b3. So the excitation is computed before that convolution runs, from the mean of its input, with W1 W3
// folded into one matrix, and the factors, the residual and the ReLU are part of that convolution's kernel:
// what the excitation scales is never written without its factors. The squeeze is also more exact so: nothing
// was rounded to 16 bits before it.
//
// - Elsewhere an excitation is a pass that adds up the means, a kernel for the factors, and one pass of
// scale, residual and ReLU.
#pragma once

#include "inference/cuda/convolutions.h"
#include "inference/cuda/steps.h"
#include "inference/plan.h"

#include <ATen/core/Tensor.h>

#include <vector>

namespace senet::inference::cuda {

struct Lowered {
  Steps steps;
  std::vector<at::Tensor> weights;  // what the steps point to
};

Lowered lower(const Plan& plan, Type type, at::Device device);

at::ScalarType scalar_type(Type type);

}  // namespace senet::inference::cuda
