// The bfloat16 kernels for AVX-512 with AVX512_BF16. Compiled with those flags; see kernels.h.
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

constexpr ElementKernels kBfloat16 = element_kernels<Avx512Bfloat16>();

}  // namespace

const ElementKernels* avx512_bfloat16() {
  return &kBfloat16;
}

}  // namespace senet::inference

#else

const senet::inference::ElementKernels* senet::inference::avx512_bfloat16() {
  return nullptr;
}

#endif
