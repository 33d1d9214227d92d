#include "vision/resize_loops.h"

#include <algorithm>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace senet::vision {
namespace {

constexpr int kBits = kWeightBits;
constexpr int32_t kHalf = 1 << (kBits - 1);

/// Sums wrap: where there are so many weights that rounding makes theirs exceed 1 by far, as Pillow's do.
uint8_t to_byte(uint32_t sum) {
  return static_cast<uint8_t>(std::clamp(static_cast<int32_t>(sum + kHalf) >> kBits, 0, 255));
}

template <int kChannels>
void filter_rows_portable(const RowTask& task) {
  for (int64_t row = 0; row < task.rows; ++row) {
    const auto at = static_cast<size_t>(row);
    for (int64_t position = task.begin; position < task.end; ++position) {
      const Span& pixels = task.weights->span(position);
      const int32_t* const weights = task.weights->of(position);
      const uint8_t* from = task.from[at] + (pixels.first - task.origin) * kChannels;
      std::array<uint32_t, kChannels> sums{};
      for (int64_t tap = 0; tap < pixels.count; ++tap, from += kChannels) {
        for (size_t channel = 0; channel < kChannels; ++channel) {
          sums[channel] += static_cast<uint32_t>(weights[tap]) * from[channel];
        }
      }
      for (size_t channel = 0; channel < kChannels; ++channel) {
        task.to[at][position * kChannels + static_cast<int64_t>(channel)] = to_byte(sums[channel]);
      }
    }
  }
}

void filter_columns_portable(const ColumnTask& task) {
  constexpr int64_t kTogether = 64;
  for (int64_t begin = 0; begin < task.bytes; begin += kTogether) {
    const int64_t count = std::min(kTogether, task.bytes - begin);
    std::array<uint32_t, kTogether> sums{};
    for (int64_t tap = 0; tap < task.taps; ++tap) {
      const uint8_t* const from = task.from + tap * task.pitch + begin;
      for (int64_t i = 0; i < count; ++i) {
        sums[static_cast<size_t>(i)] += static_cast<uint32_t>(task.weights[tap]) * from[i];
      }
    }
    for (int64_t i = 0; i < count; ++i) {
      task.to[begin + i] = to_byte(sums[static_cast<size_t>(i)]);
    }
  }
}

#if defined(__x86_64__)
// Two multiplications of 16 bits, which add neighbouring products, stand for one of 32 bits. A function with
// a target holds no lambda: that would be compiled without it.
#define SENET_AVX2 [[gnu::target("avx2")]]

SENET_AVX2 inline __m256i join(__m256i upper, __m256i lower) {
  return _mm256_add_epi32(_mm256_slli_epi32(upper, kLowBits), lower);
}

/// Row after row: left to itself GCC begins with all of them, and has too few registers for that.
SENET_AVX2 inline void keep_order(__m256i& upper, __m256i& lower) {
  asm volatile("" : "+x"(upper), "+x"(lower));
}

SENET_AVX2 inline __m128i round_sums(__m128i sums) {
  return _mm_srai_epi32(_mm_add_epi32(sums, _mm_set1_epi32(kHalf)), kBits);
}

SENET_AVX2 inline __m128i add_halves(__m256i x) {
  return _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
}

/// Interleaved pixels of 3 or 4 channels: four at a time, as pairs of a channel's values.
template <int kChannels>
SENET_AVX2 void filter_rows_avx2(const RowTask& task) {
  constexpr int64_t kGroup = 4;
  alignas(32) std::array<int8_t, 32> order;
  for (int i = 0; i < 32; ++i) {
    const int channel = i % 16 / 4;
    const int pixel = i / 16 * 2 + i % 4 / 2;
    const bool is_value = i % 2 == 0 && channel < kChannels;
    order[static_cast<size_t>(i)] = static_cast<int8_t>(is_value ? pixel * kChannels + channel : -1);
  }
  const __m256i shuffle = _mm256_load_si256(reinterpret_cast<const __m256i*>(order.data()));
  const __m256i upper_pairs = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
  const __m256i lower_pairs = _mm256_setr_epi32(2, 2, 2, 2, 3, 3, 3, 3);
  for (int64_t position = task.begin; position < task.end; ++position) {
    const Span& pixels = task.weights->span(position);
    const int32_t* weights = task.weights->of(position);
    int64_t offset = (pixels.first - task.origin) * kChannels;
    __m256i upper[kRows];
    __m256i lower[kRows];
    for (int row = 0; row < kRows; ++row) {
      upper[row] = _mm256_setzero_si256();
      lower[row] = _mm256_setzero_si256();
    }
    for (int64_t tap = 0; tap < pixels.count; tap += kGroup, offset += kGroup * kChannels) {
      const __m256i parts =
          _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(weights + tap)));
      const __m256i upper_weights = _mm256_permutevar8x32_epi32(parts, upper_pairs);
      const __m256i lower_weights = _mm256_permutevar8x32_epi32(parts, lower_pairs);
      for (int row = 0; row < kRows; ++row) {
        const auto* const from =
            reinterpret_cast<const __m128i*>(task.from[static_cast<size_t>(row)] + offset);
        const __m256i values =
            _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(from)), shuffle);
        upper[row] = _mm256_add_epi32(upper[row], _mm256_madd_epi16(values, upper_weights));
        lower[row] = _mm256_add_epi32(lower[row], _mm256_madd_epi16(values, lower_weights));
        keep_order(upper[row], lower[row]);
      }
    }
    __m128i sums[kRows];
    for (int row = 0; row < kRows; ++row) {
      sums[row] = round_sums(add_halves(join(upper[row], lower[row])));
    }
    alignas(16) std::array<uint8_t, 16> bytes;
    _mm_store_si128(reinterpret_cast<__m128i*>(bytes.data()),
                    _mm_packus_epi16(_mm_packs_epi32(sums[0], sums[1]), _mm_packs_epi32(sums[2], sums[3])));
    for (size_t row = 0; row < kRows; ++row) {
      std::memcpy(task.to[row] + position * kChannels, bytes.data() + 4 * row, kChannels);
    }
  }
}

