// The byte kernels for AVX2 with AVX_VNNI. Compiled with those flags; see kernels.h.
#include "inference/cpu/kernels.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__AVXVNNI__)
#include <immintrin.h>
#include <math.h>

#include <type_traits>

namespace senet::inference {
namespace {

#include "inference/cpu/kernels_avx2.h"
#include "inference/cpu/kernels_bytes.h"

constexpr ElementKernels kBytes = byte_kernels<Avx2Vnni>();

}  // namespace

const ElementKernels* avx2_vnni_bytes() {
  return &kBytes;
}

}  // namespace senet::inference

#else

const senet::inference::ElementKernels* senet::inference::avx2_vnni_bytes() {
  return nullptr;
}

#endif
