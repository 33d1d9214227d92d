#include "vision/resize.h"

#include "core/error.h"
#include "core/names.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace senet::vision {
namespace {

/// Bits of a weight: what 32 leave for a pixel's 8 and a sum that may be twice the largest pixel, and the
/// sign.
constexpr int kBits = 32 - 8 - 2;
constexpr int32_t kHalf = 1 << (kBits - 1);
/// A product of 16 bits takes the lower bits of a weight, another one the rest.
constexpr int kLowBits = kBits / 2;
/// Rows that are filtered together: a weight is read once for them.
constexpr int64_t kRows = 4;
/// Weights that are held at a time, unless one pixel takes more.
constexpr int64_t kHeldWeights = int64_t{1} << 20;
/// Multiply-adds that are worth a thread.
constexpr int64_t kGrain = int64_t{1} << 18;

// ---- weights ----

double bilinear(double x) {
  x = std::abs(x);
  return x < 1 ? 1 - x : 0;
}

/// Keys' cubic convolution with a = -1/2.
double bicubic(double x) {
  x = std::abs(x);
  if (x < 1) {
    return (1.5 * x - 2.5) * x * x + 1;
  }
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
}

/// The source pixels that one pixel of the result is made of.
struct Span {
  int64_t first;
  int64_t count;

  int64_t end() const {
    return first + count;
  }
};

/// How `from` pixels become `to`, in one direction.
class Axis {
 public:
  Axis(int64_t from, int64_t to, Filter filter)
      : from_(from),
        to_(to),
        filter_(filter == Filter::kBilinear ? bilinear : bicubic),
        scale_(static_cast<double>(from) / static_cast<double>(to)),
        stretch_(std::max(scale_, 1.0)),
        support_((filter == Filter::kBilinear ? 1.0 : 2.0) * stretch_) {}

  bool changes() const {
    return from_ != to_;
  }
  int64_t from() const {
    return from_;
  }
  /// No span is longer.
  int64_t most_taps() const {
    return std::min(from_, 2 * static_cast<int64_t>(std::ceil(support_)) + 1);
  }
  Span span(int64_t position) const {
    const double centre = centre_of(position);
    const int64_t first = std::max<int64_t>(static_cast<int64_t>(centre - support_ + 0.5), 0);
    return {first, std::min(static_cast<int64_t>(centre + support_ + 0.5), from_) - first};
  }
  /// Weights in fixed point. Each is computed twice, which spares float64 numbers for all of them.
  void write_weights(int64_t position, int32_t* weights) const {
    const Span pixels = span(position);
    const double centre = centre_of(position);
    const double shrink = 1 / stretch_;
    const auto weight = [&](int64_t tap) {
      return filter_((static_cast<double>(tap + pixels.first) - centre + 0.5) * shrink);
    };
    double sum = 0;
    for (int64_t tap = 0; tap < pixels.count; ++tap) {
      sum += weight(tap);
    }
    for (int64_t tap = 0; tap < pixels.count; ++tap) {
      const double share = sum == 0 ? weight(tap) : weight(tap) / sum;
      weights[tap] = static_cast<int32_t>(share * (1 << kBits) + (share < 0 ? -0.5 : 0.5));
    }
  }

 private:
  double centre_of(int64_t position) const {
    return (static_cast<double>(position) + 0.5) * scale_;
  }

  int64_t from_;
  int64_t to_;
  double (*filter_)(double);
  double scale_;
  double stretch_;
  double support_;
};

/// The weights of neighbouring positions, each position's filled with zeros to whole groups of taps. A group
/// of more than one weight is split: the upper parts of its weights, then the lower ones, all of 16 bits.
class Weights {
 public:
  Weights(const Axis& axis, int64_t begin, int64_t end, int64_t group)
      : group_(group), pitch_((axis.most_taps() + group - 1) / group * group) {
    spans_.reserve(static_cast<size_t>(end - begin));
    weights_.resize(static_cast<size_t>((end - begin) * pitch_));
    for (int64_t position = begin; position < end; ++position) {
      int32_t* const weights = weights_.data() + (position - begin) * pitch_;
      spans_.push_back(axis.span(position));
      axis.write_weights(position, weights);
      for (int64_t tap = 0; group > 1 && tap < pitch_; tap += group) {
        split(weights + tap);
      }
    }
  }

