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

constexpr VectorKernels kVectors = {Avx2Float::kWidth, Avx2Float::kMaxVectors, float_kernels<Avx2Float>(),
                                    byte_kernels<Avx2Bytes>(), multiply_add<Avx2Float>};

}  // namespace

const VectorKernels* avx2_vectors() {
  return &kVectors;
}

}  // namespace senet::inference

#else

const senet::inference::VectorKernels* senet::inference::avx2_vectors() {
  return nullptr;
}

#endif
