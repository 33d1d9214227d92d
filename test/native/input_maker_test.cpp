// From rows to a network's input, against the same steps one after the other on the whole picture: grey by
// its formula, upright by LibTorch, resized by resize() (resize_test.cpp holds that against its definition),
// padded, looked up. Rows come in drawn portions, each in memory that ends with its last pixel, so that a
// read beyond is seen.
#include "support.h"

#include "vision/grey.h"
#include "vision/input_maker.h"
#include "vision/resize.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>

namespace senet::test {
namespace {

using vision::Filter;
using vision::InputMaker;
using vision::InputPlan;
using vision::Instructions;
using vision::Picture;
using vision::Placement;
using vision::Rectangle;

/// height x width x bands to 1 x channels x height x width, as the record of a network wants them.
at::Tensor without_alpha(const at::Tensor& pixels, bool is_grey) {
  const int64_t bands = pixels.size(2);
  at::Tensor x = pixels.slice(2, 0, bands <= 2 ? 1 : 3);
  if (bands >= 3 && is_grey) {
    const at::Tensor weights = at::tensor({19595, 38470, 7471}, at::kLong);
    x = at::bitwise_right_shift((x.to(at::kLong) * weights).sum(2, true) + (1 << 15), 16).to(at::kByte);
  }
  return x.permute({2, 0, 1}).unsqueeze(0).contiguous();
}

/// As EXIF says: flipped first, then its rows made columns.
at::Tensor upright(const at::Tensor& x, int orientation) {
  switch (orientation) {
    case 2:
      return x.flip({3});
    case 3:
      return x.flip({2, 3});
    case 4:
      return x.flip({2});
    case 5:
      return x.transpose(2, 3);
    case 6:  // a quarter turn to the right
      return x.flip({2}).transpose(2, 3);
    case 7:
      return x.flip({2, 3}).transpose(2, 3);
    case 8:
      return x.flip({3}).transpose(2, 3);
    default:
      return x;
  }
}

Placement draw_placement(Random& random, int64_t height, int64_t width) {
  const auto draw_side = [&](int64_t from) {
    return random.of<int64_t>({from, 1, random.between(1, 20), random.between(1, 90)});
  };
  Placement place{};
  place.height = draw_side(height);
  place.width = draw_side(width);
  place.window = {0, 0, place.height, place.width};
  if (random.chance()) {
    place.window.height = random.between(1, place.height);
    place.window.width = random.between(1, place.width);
    place.window.top = random.between(0, place.height - place.window.height);
    place.window.left = random.between(0, place.width - place.window.width);
  }
  const bool is_padded = random.chance(0.3);
  place.top = is_padded ? random.between(0, 4) : 0;
  place.left = is_padded ? random.between(0, 4) : 0;
  place.input_height = place.top + place.window.height + (is_padded ? random.between(0, 4) : 0);
  place.input_width = place.left + place.window.width + (is_padded ? random.between(0, 4) : 0);
  return place;
}

at::Tensor expected_input(const at::Tensor& pixels, const Picture& picture, const InputPlan& plan) {
  const Placement& place = plan.placements[picture.is_turned() ? 1 : 0];
  const at::Tensor x = upright(without_alpha(pixels, plan.is_grey), picture.orientation).contiguous();
  at::Tensor resized = x.slice(2, place.window.top, place.window.top + place.window.height)
                           .slice(3, place.window.left, place.window.left + place.window.width);
  if (x.size(2) != place.height || x.size(3) != place.width) {
    resized = resize(x, place.height, place.width, place.window, plan.filter);
  }
  const int64_t channels = plan.channels();
  const at::Tensor padded = at::zeros({1, channels, place.input_height, place.input_width}, at::kLong);
  padded.slice(2, place.top, place.top + place.window.height)
      .slice(3, place.left, place.left + place.window.width)
      .copy_(resized);
  const at::Tensor table = at::tensor(plan.table).reshape({channels, 256});
  std::vector<at::Tensor> planes;
  for (int64_t channel = 0; channel < channels; ++channel) {
    planes.push_back(table[channel].index_select(0, padded[0][channel].reshape({-1})));
  }
  return at::stack(planes).reshape(padded.sizes());
}

void push_in_portions(Random& random, InputMaker& maker, const at::Tensor& pixels) {
  const int64_t row = pixels.size(1) * pixels.size(2);
  for (int64_t first = 0; first < pixels.size(0);) {
    const int64_t count =
        std::min(pixels.size(0) - first, random.of<int64_t>({1, 8, 16, random.between(1, 40)}));
    const int64_t pitch = row + (random.chance(0.3) ? random.between(1, 9) : 0);
    std::vector<uint8_t> portion(static_cast<size_t>((count - 1) * pitch + row));
    for (int64_t i = 0; i < count; ++i) {
      std::memcpy(portion.data() + i * pitch, pixels.const_data_ptr<uint8_t>() + (first + i) * row,
                  static_cast<size_t>(row));
    }
    maker.push(portion.data(), pitch, count);
    first += count;
  }
}

TEST_CASE("input maker: rows one after the other give what the whole picture gives, however it is turned") {
  for_each_drawn(9100, 500, [](Random& random, int) {
    const auto draw_side = [&] {
      return random.of<int64_t>(
          {1, 2, random.between(3, 40), random.between(20, 90), random.between(90, 300)});
    };
    Picture picture{draw_side(), draw_side(), random.between(1, 4), static_cast<int>(random.between(1, 8))};
    if (random.chance(0.1)) {  // where Pillow begins with the columns
      picture.width = random.between(1, 3);
      picture.height = random.between(100, 400);
      if (random.chance()) {
        std::swap(picture.width, picture.height);
      }
    }
    InputPlan plan{{draw_placement(random, picture.height, picture.width),
                    draw_placement(random, picture.width, picture.height)},
                   random.chance() ? Filter::kBilinear : Filter::kBicubic,
                   random.chance(),
                   {}};
    plan.table.resize(plan.is_grey ? 256 : 768);
    for (float& value : plan.table) {
      value = static_cast<float>(random.between(-1000, 1000)) / 7;
    }
    const bool is_harsh = random.chance(0.3);
    at::Tensor pixels = at::empty({picture.height, picture.width, picture.bands}, at::kByte);
    for (int64_t i = 0; i < pixels.numel(); ++i) {
      pixels.mutable_data_ptr<uint8_t>()[i] =
          static_cast<uint8_t>(is_harsh ? 255 * random.between(0, 1) : random.between(0, 255));
    }
    const at::Tensor expected = expected_input(pixels, picture, plan);
    for (const Instructions instructions : {Instructions::kBest, Instructions::kPortable}) {
      InputMaker maker(plan, picture, instructions);
      REQUIRE(maker.is_possible());
      push_in_portions(random, maker, pixels);
      const at::Tensor actual = maker.finish();
      const Placement& place = plan.placements[picture.is_turned() ? 1 : 0];
      const std::string loops = instructions == Instructions::kPortable ? ", portable" : "";
      REQUIRE_MESSAGE(at::equal(actual, expected), picture.height, " x ", picture.width, " x ", picture.bands,
                      ", orientation ", picture.orientation, ", to ", place.height, " x ", place.width, ", ",
                      place.window.height, " x ", place.window.width, " from ", place.window.top, " ",
                      place.window.left, plan.is_grey ? ", grey" : "", loops);
      CHECK(
          actual.is_contiguous(plan.is_grey ? at::MemoryFormat::Contiguous : at::MemoryFormat::ChannelsLast));
    }
  });
}

TEST_CASE("input maker: of a large picture only the rows that are needed are held") {
  const int64_t height = 4000;
  const int64_t width = 50;
  for (const int orientation : {1, 6}) {
    const vision::Direction down{height, 100, 0, 100, orientation == 6};
    const vision::Direction along{width, 20, 0, 20, false};
    const vision::RowResizer resizer(down, along, 3, Filter::kBilinear, orientation == 6);
    CHECK(resizer.held_bytes() < height * width * 3 / 10);
  }
}

TEST_CASE("grey: Pillow's formula for every colour's corners and all greys") {
  std::vector<uint8_t> colours;
  for (int red = 0; red < 256; red += 5) {
    for (int green = 0; green < 256; green += 5) {
      for (int blue = 0; blue < 256; blue += 17) {
        colours.insert(colours.end(),
                       {static_cast<uint8_t>(red), static_cast<uint8_t>(green), static_cast<uint8_t>(blue)});
      }
    }
  }
  const auto pixels = static_cast<int64_t>(colours.size() / 3);
  std::vector<uint8_t> best(static_cast<size_t>(pixels));
  std::vector<uint8_t> portable(static_cast<size_t>(pixels));
  vision::to_grey(colours.data(), 3, pixels, best.data());
  vision::to_grey(colours.data(), 3, pixels, portable.data(), Instructions::kPortable);
  CHECK(best == portable);
  for (int64_t i = 0; i < pixels; ++i) {
    const uint8_t* const colour = colours.data() + 3 * i;
    const int sum = 19595 * colour[0] + 38470 * colour[1] + 7471 * colour[2] + 32768;
    REQUIRE(best[static_cast<size_t>(i)] == sum >> 16);
  }
}

TEST_CASE("input maker: refuses a plan that does not fit") {
  const Placement whole{4, 4, {0, 0, 4, 4}, 0, 0, 4, 4};
  const std::vector<float> table(768);
  const auto why = [&](Placement place, const Picture& picture, size_t values = 768, bool is_grey = false) {
    return refusal([&] {
      InputMaker({{place, place}, Filter::kBilinear, is_grey, std::vector<float>(values)}, picture);
    });
  };
  const Picture picture{8, 8, 3, 1};
  CHECK(why(whole, picture).empty());
  Placement outside = whole;
  outside.window.left = 1;
  CHECK(why(outside, picture).find("does not fit") != std::string::npos);
  outside = whole;
  outside.top = 1;
  CHECK(why(outside, picture).find("does not fit") != std::string::npos);
  outside = whole;
  outside.left = INT64_MAX;
  CHECK(why(outside, picture).find("does not fit") != std::string::npos);
  CHECK(why(whole, {8, 0, 3, 1}).find("does not fit") != std::string::npos);
  CHECK(why(whole, {8, 8, 5, 1}).find("does not fit") != std::string::npos);
  CHECK(why(whole, {8, 8, 3, 9}).find("does not fit") != std::string::npos);
  CHECK(why(whole, picture, 255).find("does not fit") != std::string::npos);
  CHECK(why(whole, picture, 768, true).find("does not fit") != std::string::npos);
}

}  // namespace
}  // namespace senet::test
