#include "inference/histogram.h"

#include <algorithm>
#include <cmath>

namespace senet::inference {

void Histogram::add(const float* numbers, int64_t count) {
  float low = 0;
  float high = 0;
  for (int64_t i = 0; i < count; ++i) {
    low = std::min(low, numbers[i]);
    high = std::max(high, numbers[i]);
  }
  low_ = std::min(low_, low);
  high_ = std::max(high_, high);
  grow(static_cast<double>(std::max(-low, high)));
  const auto scale = static_cast<float>(static_cast<double>(kBins) / limit_);  // a power of two
  for (int64_t i = 0; i < count; ++i) {
    if (numbers[i] == 0.0f) {
      ++zeros_;
      continue;
    }
    const auto bin = static_cast<int64_t>(std::floor(numbers[i] * scale)) + kBins;
    ++bins_[static_cast<size_t>(std::clamp<int64_t>(bin, 0, 2 * kBins - 1))];
    ++others_;
  }
}

void Histogram::add(const Histogram& other) {
  if (other.count() == 0) {
    return;
  }
  Histogram same = other;
  grow(same.limit_ / 2);
  same.grow(limit_ / 2);
  for (size_t i = 0; i < bins_.size(); ++i) {
    bins_[i] += same.bins_[i];
  }
  zeros_ += same.zeros_;
  others_ += same.others_;
  low_ = std::min(low_, same.low_);
  high_ = std::max(high_, same.high_);
}

// So that every number up to `most` has a bin. Two bins become one, which is exact.
void Histogram::grow(double most) {
  if (bins_.empty()) {
    bins_.assign(2 * kBins, 0);
    limit_ = std::ldexp(1.0, -20);
    while (limit_ <= most) {
      limit_ *= 2;
    }
    return;
  }
  while (limit_ <= most) {
    std::vector<int64_t> wider(bins_.size(), 0);
    for (int64_t bin = 0; bin < 2 * kBins; ++bin) {
      wider[static_cast<size_t>(kBins / 2 + bin / 2)] += bins_[static_cast<size_t>(bin)];
    }
    bins_ = std::move(wider);
    limit_ *= 2;
  }
}

Histogram::Range Histogram::percentile(double share) const {
  const auto beyond = static_cast<int64_t>(std::floor((1.0 - share) * static_cast<double>(count())));
  Range range{static_cast<double>(low_), static_cast<double>(high_)};
  int64_t passed = 0;
  for (int64_t bin = 2 * kBins - 1; bin >= kBins && (passed += bins_[static_cast<size_t>(bin)]) <= beyond;
       --bin) {
    range.high = std::min(range.high, bin_low(bin));
  }
  passed = 0;
  for (int64_t bin = 0; bin < kBins && (passed += bins_[static_cast<size_t>(bin)]) <= beyond; ++bin) {
    range.low = std::max(range.low, bin_low(bin + 1));
  }
  return range;
}

Histogram::Range Histogram::least_error() const {
  const Range whole{static_cast<double>(low_), static_cast<double>(high_)};
  Range best = whole;
  double least = error_of(whole);
  // The two ends one after the other: a value has seldom more than one long tail.
  constexpr int kSteps = 100;
  for (int round = 0; round < 2; ++round) {
    for (const bool is_high : {true, false}) {
      const Range start = best;
      for (int step = 1; step < kSteps; ++step) {
        Range range = start;
        (is_high ? range.high : range.low) *= 1.0 - static_cast<double>(step) / kSteps;
        const double error = error_of(range);
        if (error < least) {
          least = error;
          best = range;
        }
      }
    }
  }
  return best;
}

// The sum of squares. Zeros are exact.
double Histogram::error_of(Range range) const {
  const double step = (range.high - range.low) / 255.0;
  double error = 0;
  for (int64_t bin = 0; bin < 2 * kBins; ++bin) {
    const auto numbers = static_cast<double>(bins_[static_cast<size_t>(bin)]);
    if (numbers == 0) {
      continue;
    }
    const double middle = 0.5 * (bin_low(bin) + bin_low(bin + 1));
    const double cut = middle > range.high  ? middle - range.high
                       : middle < range.low ? range.low - middle
                                            : 0;
    error += numbers * (cut * cut + step * step / 12.0);
  }
  return error;
}

}  // namespace senet::inference