/// One channel: sixteen pixels at a time.
template <>
SENET_AVX2 void filter_rows_avx2<1>(const RowTask& task) {
  constexpr int64_t kGroup = 16;
  for (int64_t position = task.begin; position < task.end; ++position) {
    const Span& pixels = task.weights->span(position);
    const int32_t* weights = task.weights->of(position);
    const int64_t offset = pixels.first - task.origin;
    __m256i upper[kRows];
    __m256i lower[kRows];
    for (int row = 0; row < kRows; ++row) {
      upper[row] = _mm256_setzero_si256();
      lower[row] = _mm256_setzero_si256();
    }
    for (int64_t tap = 0; tap < pixels.count; tap += kGroup) {
      const auto* const parts = reinterpret_cast<const __m256i*>(weights + tap);
      const __m256i upper_weights = _mm256_loadu_si256(parts);
      const __m256i lower_weights = _mm256_loadu_si256(parts + 1);
      for (int row = 0; row < kRows; ++row) {
        const auto* const from =
            reinterpret_cast<const __m128i*>(task.from[static_cast<size_t>(row)] + offset + tap);
        const __m256i values = _mm256_cvtepu8_epi16(_mm_loadu_si128(from));
        upper[row] = _mm256_add_epi32(upper[row], _mm256_madd_epi16(values, upper_weights));
        lower[row] = _mm256_add_epi32(lower[row], _mm256_madd_epi16(values, lower_weights));
        keep_order(upper[row], lower[row]);
      }
    }
    const __m256i first_two = _mm256_hadd_epi32(join(upper[0], lower[0]), join(upper[1], lower[1]));
    const __m256i last_two = _mm256_hadd_epi32(join(upper[2], lower[2]), join(upper[3], lower[3]));
    const __m128i sums = round_sums(add_halves(_mm256_hadd_epi32(first_two, last_two)));
    const __m128i packed = _mm_packus_epi16(_mm_packs_epi32(sums, sums), sums);
    const auto bytes = static_cast<uint32_t>(_mm_cvtsi128_si32(packed));
    for (size_t row = 0; row < kRows; ++row) {
      task.to[row][position] = static_cast<uint8_t>(bytes >> (8 * row));
    }
  }
}

constexpr int64_t kVector = 32;

