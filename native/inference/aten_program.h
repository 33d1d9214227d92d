// A compiled program of LibTorch's operators: for CUDA, and for processors that direct_program.h has no
// kernels for. Folded weights, channels-last activations; on the CPU oneDNN's prepacked convolutions with
// ReLU as their post-operation, which makes 0 of a NaN (LibTorch's own ReLU keeps it).
#pragma once

#include "inference/plan.h"
#include "inference/program.h"

#include <memory>

namespace senet::inference {

/// `allow_tf32`: of float32 convolutions on CUDA. Throws ERR_SENET_DTYPE if the device does not compute with
/// `dtype`.
std::unique_ptr<Program> make_aten_program(const Plan& plan, at::Device device, at::ScalarType dtype,
                                           bool allow_tf32 = false);

}  // namespace senet::inference
