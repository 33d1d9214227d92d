// Kernels for any processor. The bytes' are what those of instruction sets are compared with, and run where
// there are none; float32 is beside them for the layers that stay float32. Compiled without flags; see
// kernels.h.
#include "inference/cpu/kernels.h"

#include <math.h>

#include <type_traits>

namespace senet::inference {
namespace {

#include "inference/cpu/kernels_scalar.h"

#include "inference/cpu/kernels_bytes.h"

constexpr VectorKernels kVectors = {ScalarFloat::kWidth, ScalarFloat::kMaxVectors,
                                    float_kernels<ScalarFloat>(), byte_kernels<ScalarFloat>(),
                                    multiply_add<ScalarFloat>};

}  // namespace

const VectorKernels* scalar_vectors() {
  return &kVectors;
}

}  // namespace senet::inference