  const Span& span(int64_t position) const {
    return spans_[static_cast<size_t>(position)];
  }
  const int32_t* of(int64_t position) const {
    return weights_.data() + position * pitch_;
  }
  int64_t positions() const {
    return static_cast<int64_t>(spans_.size());
  }
  /// Behind the last pixel of a position's groups.
  int64_t read_end(int64_t position) const {
    const Span& pixels = span(position);
    return pixels.first + (pixels.count + group_ - 1) / group_ * group_;
  }

 private:
  void split(int32_t* weights) const {
    std::array<int16_t, 32> parts{};
    for (int64_t i = 0; i < group_; ++i) {
      parts[static_cast<size_t>(i)] = static_cast<int16_t>(weights[i] >> kLowBits);
      parts[static_cast<size_t>(group_ + i)] = static_cast<int16_t>(weights[i] & ((1 << kLowBits) - 1));
    }
    std::memcpy(weights, parts.data(), static_cast<size_t>(group_) * sizeof(int32_t));
  }

  int64_t group_;
  int64_t pitch_;
  std::vector<Span> spans_;
  std::vector<int32_t> weights_;
};

/// Positions [begin, end) of an axis, with the weights of as many as may be held at a time.
class Pass {
 public:
  Pass(const Axis& axis, int64_t begin, int64_t end, int64_t group)
      : axis_(axis),
        begin_(begin),
        end_(end),
        group_(group),
        most_(std::max<int64_t>(1, kHeldWeights / (axis.most_taps() + group))),
        held_(axis, begin, axis.changes() ? std::min(end, begin + most_) : begin, group) {}

  const Axis& axis() const {
    return axis_;
  }
  int64_t begin() const {
    return begin_;
  }
  int64_t end() const {
    return end_;
  }
  /// The pixels that all of them are made of.
  Span span() const {
    const int64_t first = axis_.changes() ? axis_.span(begin_).first : begin_;
    return {first, (axis_.changes() ? axis_.span(end_ - 1).end() : end_) - first};
  }
  /// Calls `body` with the weights of some positions after the others, and how many came before.
  template <typename Body>
  void for_each(const Body& body) const {
    body(held_, 0);
    for (int64_t first = begin_ + most_; first < end_; first += most_) {
      body(Weights(axis_, first, std::min(end_, first + most_), group_), first - begin_);
    }
  }

 private:
  Axis axis_;
  int64_t begin_;
  int64_t end_;
  int64_t group_;
  int64_t most_;
  Weights held_;
};

// ---- loops ----

/// Positions [begin, end) of `weights` along some rows.
struct RowTask {
  const Weights* weights;
  int64_t begin;
  int64_t end;
  int64_t rows;                            // 1 to kRows; the pointers of others are the last one's
  int64_t origin;                          // column that `from` points to
  std::array<const uint8_t*, kRows> from;  // to be read to the end of each position's groups
  std::array<uint8_t*, kRows> to;          // position 0
};

/// One row of the result out of rows `pitch` apart.
struct ColumnTask {
  const int32_t* weights;
  int64_t taps;
  const uint8_t* from;
  int64_t pitch;
  uint8_t* to;
  int64_t bytes;
};

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

struct Loops {
  void (*rows)(const RowTask&);
  int64_t row_group;  // weights of a group
  int64_t slack;      // bytes that are read behind the last group's pixels
  void (*columns)(const ColumnTask&);
  int64_t column_group;
};

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

// ---- passes ----

/// Rows of pixels whose channels lie side by side: the whole of an image, or one of its channels.
template <typename Byte>
struct Plane {
  Byte* data;
  int64_t row;     // bytes from one row to the next
  int64_t column;  // and from one pixel to the next
  int64_t channels;