/// 32 bytes, or fewer in a vector of zeros.
template <bool kIsWhole>
SENET_AVX2 inline __m256i load_bytes(const uint8_t* from, int64_t count) {
  if constexpr (kIsWhole) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }
  alignas(kVector) std::array<uint8_t, kVector> bytes{};
  std::memcpy(bytes.data(), from, static_cast<size_t>(count));
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(bytes.data()));
}

template <bool kIsWhole>
SENET_AVX2 inline void filter_columns_of(const ColumnTask& task, int64_t begin) {
  const __m256i zero = _mm256_setzero_si256();
  __m256i upper[4] = {zero, zero, zero, zero};
  __m256i lower[4] = {zero, zero, zero, zero};
  const uint8_t* const from = task.from + begin;
  for (int64_t tap = 0; tap < task.taps; tap += 2) {
    const int64_t next = std::min(tap + 1, task.taps - 1);  // its weight is 0 where it is the same row
    const __m256i first = load_bytes<kIsWhole>(from + tap * task.pitch, task.bytes);
    const __m256i second = load_bytes<kIsWhole>(from + next * task.pitch, task.bytes);
    const __m256i upper_weights = _mm256_set1_epi32(task.weights[tap]);
    const __m256i lower_weights = _mm256_set1_epi32(task.weights[tap + 1]);
    const __m256i low = _mm256_unpacklo_epi8(first, second);
    const __m256i high = _mm256_unpackhi_epi8(first, second);
    const __m256i pairs[4] = {_mm256_unpacklo_epi8(low, zero), _mm256_unpackhi_epi8(low, zero),
                              _mm256_unpacklo_epi8(high, zero), _mm256_unpackhi_epi8(high, zero)};
    for (int i = 0; i < 4; ++i) {
      upper[i] = _mm256_add_epi32(upper[i], _mm256_madd_epi16(pairs[i], upper_weights));
      lower[i] = _mm256_add_epi32(lower[i], _mm256_madd_epi16(pairs[i], lower_weights));
    }
  }
  __m256i sums[4];
  for (int i = 0; i < 4; ++i) {
    const __m256i sum = _mm256_add_epi32(join(upper[i], lower[i]), _mm256_set1_epi32(kHalf));
    sums[i] = _mm256_srai_epi32(sum, kBits);
  }
  const __m256i bytes =
      _mm256_packus_epi16(_mm256_packs_epi32(sums[0], sums[1]), _mm256_packs_epi32(sums[2], sums[3]));
  if constexpr (kIsWhole) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(task.to + begin), bytes);
  } else {
    alignas(kVector) std::array<uint8_t, kVector> stored;
    _mm256_store_si256(reinterpret_cast<__m256i*>(stored.data()), bytes);
    std::memcpy(task.to, stored.data(), static_cast<size_t>(task.bytes));
  }
}

SENET_AVX2 void filter_columns_avx2(const ColumnTask& task) {
  if (task.bytes < kVector) {
    filter_columns_of<false>(task, 0);
    return;
  }
  for (int64_t begin = 0; begin + kVector <= task.bytes; begin += kVector) {
    filter_columns_of<true>(task, begin);
  }
  if (task.bytes % kVector != 0) {
    filter_columns_of<true>(task, task.bytes - kVector);  // some of them again
  }
}

#undef SENET_AVX2
#endif

}  // namespace

Loops choose_loops(int64_t channels, Instructions instructions) {
#if defined(__x86_64__)
  if (instructions == Instructions::kBest && __builtin_cpu_supports("avx2")) {
    if (channels == 1) {
      return {filter_rows_avx2<1>, 16, 0, filter_columns_avx2, 2};
    }
    if (channels == 3) {
      return {filter_rows_avx2<3>, 4, 4, filter_columns_avx2, 2};
    }
    return {filter_rows_avx2<4>, 4, 0, filter_columns_avx2, 2};
  }
#endif
  (void)instructions;
  const auto rows = channels == 1   ? filter_rows_portable<1>
                    : channels == 3 ? filter_rows_portable<3>
                                    : filter_rows_portable<4>;
  return {rows, 1, 0, filter_columns_portable, 1};
}

}  // namespace senet::vision
