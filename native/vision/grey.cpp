#include "vision/grey.h"

#include <array>
#include <cstddef>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace senet::vision {
namespace {

constexpr int kRed = 19595;
constexpr int kGreen = 38470;
constexpr int kBlue = 7471;
constexpr int kHalfGrey = 1 << 15;

void to_grey_portable(const uint8_t* from, int64_t channels, int64_t pixels, uint8_t* to) {
  for (int64_t pixel = 0; pixel < pixels; ++pixel, from += channels) {
    to[pixel] = static_cast<uint8_t>((kRed * from[0] + kGreen * from[1] + kBlue * from[2] + kHalfGrey) >> 16);
  }
}

#if defined(__x86_64__)
#define SENET_AVX2 [[gnu::target("avx2")]]

/// Eight pixels: green counts half with red and half with blue, since its weight exceeds 16 bits.
template <int kChannels>
SENET_AVX2 inline __m256i eight_greys(const uint8_t* from, __m256i red_green, __m256i green_blue) {
  const __m256i bytes =
      _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))),
                              _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 4 * kChannels)), 1);
  static_assert(kGreen % 2 == 0);
  const __m256i sum = _mm256_add_epi32(
      _mm256_madd_epi16(_mm256_shuffle_epi8(bytes, red_green), _mm256_set1_epi32(kGreen / 2 << 16 | kRed)),
      _mm256_madd_epi16(_mm256_shuffle_epi8(bytes, green_blue), _mm256_set1_epi32(kBlue << 16 | kGreen / 2)));
  return _mm256_srli_epi32(_mm256_add_epi32(sum, _mm256_set1_epi32(kHalfGrey)), 16);
}

/// How many pixels, from the first on, it did: it reads 16 bytes from every fourth pixel on, and none beyond
/// the last.
template <int kChannels>
SENET_AVX2 int64_t to_grey_avx2(const uint8_t* from, int64_t pixels, uint8_t* to) {
  alignas(32) std::array<int8_t, 32> first;
  alignas(32) std::array<int8_t, 32> second;
  for (int i = 0; i < 32; ++i) {
    const int pixel = i % 16 / 4;
    const int channel = i % 4 / 2;
    const auto at = static_cast<size_t>(i);
    first[at] = static_cast<int8_t>(i % 2 == 0 ? pixel * kChannels + channel : -1);
    second[at] = static_cast<int8_t>(i % 2 == 0 ? pixel * kChannels + channel + 1 : -1);
  }
  const __m256i red_green = _mm256_load_si256(reinterpret_cast<const __m256i*>(first.data()));
  const __m256i green_blue = _mm256_load_si256(reinterpret_cast<const __m256i*>(second.data()));
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  int64_t pixel = 0;
  for (; (pixel + 28) * kChannels + 16 <= pixels * kChannels; pixel += 32) {
    const uint8_t* const here = from + pixel * kChannels;
    const __m256i a = eight_greys<kChannels>(here, red_green, green_blue);
    const __m256i b = eight_greys<kChannels>(here + 8 * kChannels, red_green, green_blue);
    const __m256i c = eight_greys<kChannels>(here + 16 * kChannels, red_green, green_blue);
    const __m256i d = eight_greys<kChannels>(here + 24 * kChannels, red_green, green_blue);
    const __m256i bytes = _mm256_packus_epi16(_mm256_packus_epi32(a, b), _mm256_packus_epi32(c, d));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + pixel), _mm256_permutevar8x32_epi32(bytes, order));
  }
  return pixel;
}

#undef SENET_AVX2
#endif

}  // namespace

void to_grey(const uint8_t* from, int64_t channels, int64_t pixels, uint8_t* to, Instructions instructions) {
  int64_t done = 0;
#if defined(__x86_64__)
  if (instructions == Instructions::kBest && __builtin_cpu_supports("avx2")) {
    done = channels == 3 ? to_grey_avx2<3>(from, pixels, to) : to_grey_avx2<4>(from, pixels, to);
  }
#endif
  (void)instructions;
  to_grey_portable(from + done * channels, channels, pixels - done, to + done);
}

}  // namespace senet::vision
