#include "vision/resize_passes.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstring>
#include <vector>

namespace senet::vision {
namespace {

/// Multiply-adds that are worth a thread.
constexpr int64_t kGrain = int64_t{1} << 18;

int64_t grain_of(int64_t work) {
  return std::max<int64_t>(1, kGrain / std::max<int64_t>(1, work));
}

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

}  // namespace

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

void make_rows(const Resizing& how, const Source& from, const Span& lines, const Target& to) {
  if (how.along.axis().changes()) {
    filter_rows(how, from, lines, to);
    return;
  }
  for (int64_t row = 0; row < lines.count; ++row) {
    copy_columns(from, lines.first + row, how.along.begin(), how.along.end(), to.data + row * to.row);
  }
}

}  // namespace senet::vision
