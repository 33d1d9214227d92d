// The loops of a resize: rows filtered along, rows filtered down, for the instructions that the processor
// has. All give the same bytes.
#pragma once

#include "vision/resize_weights.h"

#include <array>
#include <cstdint>

namespace senet::vision {

/// Rows that are filtered together: a weight is read once for them.
constexpr int64_t kRows = 4;

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

struct Loops {
  void (*rows)(const RowTask&);
  int64_t row_group;  // weights of a group
  int64_t slack;      // bytes that are read behind the last group's pixels
  void (*columns)(const ColumnTask&);
  int64_t column_group;
};

Loops choose_loops(int64_t channels, Instructions instructions);

}  // namespace senet::vision
