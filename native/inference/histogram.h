// The numbers that a value was seen to have, counted. Which bins there are depends on the largest of them
// alone, so that neither the order of the images nor the number of threads changes what is counted.
#pragma once

#include <cstdint>
#include <vector>

namespace senet::inference {

class Histogram {
 public:
  void add(const float* numbers, int64_t count);
  void add(const Histogram& other);

  int64_t count() const {
    return zeros_ + others_;
  }
  float low() const {
    return low_;
  }
  float high() const {
    return high_;
  }

  struct Range {
    double low;
    double high;
  };
  /// Without the smallest and the largest of them: `share` of all are not above `high`, and not below `low`.
  Range percentile(double share) const;
  /// That of the least mean squared error if it is split into 255 steps.
  Range least_error() const;

 private:
  static constexpr int64_t kBins = 2048;  // on either side of 0

  void grow(double limit);
  double error_of(Range range) const;
  double bin_low(int64_t bin) const {
    return static_cast<double>(bin - kBins) * limit_ / kBins;
  }

  double limit_ = 0;  // a power of two, larger than every number
  std::vector<int64_t> bins_;
  int64_t zeros_ = 0;  // in no bin
  int64_t others_ = 0;
  float low_ = 0;
  float high_ = 0;
};

}  // namespace senet::inference
