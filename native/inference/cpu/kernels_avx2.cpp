// The float32 kernels for AVX2 with FMA. Compiled with those flags; see kernels.h.
#include "inference/cpu/kernels.h"

#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#include <math.h>

#include <type_traits>

namespace senet::inference {
namespace {

#include "inference/cpu/kernels_simd.h"

struct Avx2Float {
  using Element = float;
  using Vector = __m256;
  using Doubles = __m256d;
  static constexpr int kWidth = 8;
  static constexpr int kGroup = 1;
  static constexpr int kMaxVectors = 2;
  static constexpr int kRowPixels = 10;
  using Lanes = __m256i;

  // Of 16 registers: pixels x vectors for the sums, `vectors` for weights, one for the broadcast.
  static constexpr int block_pixels(int vectors) {
    return vectors == 1 ? 12 : 6;
  }
  static Vector zero() {
    return _mm256_setzero_ps();
  }
  static Vector broadcast(float x) {
    return _mm256_set1_ps(x);
  }
  static Vector load(const float* from) {
    return _mm256_loadu_ps(from);
  }
  static void store(float* to, Vector x) {
    _mm256_storeu_ps(to, x);
  }
  static Vector load_elements(const Element* from) {
    return _mm256_loadu_ps(from);
  }
  static void store_elements(Element* to, Vector x) {
    _mm256_storeu_ps(to, x);
  }
  static Element to_element(float x) {
    return x;
  }
  static Vector add(Vector x, Vector y) {
    return _mm256_add_ps(x, y);
  }
  static Vector subtract(Vector x, Vector y) {
    return _mm256_sub_ps(x, y);
  }
  static Vector multiply(Vector x, Vector y) {
    return _mm256_mul_ps(x, y);
  }
  // The instruction gives its second operand when one is NaN: written this way a NaN stays one, as in
  // PyTorch.
  static Vector max(Vector x, Vector y) {
    return _mm256_blendv_ps(_mm256_max_ps(x, y), x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  }
  static Vector relu(Vector x) {
    return _mm256_max_ps(_mm256_setzero_ps(), x);
  }
  static Doubles low(Vector x) {
    return _mm256_cvtps_pd(_mm256_castps256_ps128(x));
  }
  static Doubles high(Vector x) {
    return _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1));
  }
  static Vector broadcast_group(const Element* from) {
    return _mm256_broadcast_ss(from);
  }
  static Vector load_groups(const Element* from) {
    return _mm256_loadu_ps(from);
  }
  static Lanes load_lanes(const int32_t* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }
  static Lanes advance(Lanes lanes, int32_t by) {
    return _mm256_add_epi32(lanes, _mm256_set1_epi32(by));
  }
  static Vector shuffle(Vector x, Lanes lanes) {
    return _mm256_permutevar8x32_ps(x, lanes);
  }
  static Vector multiply_add(Vector weights, Vector window, Vector sum) {
    return _mm256_fmadd_ps(weights, window, sum);
  }
};

constexpr ElementKernels kFloat = float_kernels<Avx2Float>();
constexpr Kernels kKernels = {"avx2",  Avx2Float::kWidth, Avx2Float::kMaxVectors,
                              &kFloat, nullptr,           multiply_add<Avx2Float>};

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
