// The two passes of a resize over rows that lie in memory; resize.h says what they compute.
#pragma once

#include "vision/resize_loops.h"

#include <cstdint>

namespace senet::vision {

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

struct Resizing {
  Pass down;   // the columns
  Pass along;  // the rows
  Loops loops;
  bool is_down_first;  // else along first
};

/// A side that a picture may have.
inline bool is_side(int64_t side) {
  return side >= 1 && side <= INT32_MAX;
}

/// Whether a part of at least a pixel lies in the whole.
inline bool is_within(int64_t start, int64_t length, int64_t whole) {
  return start >= 0 && length >= 1 && start <= whole && length <= whole - start;
}

/// Pillow's order of the passes, which shows in the rounding between them: along first, unless an upright
/// picture is very high and becomes lower.
inline bool is_down_first(int64_t height, int64_t width, int64_t new_height) {
  return height > 100 * width && new_height < height;
}

/// Columns [begin, end) of a row, one after the other.
void copy_columns(const Source& from, int64_t row, int64_t begin, int64_t end, uint8_t* to);
/// `bytes` columns of rows, down; `from` is the first that is needed.
void filter_columns(const Resizing& how, const uint8_t* from, int64_t pitch, int64_t bytes, const Target& to);
/// Rows `lines` of `from` in the window's columns.
void make_rows(const Resizing& how, const Source& from, const Span& lines, const Target& to);

}  // namespace senet::vision
