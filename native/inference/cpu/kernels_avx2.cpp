// The float32 and byte kernels for AVX2 with FMA. Compiled with those flags; see kernels.h.
#include "inference/cpu/kernels.h"

#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#include <math.h>

#include <type_traits>

namespace senet::inference {
namespace {

#include "inference/cpu/kernels_avx2.h"
#include "inference/cpu/kernels_bytes.h"

constexpr ElementKernels kFloat = float_kernels<Avx2Float>();
constexpr ElementKernels kBytes = byte_kernels<Avx2Bytes>();
constexpr Kernels kKernels = {"avx2",  Avx2Float::kWidth, Avx2Float::kMaxVectors, &kFloat,
                              nullptr, &kBytes,           multiply_add<Avx2Float>};

}  // namespace

const Kernels* avx2_kernels() {
  return &kKernels;
}

}  // namespace senet::inference

#else

const senet::inference::Kernels* senet::inference::avx2_kernels() {
  return nullptr;
}

#endif