  bool is_dense() const {
    return column == channels;
  }
};
using Source = Plane<const uint8_t>;
using Target = Plane<uint8_t>;  // dense

/// Columns [begin, end) of some rows, one after the other.
void copy_columns(const Source& from, int64_t row, int64_t begin, int64_t end, uint8_t* to) {
  const uint8_t* pixel = from.data + row * from.row + begin * from.column;
  if (from.is_dense()) {
    std::memcpy(to, pixel, static_cast<size_t>((end - begin) * from.channels));
    return;
  }
  for (int64_t column = begin; column < end; ++column, pixel += from.column) {
    *to++ = *pixel;  // of more channels than one the pixels are dense
  }
}

int64_t grain_of(int64_t work) {
  return std::max<int64_t>(1, kGrain / std::max<int64_t>(1, work));
}

struct Resizing {
  Pass down;   // the columns
  Pass along;  // the rows
  Loops loops;
  bool is_down_first;  // else along first
};

/// `lines` of `from`, along.
void filter_rows(const Resizing& how, const Source& from, const Span& lines, const Target& to) {
  const Loops& loops = how.loops;
  const int64_t width = how.along.axis().from();
  how.along.for_each([&](const Weights& weights, int64_t before) {
    // Positions from `inner` on would read beyond their row: its end is copied, with zeros behind it.
    int64_t inner = 0;
    const auto fits = [&](int64_t position) {
      return weights.read_end(position) * from.channels + loops.slack <= width * from.channels;
    };
    while (from.is_dense() && inner < weights.positions() && fits(inner)) {
      ++inner;
    }
    const bool has_copy = inner < weights.positions();
    const int64_t origin = has_copy ? weights.span(inner).first : width;
    const int64_t copied = (width - origin + loops.row_group) * from.channels + loops.slack;
    const int64_t blocks = (lines.count + kRows - 1) / kRows;
    const int64_t work = kRows * weights.positions() * how.along.axis().most_taps() * from.channels;
    at::parallel_for(0, blocks, grain_of(work), [&](int64_t first_block, int64_t last_block) {
      std::vector<uint8_t> copies(has_copy ? static_cast<size_t>(std::min(kRows, lines.count) * copied) : 0);
      for (int64_t block = first_block; block < last_block; ++block) {
        RowTask inside{&weights, 0, inner, std::min(kRows, lines.count - block * kRows), 0, {}, {}};
        RowTask beyond{&weights, inner, weights.positions(), inside.rows, origin, {}, {}};
        for (int64_t i = 0; i < kRows; ++i) {
          const int64_t place = std::min(i, inside.rows - 1);
          const int64_t row = block * kRows + place;
          const auto at = static_cast<size_t>(i);
          inside.from[at] = from.data + (lines.first + row) * from.row;
          inside.to[at] = to.data + row * to.row + before * to.column;
          beyond.to[at] = inside.to[at];
          beyond.from[at] = copies.data() + (has_copy ? place * copied : 0);
          if (has_copy && i == place) {
            copy_columns(from, lines.first + row, origin, width, copies.data() + place * copied);
          }
        }
        loops.rows(inside);
        loops.rows(beyond);
      }
    });
  });
}

/// `bytes` columns of rows, down; `from` is the first that is needed.
void filter_columns(const Resizing& how, const uint8_t* from, int64_t pitch, int64_t bytes,
                    const Target& to) {
  const int64_t first = how.down.span().first;
  how.down.for_each([&](const Weights& weights, int64_t before) {
    const int64_t grain = grain_of(how.down.axis().most_taps() * bytes);
    at::parallel_for(0, weights.positions(), grain, [&](int64_t first_row, int64_t last_row) {
      for (int64_t row = first_row; row < last_row; ++row) {
        const Span& pixels = weights.span(row);
        how.loops.columns({weights.of(row), pixels.count, from + (pixels.first - first) * pitch, pitch,
                           to.data + (before + row) * to.row, bytes});
      }
    });
  });
}

/// Rows `lines` of `from` in the window's columns.
void make_rows(const Resizing& how, const Source& from, const Span& lines, const Target& to) {
  if (how.along.axis().changes()) {
    filter_rows(how, from, lines, to);
    return;
  }
  for (int64_t row = 0; row < lines.count; ++row) {
    copy_columns(from, lines.first + row, how.along.begin(), how.along.end(), to.data + row * to.row);
  }
}

void resize_plane(const Resizing& how, const Source& from, const Target& to) {
  const Span lines = how.down.span();
  const int64_t left = how.along.begin();
  const int64_t bytes = (how.along.end() - left) * to.column;
  at::Tensor memory;
  const auto rows_between = [&](int64_t rows, int64_t row_bytes) {
    memory = at::empty({rows, row_bytes}, at::kByte);
    return Target{memory.mutable_data_ptr<uint8_t>(), row_bytes, to.column, to.channels};
  };
  if (!how.down.axis().changes()) {
    make_rows(how, from, lines, to);
  } else if (!how.along.axis().changes() && from.is_dense()) {
    const uint8_t* const first = from.data + lines.first * from.row + left * from.column;
    filter_columns(how, first, from.row, bytes, to);
  } else if (how.is_down_first) {
    const int64_t rows = how.down.end() - how.down.begin();
    const Target between = rows_between(rows, how.along.axis().from() * to.column);
    filter_columns(how, from.data + lines.first * from.row, from.row, between.row, between);
    make_rows(how, {between.data, between.row, between.column, between.channels}, {0, rows}, to);
  } else {
    const Target between = rows_between(lines.count, bytes);
    make_rows(how, from, lines, between);
    filter_columns(how, between.data, between.row, bytes, to);
  }
}

void check(const at::Tensor& images, int64_t height, int64_t width, const Rectangle& window) {
  if (images.scalar_type() != at::kByte) {
    throw Error("ERR_SENET_DTYPE",
                std::string("resize: expected uint8 images, got ") + dtype_name(images.scalar_type()));
  }
  if (!images.is_cpu() || images.layout() != at::kStrided) {
    throw Error("ERR_SENET_DEVICE",
                "resize: expected uint8 images on cpu, got them on " + device_name(images.device()));
  }
  constexpr int64_t kMostSide = INT32_MAX;
  const auto is_side = [](int64_t side) { return side >= 1 && side <= kMostSide; };
  const bool is_shaped = images.dim() == 4 && is_side(images.size(2)) && is_side(images.size(3));
  if (!is_shaped) {
    throw Error("ERR_SENET_SHAPE",
                "resize: expected images of N x C x H x W with pixels, got " + shape_text(images.sizes()));
  }
  const auto is_within = [](int64_t start, int64_t length, int64_t whole) {
    return start >= 0 && length >= 1 && start <= whole && length <= whole - start;
  };
  if (!is_side(height) || !is_side(width) || !is_within(window.top, window.height, height) ||
      !is_within(window.left, window.width, width)) {
    throw Error("ERR_SENET_ARG_RANGE", "resize: expected a part of an image of at least a pixel, got " +
                                           shape_text({window.height, window.width}) + " from " +
                                           shape_text({window.top, window.left}) + " on of " +
                                           shape_text({height, width}));
  }
}

}  // namespace

