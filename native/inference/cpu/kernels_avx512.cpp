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

constexpr ElementKernels kFloat = float_kernels<Avx512Float>();
constexpr ElementKernels kBytes = byte_kernels<Avx512Bytes>();
constexpr Kernels kKernels = {"avx512", Avx512Float::kWidth,      Avx512Float::kMaxVectors, &kFloat, nullptr,
                              &kBytes,  multiply_add<Avx512Float>};

}  // namespace

const Kernels* avx512_kernels() {
  return &kKernels;
}

}  // namespace senet::inference

#else

const senet::inference::Kernels* senet::inference::avx512_kernels() {
  return nullptr;
}

#endif
