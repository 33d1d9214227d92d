// Where the values of a program lie in one piece of memory: those whose lives do not meet share it.
#pragma once

#include <cstdint>
#include <vector>

namespace senet::inference {

/// Steps [first, last] in which a value is in use; none if `first` is negative.
struct Life {
  int64_t first = -1;
  int64_t last = -1;

  bool is_empty() const {
    return first < 0;
  }
  bool meets(const Life& other) const {
    return first <= other.last && other.first <= last;
  }
  void extend(int64_t step) {
    first = is_empty() ? step : first;
    last = step;
  }
};

struct ArenaBlock {
  Life life;
  int64_t bytes = 0;   // a multiple of the alignment that offsets shall have
  int64_t offset = 0;  // what lay_out finds
};

/// Gives every block that lives the lowest place that no block with a meeting life has; the bytes of them
/// all.
int64_t lay_out(std::vector<ArenaBlock>& blocks);

}  // namespace senet::inference
