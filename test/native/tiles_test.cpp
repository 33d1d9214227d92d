// The matrix unit: what the emulation computes against the manual's definition in single operations, and
// against AMX where there is one; the walk over windows; and what is said of a unit that may not be used.
// Convolutions and programs by tiles are variants of the other tests.
#include "support.h"

#include "inference/cpu/matrix_unit.h"

#include <cerrno>
#include <cmath>
#include <cstring>
#include <limits>

namespace senet::test {
namespace {

#include "inference/cpu/tile_emulation.h"
#if defined(__x86_64__)
#include "inference/cpu/tile_unit.h"
#endif

using namespace inference;

constexpr int kMostRows = 16;
constexpr int kRowBytes = 64;

struct TileShape {
  int rows;  // of the sums
  int columns;
  int step_bytes;
};

// The operands of one multiplication: tiles 0 to 2 of `shape`.
struct TileProduct {
  TileShape shape;
  uint8_t sums[kMostRows * kRowBytes] = {};
  uint8_t windows[kMostRows * kRowBytes] = {};
  uint8_t weights[kMostRows * kRowBytes] = {};
};

template <class Unit, bool kIsBytes>
std::vector<uint8_t> multiply(const TileProduct& of) {
  uint8_t configuration[64] = {1};
  const auto set = [&](int tile, int rows, int row_bytes) {
    configuration[16 + 2 * tile] = static_cast<uint8_t>(row_bytes);
    configuration[48 + tile] = static_cast<uint8_t>(rows);
  };
  set(0, of.shape.rows, 4 * of.shape.columns);
  set(1, of.shape.rows, of.shape.step_bytes);
  set(2, of.shape.step_bytes / 4, 4 * of.shape.columns);
  Unit::configure(configuration);
  Unit::template load<0>(of.sums, kRowBytes);
  Unit::template load<1>(of.windows, kRowBytes);
  Unit::template load<2>(of.weights, kRowBytes);
  if constexpr (kIsBytes) {
    Unit::template multiply_bytes<0, 1, 2>();
  } else {
    Unit::template multiply_bfloat16<0, 1, 2>();
  }
  std::vector<uint8_t> result(sizeof(of.sums), 0);
  Unit::template store<0>(result.data(), kRowBytes);
  Unit::release();
  return result;
}

template <class T>
T read_from(const uint8_t* from, int row, int index) {
  T result;
  std::memcpy(&result, from + row * kRowBytes + index * static_cast<int>(sizeof(T)), sizeof(T));
  return result;
}

float bfloat16(const uint8_t* from, int row, int index) {
  const uint32_t bits = static_cast<uint32_t>(read_from<uint16_t>(from, row, index)) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof(result));
  return std::fpclassify(result) == FP_SUBNORMAL ? std::copysign(0.0f, result) : result;
}

float flushed(float x) {
  return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x;
}

// A number of bfloat16 or float32 with any exponent, or one that is special.
uint32_t draw_bits(Random& random, bool wide) {
  const auto sign = static_cast<uint32_t>(random.between(0, 1)) << 31;
  const auto mantissa = static_cast<uint32_t>(random.between(0, (1 << 23) - 1));
  const auto exponent = static_cast<uint32_t>(wide ? random.between(0, 255) : random.between(119, 135));
  return sign | exponent << 23 | mantissa;
}

TileProduct draw_product(Random& random, bool is_bytes, bool wide) {
  TileProduct of;
  of.shape = {static_cast<int>(random.between(1, 16)), static_cast<int>(random.between(1, 16)),
              static_cast<int>(4 * random.between(1, 16))};
  for (size_t i = 0; i < sizeof(of.sums); i += 4) {
    const uint32_t sum =
        is_bytes ? static_cast<uint32_t>(random.between(-1000000, 1000000)) : draw_bits(random, wide);
    std::memcpy(of.sums + i, &sum, sizeof(sum));
    for (size_t half = 0; half < 4; half += 2) {
      for (uint8_t* operand : {of.windows, of.weights}) {
        const auto element = static_cast<uint16_t>(
            is_bytes ? random.between(0, 65535) : static_cast<int64_t>(draw_bits(random, wide) >> 16));
        std::memcpy(operand + i + half, &element, sizeof(element));
      }
    }
  }
  return of;
}

bool is_same_float(float left, float right) {
  return (std::isnan(left) && std::isnan(right)) || std::memcmp(&left, &right, sizeof(left)) == 0;
}

TEST_CASE("tiles: the emulation multiplies bfloat16 as the manual says") {
  for_each_drawn(8100, 200, [](Random& random, int i) {
    const TileProduct of = draw_product(random, /*is_bytes=*/false, /*wide=*/i % 2 == 0);
    const std::vector<uint8_t> found = multiply<EmulatedTiles, false>(of);
    for (int row = 0; row < of.shape.rows; ++row) {
      for (int column = 0; column < of.shape.columns; ++column) {
        float halves[2] = {0.0f, 0.0f};
        for (int k = 0; k < of.shape.step_bytes / 4; ++k) {
          for (int half = 0; half < 2; ++half) {
            halves[half] = flushed(std::fma(bfloat16(of.windows, row, 2 * k + half),
                                            bfloat16(of.weights, k, 2 * column + half), halves[half]));
          }
        }
        const float expected =
            flushed(flushed(read_from<float>(of.sums, row, column)) + flushed(halves[0] + halves[1]));
        const float got = read_from<float>(found.data(), row, column);
        REQUIRE_MESSAGE(is_same_float(got, expected), "row ", row, ", column ", column, ": ", got, " is not ",
                        expected);
      }
    }
  });
}

TEST_CASE("tiles: the emulation multiplies bytes exactly") {
  for_each_drawn(8200, 200, [](Random& random, int) {
    const TileProduct of = draw_product(random, /*is_bytes=*/true, /*wide=*/false);
    const std::vector<uint8_t> found = multiply<EmulatedTiles, true>(of);
    for (int row = 0; row < of.shape.rows; ++row) {
      for (int column = 0; column < of.shape.columns; ++column) {
        int64_t expected = read_from<int32_t>(of.sums, row, column);
        for (int k = 0; k < of.shape.step_bytes; ++k) {
          expected += static_cast<int64_t>(read_from<uint8_t>(of.windows, row, k)) *
                      read_from<int8_t>(of.weights, k / 4, 4 * column + k % 4);
        }
        REQUIRE(read_from<int32_t>(found.data(), row, column) == expected);
      }
    }
  });
}

TEST_CASE("tiles: the emulation gives the bits of the processor's unit") {
#if defined(__x86_64__)
  for (const bool is_bytes : {false, true}) {
    const std::string name = is_bytes ? "int8" : "bfloat16";
    if (!(is_bytes ? matrix_unit().has_int8 : matrix_unit().has_bfloat16)) {
      MESSAGE("SKIPPED: ", name, ": this processor has no matrix unit, or its use is refused");
      continue;
    }
    for_each_drawn(8300, 200, [&](Random& random, int i) {
      const TileProduct of = draw_product(random, is_bytes, i % 2 == 0);
      const auto found = is_bytes ? multiply<EmulatedTiles, true>(of) : multiply<EmulatedTiles, false>(of);
      const auto expected = is_bytes ? multiply<AmxTiles, true>(of) : multiply<AmxTiles, false>(of);
      for (int row = 0; row < of.shape.rows; ++row) {
        for (int column = 0; column < of.shape.columns; ++column) {
          const bool is_alike = is_bytes ? read_from<int32_t>(found.data(), row, column) ==
                                               read_from<int32_t>(expected.data(), row, column)
                                         : is_same_float(read_from<float>(found.data(), row, column),
                                                         read_from<float>(expected.data(), row, column));
          REQUIRE_MESSAGE(is_alike, name, ": row ", row, ", column ", column);
        }
      }
    });
  }
#else
  MESSAGE("SKIPPED: another kind of processor");
#endif
}

TEST_CASE("tiles: the emulation rounds once, and makes zero of what is below the normal numbers") {
  const double least = std::numeric_limits<float>::min();
  CHECK(is_same_float(EmulatedTiles::round(least), std::numeric_limits<float>::min()));
  CHECK(is_same_float(EmulatedTiles::round(least * (1 - 0x1p-26)), std::numeric_limits<float>::min()));
  CHECK(is_same_float(EmulatedTiles::round(least * (1 - 0x1p-24)), 0.0f));
  CHECK(is_same_float(EmulatedTiles::round(-least / 2), -0.0f));
  CHECK(is_same_float(EmulatedTiles::round(1e39), std::numeric_limits<float>::infinity()));
  CHECK(is_same_float(EmulatedTiles::flush(-1e-40f), -0.0f));
  CHECK(std::isnan(EmulatedTiles::round(std::nan(""))));
}

TEST_CASE("tiles: plans") {
  const auto plan = [](int64_t row, int64_t column, int64_t width, int64_t height, int64_t tap_length,
                       int64_t element_bytes) {
    ConvTask task{};
    task.input_strides = {row, column};
    task.width = width;
    task.tap_length = tap_length;
    return plan_tiles(task, height, element_bytes);
  };
  const auto check = [](const TileRuns& runs, int64_t step_bytes, int64_t length, int64_t pitch) {
    CHECK(runs.step_bytes == step_bytes);
    CHECK(runs.length == length);
    CHECK(runs.pitch == pitch);
  };
  // Without a border, all of the image is one run.
  check(plan(56 * 64, 64, 56, 56, 64, 2), 64, 56 * 56, 56);
  // With one of a pixel on each side, too: two windows of a row are computed for nothing.
  check(plan(9 * 512, 512, 7, 7, 3 * 512, 2), 64, 6 * 9 + 7, 9);
  // Where that is more than a row wastes, each row is a run.
  check(plan(2 * 58 * 64, 2 * 64, 28, 28, 3 * 64, 2), 64, 28, 0);
  // Steps are as long as they can be and divide a tap: 48 channels, 80, the image's four.
  check(plan(32 * 48, 48, 32, 32, 48, 2), 48, 32 * 32, 32);
  check(plan(32 * 80, 80, 32, 32, 80, 2), 40, 32 * 32, 32);
  check(plan(2 * 230 * 4, 2 * 4, 112, 112, 7 * 4, 2), 56, 112, 0);
  check(plan(32 * 80, 80, 32, 32, 80, 1), 40, 32 * 32, 32);
  // Few windows, and short steps, are for vectors.
  check(plan(3 * 64, 64, 3, 5, 64, 2), 0, 0, 0);
  check(plan(32 * 4, 4, 32, 32, 4, 2), 0, 0, 0);
  check(plan(32 * 68, 68, 32, 32, 68, 1), 0, 0, 0);
  // Rows that are no whole number of windows apart.
  check(plan(2 * 16 * 16, 3 * 16, 5, 7, 16, 2), 0, 0, 0);
  check(plan(41 * 16, 2 * 16, 20, 7, 16, 2), 32, 20, 0);
}

TEST_CASE("tiles: a unit that is there and one that may not be used") {
  const auto grant = []() -> int { return 0; };
  constexpr uint32_t kAll = 1u << 22 | 1u << 24 | 1u << 25;
  const MatrixUnit all = find_matrix_unit(kAll, grant);
  CHECK((all.has_bfloat16 && all.has_int8 && all.refusal.empty()));
  const MatrixUnit only_bytes = find_matrix_unit(kAll & ~(1u << 22), grant);
  CHECK((!only_bytes.has_bfloat16 && only_bytes.has_int8 && only_bytes.refusal.empty()));
  const MatrixUnit refused = find_matrix_unit(kAll, []() -> int { return EPERM; });
  CHECK((!refused.has_bfloat16 && !refused.has_int8));
  CHECK(refused.refusal == text("the system refuses its use (arch_prctl: ", std::strerror(EPERM), ")"));
  // Without tiles nobody is asked.
  const MatrixUnit none = find_matrix_unit(1u << 22, []() -> int {
    FAIL("the system was asked");
    return 0;
  });
  CHECK((!none.has_bfloat16 && !none.has_int8 && none.refusal.empty()));
}

}  // namespace
}  // namespace senet::test
