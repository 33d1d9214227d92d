#include "vision/row_resizer.h"

#include <algorithm>
#include <cstring>

namespace senet::vision {
namespace {

Pass pass_of(const Direction& direction, Filter filter, int64_t group) {
  return {Axis(direction.from, direction.to, filter, direction.is_mirrored), direction.begin,
          direction.begin + direction.length, group};
}

Resizing resizing_of(const Direction& down, const Direction& along, int64_t channels, Filter filter,
                     bool is_down_first, Instructions instructions) {
  const Loops loops = choose_loops(channels, instructions);
  Pass rows = pass_of(down, filter, loops.column_group);
  Pass columns = pass_of(along, filter, loops.row_group);
  // Of a single pass none is the first.
  const bool both = rows.axis().changes() && columns.axis().changes();
  return {std::move(rows), std::move(columns), loops, is_down_first && both};
}

}  // namespace

RowResizer::RowResizer(const Direction& down, const Direction& along, int64_t channels, Filter filter,
                       bool is_down_first, Instructions instructions)
    : channels_(channels),
      how_(resizing_of(down, along, channels, filter, is_down_first, instructions)),
      lines_(how_.down.span()),
      held_row_((how_.is_down_first ? along.from : along.length) * channels) {
  result_.resize(static_cast<size_t>(down.length * along.length * channels));
  // Twice what is needed: then what is kept moves once for as many rows as come.
  most_held_ = how_.down.axis().changes()
                   ? std::min(lines_.count, 2 * (how_.down.axis().most_taps() + kRowsTogether))
                   : 0;
  held_.resize(static_cast<size_t>(most_held_ * held_row_));
  if (how_.is_down_first) {
    between_.resize(static_cast<size_t>(kRowsTogether * held_row_));
  }
}

bool RowResizer::is_possible() const {
  return how_.down.holds_all() && how_.along.holds_all();
}

int64_t RowResizer::held_bytes() const {
  return static_cast<int64_t>(held_.size() + between_.size());
}

void RowResizer::push(const uint8_t* rows, int64_t pitch, int64_t count) {
  const Source source{rows, pitch, channels_, channels_};
  const int64_t begin = std::max(came_, lines_.first);
  const int64_t end = std::min(came_ + count, lines_.end());
  for (int64_t row = begin; row < end; row += kRowsTogether) {
    take(source, row - came_, std::min(kRowsTogether, end - row));
  }
  came_ += count;
}

void RowResizer::take(const Source& rows, int64_t first, int64_t count) {
  const Span taken{first, count};
  if (!how_.down.axis().changes()) {
    const int64_t row = came_ + first - lines_.first;
    const int64_t bytes = how_.along.end() - how_.along.begin();
    make_rows(how_, rows, taken,
              {result_.data() + row * bytes * channels_, bytes * channels_, channels_, channels_});
    return;
  }
  make_room(count);
  uint8_t* const to = held_.data() + held_count_ * held_row_;
  if (how_.is_down_first) {
    for (int64_t row = 0; row < count; ++row) {
      std::memcpy(to + row * held_row_, rows.data + (first + row) * rows.row, static_cast<size_t>(held_row_));
    }
  } else {
    make_rows(how_, rows, taken, {to, held_row_, channels_, channels_});
  }
  held_count_ += count;
  finish_rows();
}

void RowResizer::make_room(int64_t count) {
  if (held_count_ == 0) {
    held_first_ = lines_.first;
  }
  if (held_count_ + count <= most_held_) {
    return;
  }
  const Weights& weights = how_.down.held();
  const int64_t needed = made_ < weights.positions() ? weights.span(made_).first : held_first_ + held_count_;
  const int64_t gone = std::min(needed - held_first_, held_count_);
  held_count_ -= gone;
  held_first_ += gone;
  std::memmove(held_.data(), held_.data() + gone * held_row_, static_cast<size_t>(held_count_ * held_row_));
}

void RowResizer::finish_rows() {
  const Weights& weights = how_.down.held();
  const int64_t row_bytes = (how_.along.end() - how_.along.begin()) * channels_;
  for (; made_ < weights.positions() && weights.span(made_).end() <= held_first_ + held_count_; ++made_) {
    const Span& pixels = weights.span(made_);
    uint8_t* to = result_.data() + made_ * row_bytes;
    if (how_.is_down_first) {
      if (made_ - flushed_ == kRowsTogether) {
        flush_between(made_);
      }
      to = between_.data() + (made_ - flushed_) * held_row_;
    }
    const uint8_t* const from = held_.data() + (pixels.first - held_first_) * held_row_;
    how_.loops.columns({weights.of(made_), pixels.count, from, held_row_, to, held_row_});
  }
  if (made_ == weights.positions()) {
    flush_between(made_);
  }
}

void RowResizer::flush_between(int64_t end) {
  if (!how_.is_down_first || flushed_ == end) {
    return;
  }
  const int64_t row_bytes = (how_.along.end() - how_.along.begin()) * channels_;
  make_rows(how_, {between_.data(), held_row_, channels_, channels_}, {0, end - flushed_},
            {result_.data() + flushed_ * row_bytes, row_bytes, channels_, channels_});
  flushed_ = end;
}

}  // namespace senet::vision
