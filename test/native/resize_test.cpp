// Resized images against the definition, pixel by pixel and without vectors; Pillow's own pixels are recorded
// in test/fixtures/images/resized.json. Images lie in memory that ends with them, so that a read beyond is
// seen.
#include "support.h"

#include "vision/resize.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstring>

namespace senet::test {
namespace {

using vision::Filter;
using vision::Instructions;
using vision::Rectangle;

double weight_at(Filter filter, double x) {
  x = std::abs(x);
  if (filter == Filter::kBilinear) {
    return std::max(0.0, 1 - x);
  }
  if (x >= 2) {
    return 0;
  }
  return x < 1 ? (1.5 * x - 2.5) * x * x + 1 : (((x - 5) * x + 8) * x - 4) * -0.5;
}

/// One row of pixels to another length: [planes, from] to [planes, to], int64.
at::Tensor filtered(const at::Tensor& rows, int64_t to, Filter filter) {
  const int64_t from = rows.size(1);
  if (from == to) {
    return rows;
  }
  const double scale = static_cast<double>(from) / static_cast<double>(to);
  const double stretch = std::max(1.0, scale);
  const double support = (filter == Filter::kBilinear ? 1 : 2) * stretch;
  const at::Tensor weights = at::zeros({from, to}, at::kDouble);
  auto elements = weights.accessor<double, 2>();
  for (int64_t i = 0; i < to; ++i) {
    const double centre = (static_cast<double>(i) + 0.5) * scale;
    const auto first = static_cast<int64_t>(std::max(0.0, centre - support + 0.5));
    const auto last = std::min(from, static_cast<int64_t>(centre + support + 0.5));
    double sum = 0;
    for (int64_t pixel = first; pixel < last; ++pixel) {
      sum += weight_at(filter, (static_cast<double>(pixel) - centre + 0.5) * (1 / stretch));
    }
    for (int64_t pixel = first; pixel < last; ++pixel) {
      const double share =
          weight_at(filter, (static_cast<double>(pixel) - centre + 0.5) * (1 / stretch)) / sum;
      elements[pixel][i] = std::round(share * (1 << 22));
    }
  }
  const at::Tensor sums = at::matmul(rows.to(at::kDouble), weights).to(at::kLong) + (1 << 21);
  return at::clamp(at::bitwise_right_shift(sums, 22), 0, 255);
}

at::Tensor expected_pixels(const at::Tensor& images, int64_t height, int64_t width, Filter filter) {
  const auto along = [&](const at::Tensor& x) {
    const at::Tensor rows = x.reshape({-1, x.size(3)});
    return filtered(rows, width, filter).reshape({x.size(0), x.size(1), x.size(2), width});
  };
  const auto down = [&](const at::Tensor& x) {
    const at::Tensor columns = x.transpose(2, 3);
    const at::Tensor rows = columns.reshape({-1, x.size(2)});
    return filtered(rows, height, filter).reshape({x.size(0), x.size(1), x.size(3), height}).transpose(2, 3);
  };
  const at::Tensor x = images.to(at::kLong);
  const bool is_down_first = images.size(2) > 100 * images.size(3) && height < images.size(2);
  return (is_down_first ? along(down(x)) : down(along(x))).to(at::kByte);
}

int64_t draw_side(Random& random) {
  return random.of<int64_t>({1, 2, 3, random.between(4, 20), random.between(4, 70), random.between(50, 300)});
}

/// Memory that ends with the image's last byte.
struct Drawn {
  std::vector<uint8_t> memory;
  at::Tensor images;
};

Drawn draw_images(Random& random, int64_t count, int64_t channels, int64_t height, int64_t width) {
  // Steps between images, channels, rows and pixels.
  std::vector<int64_t> strides;
  const int64_t pad = random.chance(0.3) ? random.between(1, 9) : 0;
  switch (random.between(0, 3)) {
    case 0: {  // planes
      const int64_t row = width + pad;
      strides = {channels * height * row, height * row, row, 1};
      break;
    }
    case 1: {  // columns side by side
      const int64_t column = height + pad;
      strides = {channels * width * column, width * column, 1, column};
      break;
    }
    default: {
      const int64_t row = width * channels + pad;
      strides = {height * row, 1, row, channels};
    }
  }
  const std::vector<int64_t> shape = {count, channels, height, width};
  int64_t length = 1;
  for (size_t i = 0; i < 4; ++i) {
    length += (shape[i] - 1) * strides[i];
  }
  Drawn drawn{std::vector<uint8_t>(static_cast<size_t>(length)), {}};
  const bool is_harsh = random.chance(0.3);
  for (uint8_t& value : drawn.memory) {
    value = static_cast<uint8_t>(is_harsh ? 255 * random.between(0, 1) : random.between(0, 255));
  }
  drawn.images = at::from_blob(drawn.memory.data(), shape, strides, at::kByte);
  return drawn;
}

TEST_CASE("resize: the definition's pixels, with and without vectors, of any strides and any part") {
  for_each_drawn(9000, 400, [](Random& random, int) {
    const int64_t count = random.of<int64_t>({1, 1, 1, 2, 5});
    const int64_t channels = random.of<int64_t>({1, 2, 3, 3, 3, 4, 4});
    int64_t height = draw_side(random);
    int64_t width = draw_side(random);
    if (random.chance(0.1)) {
      width = random.between(1, 3);
      height = random.between(100, 400);
    }
    const int64_t to_height = random.chance(0.1) ? height : draw_side(random);
    const int64_t to_width = random.chance(0.1) ? width : draw_side(random);
    const Filter filter = random.chance() ? Filter::kBilinear : Filter::kBicubic;
    Rectangle window{0, 0, to_height, to_width};
    if (random.chance()) {
      window.height = random.between(1, to_height);
      window.width = random.between(1, to_width);
      window.top = random.between(0, to_height - window.height);
      window.left = random.between(0, to_width - window.width);
    }
    const Drawn drawn = draw_images(random, count, channels, height, width);
    const at::Tensor expected = expected_pixels(drawn.images, to_height, to_width, filter)
                                    .slice(2, window.top, window.top + window.height)
                                    .slice(3, window.left, window.left + window.width);
    const std::string how = filter == Filter::kBilinear ? ", bilinear" : ", bicubic";
    for (const Instructions instructions : {Instructions::kBest, Instructions::kPortable}) {
      const std::string loops = instructions == Instructions::kPortable ? ", portable" : "";
      const at::Tensor actual = resize(drawn.images, to_height, to_width, window, filter, instructions);
      REQUIRE_MESSAGE(at::equal(actual, expected), channels, " x ", height, " x ", width, " to ", to_height,
                      " x ", to_width, ", ", window.height, " x ", window.width, " from ", window.top, " ",
                      window.left, how, ", strides ", text(drawn.images.strides()), loops);
    }
  });
}

TEST_CASE("resize: weights that are more than are held at a time") {
  for (const bool is_high : {false, true}) {
    const int64_t length = 400'000;
    const at::Tensor images = at::randint(256, {1, 1, is_high ? length : 2, is_high ? 1 : length}, at::kByte);
    const int64_t height = is_high ? 7 : 2;
    const int64_t width = is_high ? 1 : 7;
    const at::Tensor expected = expected_pixels(images, height, width, Filter::kBicubic);
    for (const Instructions instructions : {Instructions::kBest, Instructions::kPortable}) {
      const at::Tensor actual =
          resize(images, height, width, {0, 0, height, width}, Filter::kBicubic, instructions);
      const std::string where = is_high ? "columns" : "rows";
      REQUIRE_MESSAGE(at::equal(actual, expected), where);
    }
  }
}

TEST_CASE("resize: refuses what it cannot read or make") {
  const at::Tensor images = at::zeros({1, 3, 4, 5}, at::kByte);
  const auto why = [](const at::Tensor& x, int64_t height, int64_t width, const Rectangle& window) {
    return refusal([&] { resize(x, height, width, window, Filter::kBilinear); });
  };
  const Rectangle whole{0, 0, 2, 2};
  CHECK(why(images.to(at::kFloat), 2, 2, whole).find("uint8 images, got float32") != std::string::npos);
  CHECK(why(images.to(at::kMeta), 2, 2, whole).find("on cpu") != std::string::npos);
  CHECK(why(images[0], 2, 2, whole).find("N x C x H x W") != std::string::npos);
  CHECK(why(images.slice(2, 0, 0), 2, 2, whole).find("[1, 3, 0, 5]") != std::string::npos);
  for (const Rectangle& part :
       {Rectangle{0, 0, 3, 2}, Rectangle{0, 0, 2, 3}, Rectangle{-1, 0, 1, 1}, Rectangle{0, INT64_MAX, 1, 1},
        Rectangle{1, 1, INT64_MAX, 1}, Rectangle{0, 0, 0, 1}}) {
    CHECK(why(images, 2, 2, part).find("part of an image") != std::string::npos);
  }
  CHECK(why(images, 0, 2, whole).find("part of an image") != std::string::npos);
  CHECK(resize(images.slice(0, 0, 0), 2, 2, whole, Filter::kBilinear).numel() == 0);
}

}  // namespace
}  // namespace senet::test
