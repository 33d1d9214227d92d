// The weights of an antialiased resize, in fixed point, as Pillow computes them (resize.h says which). Knows
// no pixels.
#pragma once

#include "vision/resize.h"

#include <algorithm>
#include <cstdint>
#include <vector>

namespace senet::vision {

/// Bits of a weight: what 32 leave for a pixel's 8 and a sum that may be twice the largest pixel, and the
/// sign.
constexpr int kWeightBits = 32 - 8 - 2;
/// A product of 16 bits takes the lower bits of a weight, another one the rest.
constexpr int kLowBits = kWeightBits / 2;
/// Weights that are held at a time, unless one pixel takes more.
constexpr int64_t kHeldWeights = int64_t{1} << 20;

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
  /// `is_mirrored`: the picture lies the other way round, and so does the result: the same numbers as if both
  /// were turned first and last. (Weights are not quite symmetrical, since their centres are rounded.)
  Axis(int64_t from, int64_t to, Filter filter, bool is_mirrored = false);

  bool changes() const {
    return from_ != to_;
  }
  int64_t from() const {
    return from_;
  }
  /// No span is longer.
  int64_t most_taps() const;
  Span span(int64_t position) const;
  /// Weights in fixed point. Each is computed twice, which spares float64 numbers for all of them.
  void write_weights(int64_t position, int32_t* weights) const;

 private:
  double centre_of(int64_t position) const {
    return (static_cast<double>(position) + 0.5) * scale_;
  }
  Span upright_span(int64_t position) const;

  int64_t from_;
  int64_t to_;
  bool is_mirrored_;
  double (*filter_)(double);
  double scale_;
  double stretch_;
  double support_;
};

/// The weights of neighbouring positions, each position's filled with zeros to whole groups of taps. A group
/// of more than one weight is split: the upper parts of its weights, then the lower ones, all of 16 bits.
class Weights {
 public:
  Weights(const Axis& axis, int64_t begin, int64_t end, int64_t group);

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
  void split(int32_t* weights) const;

  int64_t group_;
  int64_t pitch_;
  std::vector<Span> spans_;
  std::vector<int32_t> weights_;
};

/// Positions [begin, end) of an axis, with the weights of as many as may be held at a time.
class Pass {
 public:
  Pass(const Axis& axis, int64_t begin, int64_t end, int64_t group);

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
  Span span() const;
  /// Those of all positions, where the axis changes; only if `holds_all`.
  const Weights& held() const {
    return held_;
  }
  bool holds_all() const {
    return begin_ + most_ >= end_;
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

}  // namespace senet::vision
