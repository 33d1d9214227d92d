// The float32 and byte kernels for AVX-512 (F, BW, VL, DQ). Compiled with those flags; see kernels.h.
#include "inference/cpu/kernels.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#include <immintrin.h>
#include <math.h>

#include <type_traits>

namespace senet::inference {
namespace {

#include "inference/cpu/kernels_avx512.h"
#include "inference/cpu/kernels_bytes.h"

constexpr VectorKernels kVectors = {Avx512Float::kWidth, Avx512Float::kMaxVectors,
                                    float_kernels<Avx512Float>(), byte_kernels<Avx512Bytes>(),
                                    multiply_add<Avx512Float>};

}  // namespace

const VectorKernels* avx512_vectors() {
  return &kVectors;
}

}  // namespace senet::inference

#else

const senet::inference::VectorKernels* senet::inference::avx512_vectors() {
  return nullptr;
}

#endif
