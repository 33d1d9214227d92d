// The matrix unit of kernels_tiles.h, computed: what Intel's manual says of each instruction, bit for bit.
// Included in an anonymous namespace, as that is. What the processor answers with an exception (a tile that
// was not configured, shapes that do not fit each other) ends the process.

// Of loops over tiles alone, which sanitizers would make ten times as slow; what is loaded and stored they
// see.
#define SENET_UNWATCHED __attribute__((no_sanitize("address", "undefined")))

struct EmulatedTiles {
  static constexpr int kTiles = 8;
  static constexpr int kRows = 16;
  static constexpr int kRowBytes = 64;

  struct Tile {
    int rows;
    int row_bytes;
    uint8_t bytes[kRows][kRowBytes];
  };

  static void configure(const void* configuration) {
    const auto* const from = static_cast<const uint8_t*>(configuration);
    require(from[0] == 1 && from[1] == 0);
    for (int i = 0; i < kTiles; ++i) {
      uint16_t row_bytes;
      __builtin_memcpy(&row_bytes, from + 16 + 2 * i, sizeof(row_bytes));
      const uint8_t rows = from[48 + i];
      require(rows <= kRows && row_bytes <= kRowBytes && (rows == 0) == (row_bytes == 0));
      tile(i) = {rows, row_bytes, {}};
    }
  }
  static void release() {
    for (int i = 0; i < kTiles; ++i) {
      tile(i) = {};
    }
  }
  template <int kTile>
  static void load(const void* from, int64_t pitch) {
    Tile& to = configured(kTile);
    for (int row = 0; row < to.rows; ++row) {
      __builtin_memcpy(to.bytes[row], static_cast<const uint8_t*>(from) + row * pitch,
                       static_cast<size_t>(to.row_bytes));
    }
  }
  template <int kTile>
  static void store(void* to, int64_t pitch) {
    const Tile& from = configured(kTile);
    for (int row = 0; row < from.rows; ++row) {
      __builtin_memcpy(static_cast<uint8_t*>(to) + row * pitch, from.bytes[row],
                       static_cast<size_t>(from.row_bytes));
    }
  }

  // Of each sum, the products of even elements and those of odd ones are added up apart, from zero, and then
  // to each other and to it. Denormals count as zero, and become zero.
  template <int kSums, int kWindows, int kWeights>
  SENET_UNWATCHED static void multiply_bfloat16() {
    constexpr int kColumns = kRowBytes / 4;
    Tile& sums = configured(kSums);
    const Tile& windows = configured(kWindows);
    const Tile& weights = configured(kWeights);
    require_fit(sums, windows, weights);
    float right[kRows][2][kColumns];
    for (int k = 0; k < weights.rows; ++k) {
      for (int c = 0; c < kColumns; ++c) {
        right[k][0][c] = element(weights, k, 2 * c);
        right[k][1][c] = element(weights, k, 2 * c + 1);
      }
    }
    for (int row = 0; row < sums.rows; ++row) {
      float halves[2][kColumns] = {};
      for (int k = 0; k < weights.rows; ++k) {
        for (int half = 0; half < 2; ++half) {
          const double left = static_cast<double>(element(windows, row, 2 * k + half));
          for (int c = 0; c < kColumns; ++c) {
            halves[half][c] =
                round(static_cast<double>(halves[half][c]) + left * static_cast<double>(right[k][half][c]));
          }
        }
      }
      float totals[kColumns];
      __builtin_memcpy(totals, sums.bytes[row], sizeof(totals));
      for (int c = 0; c < sums.row_bytes / 4; ++c) {
        totals[c] = flush(flush(totals[c]) + flush(halves[0][c] + halves[1][c]));
      }
      __builtin_memcpy(sums.bytes[row], totals, sizeof(totals));
    }
  }

  // Bytes without a sign times bytes with one, exact unless a sum leaves int32.
  template <int kSums, int kWindows, int kWeights>
  SENET_UNWATCHED static void multiply_bytes() {
    Tile& sums = configured(kSums);
    const Tile& windows = configured(kWindows);
    const Tile& weights = configured(kWeights);
    require_fit(sums, windows, weights);
    for (int row = 0; row < sums.rows; ++row) {
      uint32_t totals[kRowBytes / 4];
      __builtin_memcpy(totals, sums.bytes[row], sizeof(totals));
      for (int k = 0; k < weights.rows; ++k) {
        for (int c = 0; c < sums.row_bytes / 4; ++c) {
          for (int i = 0; i < 4; ++i) {
            totals[c] += static_cast<uint32_t>(static_cast<int32_t>(windows.bytes[row][4 * k + i]) *
                                               static_cast<int8_t>(weights.bytes[k][4 * c + i]));
          }
        }
      }
      __builtin_memcpy(sums.bytes[row], totals, sizeof(totals));
    }
  }

  // A sum that was computed in float64, to float32. That is one rounding: float64 has more than twice as many
  // bits, and products of bfloat16 are exact in it. What lies below the normal numbers before it is rounded
  // to their precision becomes zero.
  SENET_UNWATCHED static float round(double x) {
    constexpr double kLeast = 0x1.ffffffp-127;
    return __builtin_fabs(x) < kLeast ? static_cast<float>(__builtin_copysign(0.0, x))
                                      : static_cast<float>(x);
  }
  SENET_UNWATCHED static float flush(float x) {
    constexpr float kLeast = 0x1p-126f;
    return __builtin_fabsf(x) < kLeast ? __builtin_copysignf(0.0f, x) : x;
  }

 private:
  // A thread's own, as registers are.
  static Tile& tile(int number) {
    static thread_local Tile tiles[kTiles];
    return tiles[number];
  }
  static Tile& configured(int number) {
    Tile& result = tile(number);
    require(result.rows > 0);
    return result;
  }
  static void require(bool holds) {
    if (!holds) {
      __builtin_trap();
    }
  }
  static void require_fit(const Tile& sums, const Tile& windows, const Tile& weights) {
    require(sums.rows == windows.rows && windows.row_bytes == 4 * weights.rows &&
            sums.row_bytes == weights.row_bytes);
  }
  SENET_UNWATCHED static float element(const Tile& of, int row, int index) {
    uint16_t bits;
    __builtin_memcpy(&bits, of.bytes[row] + 2 * index, sizeof(bits));
    const uint32_t wide = static_cast<uint32_t>(bits) << 16;
    float result;
    __builtin_memcpy(&result, &wide, sizeof(result));
    return flush(result);
  }
};
