#include "vision/resize_weights.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

namespace senet::vision {
namespace {

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

}  // namespace

Axis::Axis(int64_t from, int64_t to, Filter filter, bool is_mirrored)
    : from_(from),
      to_(to),
      is_mirrored_(is_mirrored),
      filter_(filter == Filter::kBilinear ? bilinear : bicubic),
      scale_(static_cast<double>(from) / static_cast<double>(to)),
      stretch_(std::max(scale_, 1.0)),
      support_((filter == Filter::kBilinear ? 1.0 : 2.0) * stretch_) {}

int64_t Axis::most_taps() const {
  return std::min(from_, 2 * static_cast<int64_t>(std::ceil(support_)) + 1);
}

Span Axis::upright_span(int64_t position) const {
  const double centre = centre_of(position);
  const int64_t first = std::max<int64_t>(static_cast<int64_t>(centre - support_ + 0.5), 0);
  return {first, std::min(static_cast<int64_t>(centre + support_ + 0.5), from_) - first};
}

Span Axis::span(int64_t position) const {
  if (!is_mirrored_) {
    return upright_span(position);
  }
  const Span upright = upright_span(to_ - 1 - position);
  return {from_ - upright.end(), upright.count};
}

void Axis::write_weights(int64_t position, int32_t* weights) const {
  const int64_t upright = is_mirrored_ ? to_ - 1 - position : position;
  const Span pixels = upright_span(upright);
  const double centre = centre_of(upright);
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
    weights[is_mirrored_ ? pixels.count - 1 - tap : tap] =
        static_cast<int32_t>(share * (1 << kWeightBits) + (share < 0 ? -0.5 : 0.5));
  }
}

Weights::Weights(const Axis& axis, int64_t begin, int64_t end, int64_t group)
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

void Weights::split(int32_t* weights) const {
  std::array<int16_t, 32> parts{};
  for (int64_t i = 0; i < group_; ++i) {
    parts[static_cast<size_t>(i)] = static_cast<int16_t>(weights[i] >> kLowBits);
    parts[static_cast<size_t>(group_ + i)] = static_cast<int16_t>(weights[i] & ((1 << kLowBits) - 1));
  }
  std::memcpy(weights, parts.data(), static_cast<size_t>(group_) * sizeof(int32_t));
}

Pass::Pass(const Axis& axis, int64_t begin, int64_t end, int64_t group)
    : axis_(axis),
      begin_(begin),
      end_(end),
      group_(group),
      most_(std::max<int64_t>(1, kHeldWeights / (axis.most_taps() + group))),
      held_(axis, begin, axis.changes() ? std::min(end, begin + most_) : begin, group) {}

Span Pass::span() const {
  const int64_t first = axis_.changes() ? axis_.span(begin_).first : begin_;
  return {first, (axis_.changes() ? axis_.span(end_ - 1).end() : end_) - first};
}

}  // namespace senet::vision
