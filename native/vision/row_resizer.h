// The same resize as resize.h's for a picture that comes row by row, from the top: the whole of it is never
// there. Of what came it holds the rows that are still needed, filtered along where that is the first pass.
#pragma once

#include "vision/resize_passes.h"

#include <cstdint>
#include <vector>

namespace senet::vision {

/// One direction of a picture as it comes: `from` pixels become `to`, of which [begin, begin + length) are
/// wanted.
struct Direction {
  int64_t from;
  int64_t to;
  int64_t begin;
  int64_t length;
  /// The picture is the other way round than meant; so is the result.
  bool is_mirrored;
};

/// Rows that are taken up together, at most.
inline constexpr int64_t kRowsTogether = 16;

class RowResizer {
 public:
  /// `channels` 1, 3 or 4, interleaved. `is_down_first`: which pass is the first, which shows in the rounding
  /// between them.
  RowResizer(const Direction& down, const Direction& along, int64_t channels, Filter filter,
             bool is_down_first, Instructions instructions = Instructions::kBest);

  /// Whether so many weights are held at a time: without that, rows cannot come one after the other.
  bool is_possible() const;
  /// The next rows, `pitch` bytes apart, dense.
  void push(const uint8_t* rows, int64_t pitch, int64_t count);
  /// Bytes that it holds at most, beside the result and the weights.
  int64_t held_bytes() const;
  /// down.length x along.length x channels, once all rows came.
  const uint8_t* result() const {
    return result_.data();
  }

 private:
  void take(const Source& rows, int64_t first, int64_t count);
  void make_room(int64_t count);
  void finish_rows();
  void flush_between(int64_t end);

  int64_t channels_;
  Resizing how_;
  Span lines_;           // that the result is made of
  int64_t came_ = 0;     // rows
  int64_t made_ = 0;     // rows of the result, or of `between_` where down is first
  int64_t flushed_ = 0;  // of those that down made, how many went along
  // Rows of the first pass along, or as they came where down is first.
  std::vector<uint8_t> held_;
  int64_t held_row_;        // bytes
  int64_t held_first_ = 0;  // which row is the first
  int64_t held_count_ = 0;
  int64_t most_held_;
  std::vector<uint8_t> between_;
  std::vector<uint8_t> result_;
};

}  // namespace senet::vision
