// The second of the three stages from a plan to a program of our kernels (cpu/program.h): in which buffer
// each value of the units lies. Values share a buffer where one is written over another that nobody reads any
// more, and where some are parts of what they are concatenated to. A buffer's place in memory depends on the
// size of the images and is found when that is known (program.cpp).
#pragma once

#include "inference/cpu/fuse.h"
#include "inference/cpu/steps.h"

#include <string>
#include <vector>

namespace senet::inference {

/// Where a value lies: a buffer, or some of its channels.
struct Place {
  BufferId buffer = kNoBuffer;
  int64_t channel = 0;
};

struct Placed {
  std::vector<Buffer> buffers;
  std::vector<Place> places;                  // of Fused::values; without a buffer where no unit has it
  std::vector<std::vector<BufferId>> clears;  // of each unit, the buffers whose border it zeroes

  Place place(ValueId value) const {
    return value == kNoValue ? Place{} : places[static_cast<size_t>(value)];
  }
  const Buffer& buffer(ValueId value) const {
    return buffers[static_cast<size_t>(place(value).buffer)];
  }
  /// Whether the parts of a concatenation are written where the whole is, so that nothing is left to do.
  bool is_in_place(const Unit& concatenation) const {
    return place(concatenation.inputs.front()).buffer == place(concatenation.output).buffer;
  }
};

/// Whether the parts of a concatenation can be written where the whole is.
bool can_be_in_place(const Fused& fused, const Unit& concatenation);

/// Elements are float32 or, if not `is_float`, bfloat16; bytes are bytes.
Placed place_values(const Plan& plan, const Fused& fused, bool is_float);

/// A line for each buffer: "1: %2 64, %3 64 from channel 64; 128 channels, border 1 x 1".
std::string to_string(const Fused& fused, const Placed& placed);

}  // namespace senet::inference
