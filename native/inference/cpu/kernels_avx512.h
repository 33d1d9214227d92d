// The vector types of kernels_simd.h for AVX-512. Included, as that is, in the anonymous namespace of the
// sources that are compiled for it, after <immintrin.h>.

struct Avx512Float {
  using Element = float;
  using Vector = __m512;
  using Doubles = __m512d;
  static constexpr int kWidth = 16;
  static constexpr int kGroup = 1;
  static constexpr int kMaxVectors = 4;
  static constexpr int kRowPixels = 14;
  using Lanes = __m512i;

  // Of 32 registers: pixels x vectors for the sums, `vectors` for weights, one for the broadcast.
  static constexpr int block_pixels(int vectors) {
    constexpr int kPixels[] = {0, 14, 12, 8, 6};
    return kPixels[vectors];
  }
  static Vector zero() {
    return _mm512_setzero_ps();
  }
  static Vector broadcast(float x) {
    return _mm512_set1_ps(x);
  }
  static Vector load(const float* from) {
    return _mm512_loadu_ps(from);
  }
  static void store(float* to, Vector x) {
    _mm512_storeu_ps(to, x);
  }
  static Vector load_elements(const Element* from) {
    return _mm512_loadu_ps(from);
  }
  static void store_elements(Element* to, Vector x) {
    _mm512_storeu_ps(to, x);
  }
  static Element to_element(float x) {
    return x;
  }
  static Vector add(Vector x, Vector y) {
    return _mm512_add_ps(x, y);
  }
  static Vector subtract(Vector x, Vector y) {
    return _mm512_sub_ps(x, y);
  }
  static Vector multiply(Vector x, Vector y) {
    return _mm512_mul_ps(x, y);
  }
  // The instruction gives its second operand when one is NaN: written this way a NaN stays one, as in
  // PyTorch.
  static Vector max(Vector x, Vector y) {
    const __mmask16 unordered = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    return _mm512_mask_mov_ps(_mm512_max_ps(x, y), unordered, x);
  }
  static Vector relu(Vector x) {
    return _mm512_max_ps(_mm512_setzero_ps(), x);
  }
  static Doubles low(Vector x) {
    return _mm512_cvtps_pd(_mm512_castps512_ps256(x));
  }
  static Doubles high(Vector x) {
    return _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1));
  }
  static Vector broadcast_group(const Element* from) {
    return _mm512_set1_ps(*from);
  }
  static Vector load_groups(const Element* from) {
    return _mm512_loadu_ps(from);
  }
  static Lanes load_lanes(const int32_t* from) {
    return _mm512_loadu_si512(from);
  }
  static Lanes advance(Lanes lanes, int32_t by) {
    return _mm512_add_epi32(lanes, _mm512_set1_epi32(by));
  }
  static Vector shuffle(Vector x, Lanes lanes) {
    return _mm512_permutexvar_ps(lanes, x);
  }
  static Vector multiply_add(Vector weights, Vector window, Vector sum) {
    return _mm512_fmadd_ps(weights, window, sum);
  }

  using Ints = __m512i;
  static Vector fused(Vector x, Vector y, Vector z) {
    return _mm512_fmadd_ps(x, y, z);
  }
  static Vector at_least(Vector x, Vector least) {
    return _mm512_max_ps(x, least);  // of NaN, the second
  }
  static Ints load_ints(const int32_t* from) {
    return _mm512_loadu_si512(from);
  }
  static Ints zero_ints() {
    return _mm512_setzero_si512();
  }
  static Ints broadcast_int(int32_t x) {
    return _mm512_set1_epi32(x);
  }
  static Ints load_bytes(const uint8_t* from) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static void store_bytes(uint8_t* to, Ints x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(x));
  }
  static Vector to_floats(Ints x) {
    return _mm512_cvtepi32_ps(x);
  }
  // Of what is not negative. What is too large for an integer becomes the largest without a sign.
  static Ints to_bytes(Vector x) {
    return _mm512_min_epu32(_mm512_cvtps_epi32(x), _mm512_set1_epi32(255));
  }
  static Ints add_ints(Ints x, Ints y) {
    return _mm512_add_epi32(x, y);
  }
  static Ints max_ints(Ints x, Ints y) {
    return _mm512_max_epi32(x, y);
  }
  static Doubles low_ints(Ints x) {
    return _mm512_cvtepi32_pd(_mm512_castsi512_si256(x));
  }
  static Doubles high_ints(Ints x) {
    return _mm512_cvtepi32_pd(_mm512_extracti64x4_epi64(x, 1));
  }
};

// Sums of four products of bytes, exact. Without VNNI: the instruction for pairs of bytes saturates, that for
// pairs of 16 bits does not.
struct Avx512Bytes : Avx512Float {
  static constexpr int block_pixels(int vectors) {
    constexpr int kPixels[] = {0, 10, 8, 5, 4};
    return kPixels[vectors];
  }
  struct Halves {
    __m512i even;
    __m512i odd;
  };
  static Halves load_weights(const int8_t* from) {
    const __m512i x = _mm512_loadu_si512(from);
    return {_mm512_srai_epi16(_mm512_slli_epi16(x, 8), 8), _mm512_srai_epi16(x, 8)};
  }
  static Halves broadcast_bytes(const uint8_t* from) {
    int32_t four;
    __builtin_memcpy(&four, from, sizeof(four));
    const __m512i x = _mm512_set1_epi32(four);
    return {_mm512_and_si512(x, _mm512_set1_epi16(255)), _mm512_srli_epi16(x, 8)};
  }
  static Ints dot(Ints sum, Halves weights, Halves window) {
    return _mm512_add_epi32(sum, _mm512_add_epi32(_mm512_madd_epi16(weights.even, window.even),
                                                  _mm512_madd_epi16(weights.odd, window.odd)));
  }
};

#if defined(__AVX512VNNI__)
struct Avx512Vnni : Avx512Float {
  static Ints load_weights(const int8_t* from) {
    return _mm512_loadu_si512(from);
  }
  static Ints broadcast_bytes(const uint8_t* from) {
    int32_t four;
    __builtin_memcpy(&four, from, sizeof(four));
    return _mm512_set1_epi32(four);
  }
  static Ints dot(Ints sum, Ints weights, Ints window) {
    // GCC keeps a second copy of each sum in memory where it is given the intrinsic.
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(window), "v"(weights));
    return sum;
  }
};
#endif

#if defined(__AVX512BF16__)
#include "inference/cpu/kernels_bfloat16.h"

// Elements are the upper halves of floats. Each 32 bits of weights and window hold two of them.
struct Avx512Bfloat16 : Avx512Float {
  using Element = uint16_t;
  static constexpr int kGroup = 2;

  static Vector load_elements(const Element* from) {
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
  }
  static void store_elements(Element* to, Vector x) {
    const __m256bh halves = _mm512_cvtneps_pbh(x);
    __builtin_memcpy(to, &halves, sizeof(halves));
  }
  static Element to_element(float x) {
    return round_to_bfloat16(x);
  }
  static Vector broadcast_group(const Element* from) {
    int32_t pair;
    __builtin_memcpy(&pair, from, sizeof(pair));
    return _mm512_castsi512_ps(_mm512_set1_epi32(pair));
  }
  static Vector load_groups(const Element* from) {
    return _mm512_castsi512_ps(_mm512_loadu_si512(from));
  }
  static Vector multiply_add(Vector weights, Vector window, Vector sum) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(weights), reinterpret_cast<__m512bh>(window));
  }
};
#endif
