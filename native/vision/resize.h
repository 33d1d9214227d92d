// Antialiased resizing of uint8 images to the bits of Pillow's `Image.resize` (12.x), which torchvision's and
// timm's transforms of images call. Knows no file format and no record.
//
// An image is filtered along its rows, then down its columns; one that is more than 100 times as high as it
// is wide and becomes lower, the other way round. Each pass rounds to uint8. A pixel of the result is a
// weighted sum of those pixels that lie within the filter's support around its centre, which grows with the
// scale where an image shrinks. Weights are computed in float64, divided by their sum, and rounded to 22
// bits, half away from zero; sums are integers, so neither their order nor the instruction set changes a bit.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>

namespace senet::vision {

enum class Filter : uint8_t { kBilinear, kBicubic };

/// "bilinear" or "bicubic"; throws ERR_SENET_ARG_RANGE.
Filter parse_filter(std::string_view name);

struct Rectangle {
  int64_t top;
  int64_t left;
  int64_t height;
  int64_t width;
};

/// Which loops run: the best that the processor has, or those of any processor.
enum class Instructions : uint8_t { kBest, kPortable };

/// The part `window` of `images` resized to height x width: the same pixels as if it were cut out afterwards.
/// `images` is uint8 on the CPU, N x C x H x W of any strides; the result is channels-last where C is 3 or 4
/// and the channels lie side by side, else contiguous. Each channel is filtered alone. Takes memory for the
/// result, for the window's columns of the rows that it needs, and little more. Throws ERR_SENET_DTYPE,
/// ERR_SENET_DEVICE, ERR_SENET_SHAPE, ERR_SENET_ARG_RANGE.
at::Tensor resize(const at::Tensor& images, int64_t height, int64_t width, const Rectangle& window,
                  Filter filter, Instructions instructions = Instructions::kBest);

}  // namespace senet::vision
