// From the rows of a picture, as a decoder gives them, to a network's input: grey where that is wanted,
// resized, turned upright, cut or padded, and each value by a table. Knows no decoder.
#pragma once

#include "vision/row_resizer.h"

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

namespace senet::vision {

/// A picture as its file has it.
struct Picture {
  int64_t width;
  int64_t height;
  /// Bytes of a pixel: grey, grey and alpha, RGB, or RGB and alpha. Alpha does not count.
  int64_t bands;
  /// 1 to 8, EXIF's.
  int orientation;

  /// Whether upright is a quarter turn from here.
  bool is_turned() const {
    return orientation >= 5;
  }
};

/// What becomes of an upright picture of one size.
struct Placement {
  int64_t height;  // to which it is resized
  int64_t width;
  Rectangle window;  // of that, what the input shows
  int64_t top;       // where in the input
  int64_t left;
  int64_t input_height;
  int64_t input_width;
};

struct InputPlan {
  /// Of a picture that is upright or upside down, and of one that is turned by a quarter.
  std::array<Placement, 2> placements;
  Filter filter;
  bool is_grey;
  /// What becomes of each of the 256 values of each of the input's channels, 1 or 3. Around the window are
  /// zeros.
  std::vector<float> table;

  int64_t channels() const {
    return static_cast<int64_t>(table.size()) / 256;
  }
};

class InputMaker {
 public:
  /// Throws ERR_SENET_ARG_RANGE if the plan is none.
  InputMaker(InputPlan plan, const Picture& picture, Instructions instructions = Instructions::kBest);

  /// False for a picture that would take more weights than are held.
  bool is_possible() const {
    return resizer_->is_possible();
  }
  /// The next rows, `pitch` bytes apart.
  void push(const uint8_t* rows, int64_t pitch, int64_t count);
  /// 1 x channels x height x width of float32, channels-last where there are 3. Once, when all rows came.
  at::Tensor finish() const;

 private:
  InputPlan plan_;
  Picture picture_;
  Instructions instructions_;
  bool is_flipped_along_;
  bool is_flipped_down_;
  int64_t channels_;  // that are resized
  std::optional<RowResizer> resizer_;
  std::vector<uint8_t> converted_;
};

}  // namespace senet::vision
