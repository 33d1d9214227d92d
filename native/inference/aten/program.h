// A compiled program of LibTorch's operators: for processors that cpu/program.h and devices that
// cuda/program.h have no kernels for. Folded weights, channels-last activations; on the CPU oneDNN's
// prepacked convolutions with ReLU as their post-operation, which makes 0 of a NaN (LibTorch's own ReLU keeps
// it).
#pragma once

#include "inference/backend.h"

#include <memory>

namespace senet::inference {

/// "cuda", "onednn" or "libtorch". Throws as make_aten_program().
const char* aten_kernels_name(const Target& target);
/// Throws ERR_SENET_DTYPE if the device does not compute with the dtype.
std::unique_ptr<const Program> make_aten_program(const Plan& plan, const Target& target);

}  // namespace senet::inference
