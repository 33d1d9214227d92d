// Colour to grey as Pillow's `convert('L')`: (19595 R + 38470 G + 7471 B + 2^15) >> 16.
#pragma once

#include <cstdint>

#include "vision/resize.h"

namespace senet::vision {

/// `pixels` pixels of 3 or 4 bytes (the fourth does not count) to a byte each.
void to_grey(const uint8_t* from, int64_t channels, int64_t pixels, uint8_t* to,
             Instructions instructions = Instructions::kBest);

}  // namespace senet::vision
