// The byte kernels for AVX-512 with AVX512_VNNI. Compiled with those flags; see kernels.h.
#include "inference/cpu/kernels.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__) && \
    defined(__AVX512VNNI__)
#include <immintrin.h>
#include <math.h>

#include <type_traits>

namespace senet::inference {
namespace {

#include "inference/cpu/kernels_avx512.h"
#include "inference/cpu/kernels_bytes.h"

constexpr ElementKernels kBytes = byte_kernels<Avx512Vnni>();

}  // namespace

const ElementKernels* avx512_vnni_bytes() {
  return &kBytes;
}

}  // namespace senet::inference

#else

const senet::inference::ElementKernels* senet::inference::avx512_vnni_bytes() {
  return nullptr;
}

#endif
