// The float32 and bfloat16 kernels for AVX-512 with AVX512_BF16. Compiled with those flags; see kernels.h.
#include "inference/cpu/kernels.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__) && \
    defined(__AVX512BF16__)
#include <immintrin.h>
#include <math.h>

#include <type_traits>

namespace senet::inference {
namespace {

#include "inference/cpu/kernels_avx512.h"
#include "inference/cpu/kernels_simd.h"

constexpr ElementKernels kFloat = float_kernels<Avx512Float>();
constexpr ElementKernels kBfloat16 = element_kernels<Avx512Bfloat16>();
constexpr Kernels kKernels = {
    "avx512_bf16", Avx512Float::kWidth,      Avx512Float::kMaxVectors, &kFloat, &kBfloat16,
    nullptr,       multiply_add<Avx512Float>};

}  // namespace

const Kernels* avx512_bf16_kernels() {
  return &kKernels;
}

}  // namespace senet::inference

#else

const senet::inference::Kernels* senet::inference::avx512_bf16_kernels() {
  return nullptr;
}

#endif