Filter parse_filter(std::string_view name) {
  if (name == "bilinear") {
    return Filter::kBilinear;
  }
  if (name == "bicubic") {
    return Filter::kBicubic;
  }
  throw Error("ERR_SENET_ARG_RANGE", "interpolation: expected bilinear or bicubic, got " + std::string(name));
}

at::Tensor resize(const at::Tensor& images, int64_t height, int64_t width, const Rectangle& window,
                  Filter filter, Instructions instructions) {
  check(images, height, width, window);
  const int64_t channels = images.size(1);
  const bool is_column = images.size(3) == 1;  // whose stride says nothing
  const bool is_interleaved = (channels == 3 || channels == 4) && images.stride(1) == 1 &&
                              (is_column || images.stride(3) == channels);
  const int64_t together = is_interleaved ? channels : 1;
  const int64_t column = is_column ? together : images.stride(3);
  // Pillow's order, which shows in the rounding between the passes.
  const bool is_down_first = images.size(2) > 100 * images.size(3) && height < images.size(2);
  if (is_down_first && column != together) {
    return resize(images.contiguous(), height, width, window, filter, instructions);
  }
  at::Tensor result =
      at::empty({images.size(0), channels, window.height, window.width},
                at::TensorOptions().dtype(at::kByte).memory_format(
                    is_interleaved ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous));
  const Loops loops = choose_loops(together, instructions);
  const Resizing how{
      Pass({images.size(2), height, filter}, window.top, window.top + window.height, loops.column_group),
      Pass({images.size(3), width, filter}, window.left, window.left + window.width, loops.row_group), loops,
      is_down_first};
  const auto* const from = images.const_data_ptr<uint8_t>();
  auto* const to = result.mutable_data_ptr<uint8_t>();
  const int64_t planes = channels / together;
  // One plane has all threads; of more, each has one.
  at::parallel_for(0, images.size(0) * planes, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t image = i / planes;
      const int64_t channel = i % planes;
      resize_plane(
          how,
          {from + image * images.stride(0) + channel * images.stride(1), images.stride(2), column, together},
          {to + i * window.height * window.width * together, window.width * together, together, together});
    }
  });
  return result;
}

}  // namespace senet::vision
