#include "vision/input_maker.h"
#include "vision/resize_passes.h"

#include "core/error.h"
#include "vision/grey.h"
#include "vision/resize_passes.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <string>
#include <utility>

namespace senet::vision {
namespace {

void check(const InputPlan& plan, const Picture& picture) {
  const Placement& place = plan.placements[picture.is_turned() ? 1 : 0];
  const bool is_picture = is_side(picture.width) && is_side(picture.height) && picture.bands >= 1 &&
                          picture.bands <= 4 && picture.orientation >= 1 && picture.orientation <= 8;
  const bool is_placed = is_side(place.height) && is_side(place.width) && is_side(place.input_height) &&
                         is_side(place.input_width) &&
                         is_within(place.window.top, place.window.height, place.height) &&
                         is_within(place.window.left, place.window.width, place.width) &&
                         is_within(place.top, place.window.height, place.input_height) &&
                         is_within(place.left, place.window.width, place.input_width);
  const size_t values = plan.table.size();
  if (!is_picture || !is_placed || (values != 256 && values != 768) || (plan.is_grey && values != 256) ||
      (!plan.is_grey && values != 768)) {
    throw Error("ERR_SENET_ARG_RANGE", "image: expected a plan for a picture of " +
                                           std::to_string(picture.width) + " x " +
                                           std::to_string(picture.height) + ", got one that does not fit");
  }
}

int64_t channels_of(const InputPlan& plan, const Picture& picture) {
  return plan.is_grey || picture.bands <= 2 ? 1 : picture.bands;
}

}  // namespace

InputMaker::InputMaker(InputPlan plan, const Picture& picture, Instructions instructions)
    : plan_(std::move(plan)), picture_(picture), instructions_(instructions) {
  check(plan_, picture_);
  const auto is_one_of = [&](std::initializer_list<int> orientations) {
    return std::find(orientations.begin(), orientations.end(), picture.orientation) != orientations.end();
  };
  is_flipped_along_ = is_one_of({2, 3, 7, 8});
  is_flipped_down_ = is_one_of({3, 4, 6, 7});
  channels_ = channels_of(plan_, picture_);
  const bool is_turned = picture.is_turned();
  const Placement& place = plan_.placements[is_turned ? 1 : 0];
  const auto direction = [](int64_t from, int64_t to, int64_t begin, int64_t length, bool is_flipped) {
    return Direction{from, to, is_flipped ? to - begin - length : begin, length, is_flipped};
  };
  const Rectangle& window = place.window;
  const Direction down =
      is_turned ? direction(picture.height, place.width, window.left, window.width, is_flipped_down_)
                : direction(picture.height, place.height, window.top, window.height, is_flipped_down_);
  const Direction along =
      is_turned ? direction(picture.width, place.height, window.top, window.height, is_flipped_along_)
                : direction(picture.width, place.width, window.left, window.width, is_flipped_along_);
  const int64_t upright_height = is_turned ? picture.width : picture.height;
  const int64_t upright_width = is_turned ? picture.height : picture.width;
  const bool is_height_first = is_down_first(upright_height, upright_width, place.height);
  resizer_.emplace(down, along, channels_, plan_.filter, is_turned != is_height_first, instructions);
  if (channels_ != picture.bands) {
    converted_.resize(static_cast<size_t>(kRowsTogether * picture.width));
  }
}

void InputMaker::push(const uint8_t* rows, int64_t pitch, int64_t count) {
  if (converted_.empty()) {
    resizer_->push(rows, pitch, count);
    return;
  }
  for (int64_t row = 0; row < count; row += kRowsTogether) {
    const int64_t together = std::min(kRowsTogether, count - row);
    for (int64_t i = 0; i < together; ++i) {
      const uint8_t* const from = rows + (row + i) * pitch;
      uint8_t* const to = converted_.data() + i * picture_.width;
      if (picture_.bands >= 3) {
        to_grey(from, picture_.bands, picture_.width, to, instructions_);
        continue;
      }
      for (int64_t x = 0; x < picture_.width; ++x) {
        to[x] = from[x * picture_.bands];
      }
    }
    resizer_->push(converted_.data(), picture_.width, together);
  }
}

at::Tensor InputMaker::finish() const {
  const Placement& place = plan_.placements[picture_.is_turned() ? 1 : 0];
  const int64_t planes = plan_.channels();
  at::Tensor input = at::empty(
      {1, planes, place.input_height, place.input_width},
      at::TensorOptions()
          .dtype(at::kFloat)
          .memory_format(planes == 3 ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous));
  float* const to = input.mutable_data_ptr<float>();
  const float* const table = plan_.table.data();
  const Rectangle& window = place.window;
  if (window.height != place.input_height || window.width != place.input_width) {
    for (int64_t i = 0; i < input.numel(); ++i) {
      to[i] = table[i % planes * 256];
    }
  }
  // The result lies as the file does: steps in it for a step to the right and one down, upright.
  const bool is_turned = picture_.is_turned();
  const int64_t row = (is_turned ? window.height : window.width) * channels_;
  const int64_t rows = is_turned ? window.width : window.height;
  const int64_t along = is_flipped_along_ ? -channels_ : channels_;
  const int64_t down = is_flipped_down_ ? -row : row;
  const uint8_t* const origin = resizer_->result() + (is_flipped_along_ ? row - channels_ : 0) +
                                (is_flipped_down_ ? (rows - 1) * row : 0);
  const int64_t step_right = is_turned ? down : along;
  const int64_t step_down = is_turned ? along : down;
  const int64_t next = channels_ == 1 ? 0 : 1;  // grey serves all channels
  for (int64_t y = 0; y < window.height; ++y) {
    const uint8_t* from = origin + y * step_down;
    float* pixel = to + ((place.top + y) * place.input_width + place.left) * planes;
    for (int64_t x = 0; x < window.width; ++x, from += step_right) {
      for (int64_t plane = 0; plane < planes; ++plane) {
        *pixel++ = table[plane * 256 + from[plane * next]];
      }
    }
  }
  return input;
}

}  // namespace senet::vision
