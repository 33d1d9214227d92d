// The vector types of kernels_simd.h and kernels_bytes.h for AVX2 with FMA. Included, as those are, in the
// anonymous namespace of the sources that are compiled for it, after <immintrin.h>.

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

  using Ints = __m256i;
  static Vector fused(Vector x, Vector y, Vector z) {
    return _mm256_fmadd_ps(x, y, z);
  }
  static Vector at_least(Vector x, Vector least) {
    return _mm256_max_ps(x, least);  // of NaN, the second
  }
  static Ints load_ints(const int32_t* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }
  static Ints zero_ints() {
    return _mm256_setzero_si256();
  }
  static Ints broadcast_int(int32_t x) {
    return _mm256_set1_epi32(x);
  }
  static Ints load_bytes(const uint8_t* from) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
  }
  static void store_bytes(uint8_t* to, Ints x) {
    const __m128i halves = _mm_packus_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packus_epi16(halves, halves));
  }
  static Vector to_floats(Ints x) {
    return _mm256_cvtepi32_ps(x);
  }
  // Of what is not negative. What is too large for an integer becomes the largest without a sign.
  static Ints to_bytes(Vector x) {
    return _mm256_min_epu32(_mm256_cvtps_epi32(x), _mm256_set1_epi32(255));
  }
  static Ints add_ints(Ints x, Ints y) {
    return _mm256_add_epi32(x, y);
  }
  static Ints max_ints(Ints x, Ints y) {
    return _mm256_max_epi32(x, y);
  }
  static Doubles low_ints(Ints x) {
    return _mm256_cvtepi32_pd(_mm256_castsi256_si128(x));
  }
  static Doubles high_ints(Ints x) {
    return _mm256_cvtepi32_pd(_mm256_extracti128_si256(x, 1));
  }
};

// Sums of four products of bytes, exact. Without VNNI: the instruction for pairs of bytes saturates, that for
// pairs of 16 bits does not.
struct Avx2Bytes : Avx2Float {
  static constexpr int block_pixels(int vectors) {
    return vectors == 1 ? 6 : 3;
  }
  struct Halves {
    __m256i even;
    __m256i odd;
  };
  static Halves load_weights(const int8_t* from) {
    const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return {_mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8), _mm256_srai_epi16(x, 8)};
  }
  static Halves broadcast_bytes(const uint8_t* from) {
    int32_t four;
    __builtin_memcpy(&four, from, sizeof(four));
    const __m256i x = _mm256_set1_epi32(four);
    return {_mm256_and_si256(x, _mm256_set1_epi16(255)), _mm256_srli_epi16(x, 8)};
  }
  static Ints dot(Ints sum, Halves weights, Halves window) {
    return _mm256_add_epi32(sum, _mm256_add_epi32(_mm256_madd_epi16(weights.even, window.even),
                                                  _mm256_madd_epi16(weights.odd, window.odd)));
  }
};

#if defined(__AVXVNNI__)
struct Avx2Vnni : Avx2Float {
  static Ints load_weights(const int8_t* from) {
    return load_ints(reinterpret_cast<const int32_t*>(from));
  }
  static Ints broadcast_bytes(const uint8_t* from) {
    int32_t four;
    __builtin_memcpy(&four, from, sizeof(four));
    return _mm256_set1_epi32(four);
  }
  static Ints dot(Ints sum, Ints weights, Ints window) {
    // GCC keeps a second copy of each sum in memory where it is given the intrinsic.
    asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(window), "x"(weights));
    return sum;
  }
};
#endif
