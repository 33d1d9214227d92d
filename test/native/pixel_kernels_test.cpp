// ElementKernels::scale, pool and load against LibTorch's operators in float64.
#include "support.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <memory>

namespace senet::test {
namespace {

using namespace inference;

// The shape of a picture with so many channels and everything around it drawn.
Picture::Shape draw_shape(int64_t channels, int64_t height, int64_t width, Random& random) {
  const int64_t others = kChannelBlock * random.between(0, 2);
  return {channels,
          height,
          width,
          channels + others,
          others / 2,
          random.between(0, 2),
          random.between(0, 2),
          random.between(0, 2)};
}

// A picture of `values` in memory that is NaN otherwise.
Picture picture_of(const at::Tensor& values, at::ScalarType dtype, Random& random) {
  Picture picture(draw_shape(values.size(0), values.size(1), values.size(2), random), dtype, std::nan(""));
  picture.view().copy_(values);
  return picture;
}

// Values, and now and then a NaN or an infinity.
at::Tensor draw_values(at::IntArrayRef shape, const Variant& variant, bool special, Random& random) {
  at::Tensor values = random.tensor(shape, variant.dtype());
  if (special) {
    for (const double value : {std::nan(""), HUGE_VAL, -HUGE_VAL, 0.0}) {
      values.view(-1)[random.between(0, values.numel() - 1)].fill_(value);
    }
  }
  return values;
}

double output_error(const Variant& variant) {
  return variant.is_float ? 0 : kBfloat16Error;
}

at::Tensor finite(const at::Tensor& values) {
  return values.nan_to_num(0.0, 0.0, 0.0);
}

at::Tensor per_channel(const at::Tensor& vector) {
  return vector.reshape({-1, 1, 1});
}

void check_scale(const Variant& variant) {
  for_each_drawn(1000, 250, [&](Random& random, int) {
    const int64_t channels =
        kChannelBlock * (random.chance(0.1) ? random.between(30, 70) : random.between(1, 7));
    const std::pair<int64_t, int64_t> size =
        random.of<std::pair<int64_t, int64_t>>({{1, 1}, {1, 9}, {5, 3}, {14, 14}, {7, 1}, {2, 47}});
    const auto [height, width] = size;
    const bool special = random.chance(0.2);
    const bool has_scale = random.chance();
    const bool has_shift = random.chance();
    const bool has_residual = random.chance();
    const bool has_sums = random.chance();
    const bool has_output = !has_sums || random.chance();
    const bool in_place = has_output && random.chance(0.3);
    const Activation activation = random.chance() ? Activation::kRelu : Activation::kNone;
    const std::string where = text(channels, " x ", height, " x ", width, special ? ", special values" : "",
                                   has_scale ? ", scale" : "", has_shift ? ", shift" : "",
                                   has_residual ? ", residual" : "", has_sums ? ", sums" : "",
                                   !has_output ? ", no output"
                                   : in_place  ? ", in place"
                                               : "",
                                   activation == Activation::kRelu ? ", relu" : "");

    const at::Tensor x = draw_values({channels, height, width}, variant, special, random);
    const at::Tensor residual = draw_values({channels, height, width}, variant, special, random);
    const at::Tensor scale = random.tensor({channels}, at::kFloat);
    const at::Tensor shift = random.tensor({channels}, at::kFloat);
    const at::Tensor sums_before = random.tensor({channels}, at::kDouble);
    at::Tensor expected = x;
    at::Tensor magnitude = x.abs();
    if (has_scale) {
      expected = expected * per_channel(scale);
      magnitude = magnitude * per_channel(scale).abs();
    }
    if (has_shift) {
      expected = expected + per_channel(shift);
      magnitude = magnitude + per_channel(shift).abs();
    }
    if (has_residual) {
      expected = expected + residual;
      magnitude = magnitude + residual.abs();
    }
    expected = activation == Activation::kRelu ? expected.relu() : expected;

    const Picture input = picture_of(x, variant.dtype(), random);
    const Picture other = picture_of(residual, variant.dtype(), random);
    const Picture output =
        in_place ? input : Picture(draw_shape(channels, height, width, random), variant.dtype(), 7.0);
    const Picture untouched = output.clone();
    const at::Tensor sums = sums_before.clone();
    const at::Tensor scale_floats = scale.to(at::kFloat);
    const at::Tensor shift_floats = shift.to(at::kFloat);
    ScaleTask task{};
    task.input = input.at();
    task.input_strides = input.strides();
    task.scale = has_scale ? scale_floats.const_data_ptr<float>() : nullptr;
    task.shift = has_shift ? shift_floats.const_data_ptr<float>() : nullptr;
    task.residual = has_residual ? other.at() : nullptr;
    task.residual_strides = other.strides();
    task.sums = has_sums ? sums.mutable_data_ptr<double>() : nullptr;
    task.output = has_output ? output.at() : nullptr;
    task.output_strides = output.strides();
    task.activation = activation;
    task.channels = channels;
    task.width = width;
    // In two parts; between them nothing of the second may have been written.
    const int64_t cut = random.between(0, height * width);
    task.first = 0;
    task.last = cut;
    variant.element->scale(task);
    Picture first_part = untouched.clone();
    if (has_output) {
      for (int64_t pixel = 0; pixel < cut; ++pixel) {
        const auto at = [&](const Picture& picture) {
          return picture.view().select(1, pixel / width).select(1, pixel % width);
        };
        at(first_part).copy_(at(output));
      }
    }
    output.expect_changed_only(first_part, 0, 0, where + ", the first part");
    task.first = cut;
    task.last = height * width;
    variant.element->scale(task);

    if (has_output) {
      expect_near(output.view(), expected,
                  finite(magnitude) * sum_error(3) + finite(expected).abs() * output_error(variant), where);
      output.expect_changed_only(untouched, 0, channels, where);
    }
    if (has_sums) {
      const at::Tensor allowed =
          finite(magnitude).sum(at::IntArrayRef{1, 2}) * sum_error(3) + pixel_sum_error(expected);
      expect_near(sums, expected.sum(at::IntArrayRef{1, 2}) + sums_before, allowed, where + ", sums");
    }
  });
}

// The error of the sums does not grow with the image: they are those of the very numbers that are read.
void check_long_sums_of_scale(const Variant& variant) {
  for_each_drawn(5000, 3, [&](Random& random, int i) {
    const int64_t channels = std::vector<int64_t>{16, 48, 1040}[static_cast<size_t>(i)];
    const at::Tensor x = random.tensor({channels, 70, 66}, variant.dtype()).abs();
    const Picture input = picture_of(x, variant.dtype(), random);
    const at::Tensor sums = at::zeros({channels}, at::kDouble);
    ScaleTask task{};
    task.input = input.at();
    task.input_strides = input.strides();
    task.sums = sums.mutable_data_ptr<double>();
    task.activation = Activation::kNone;
    task.channels = channels;
    task.width = 66;
    const int64_t cut = random.between(0, 70 * 66);
    for (const auto& [first, last] : {std::pair{int64_t{0}, cut}, std::pair{cut, int64_t{70 * 66}}}) {
      task.first = first;
      task.last = last;
      variant.element->scale(task);
    }
    expect_near(sums, x.sum(at::IntArrayRef{1, 2}), pixel_sum_error(x), text(channels, " channels"));
  });
}

// Nor does that of an average grow with the area of its window.
void check_large_window(const Variant& variant) {
  Random random(26);
  constexpr int64_t kSide = 128;
  const at::Tensor x = random.tensor({16, kSide, kSide}, variant.dtype()).abs();
  const Picture input = picture_of(x, variant.dtype(), random);
  const Picture output({16, 1, 1}, variant.dtype(), 7.0);
  PoolTask task{};
  task.input = input.at();
  task.input_strides = input.strides();
  task.input_height = task.input_width = task.kernel = task.stride = kSide;
  task.count_include_pad = true;
  task.activation = Activation::kNone;
  task.output = output.at();
  task.output_strides = output.strides();
  task.channels = 16;
  task.width = 1;
  task.last = 1;
  variant.element->pool(task);
  expect_relative(output.view(), x.mean(at::IntArrayRef{1, 2}, /*keepdim=*/true),
                  variant.is_float ? 8 * kFloatError : kBfloat16Error, "window 128");
}

void check_pool(const Variant& variant, bool maximum) {
  for_each_drawn(maximum ? 2000 : 3000, 250, [&](Random& random, int) {
    const int64_t channels = kChannelBlock * random.between(1, 5);
    const int64_t kernel = random.between(1, 5);
    const int64_t stride = random.between(1, 3);
    const int64_t padding = random.between(0, kernel / 2);
    const int64_t least = std::max<int64_t>(1, kernel - 2 * padding);
    const int64_t height = random.between(least, least + random.of<int64_t>({0, 1, 9}));
    const int64_t width = random.between(least, least + random.of<int64_t>({0, 1, 9}));
    const bool ceil_mode = random.chance(0.4);
    const bool count_include_pad = maximum || random.chance(0.6);
    const bool special = random.chance(0.3);
    const bool has_shift = random.chance(0.4);
    const Activation activation = random.chance(0.4) ? Activation::kRelu : Activation::kNone;
    const std::string where =
        text(channels, " x ", height, " x ", width, ", window ", kernel, " stride ", stride, " padding ",
             padding, ceil_mode ? ", ceil mode" : "", count_include_pad ? "" : ", without the padding",
             special ? ", special values" : "", has_shift ? ", shift" : "",
             activation == Activation::kRelu ? ", relu" : "");

    const at::Tensor x = draw_values({channels, height, width}, variant, special, random);
    const at::Tensor shift = random.tensor({channels}, at::kFloat);
    const at::Tensor batch = x.unsqueeze(0);
    const auto average = [&](const at::Tensor& of) {
      return at::avg_pool2d(of, kernel, stride, padding, ceil_mode, count_include_pad)[0];
    };
    at::Tensor expected =
        maximum ? at::max_pool2d(batch, kernel, stride, padding, 1, ceil_mode)[0] : average(batch);
    at::Tensor magnitude = maximum ? expected.abs() : average(finite(batch).abs());
    if (has_shift) {
      expected = expected + per_channel(shift);
      magnitude = magnitude + per_channel(shift).abs();
    }
    expected = activation == Activation::kRelu ? expected.relu() : expected;

    const Picture input = picture_of(x, variant.dtype(), random);
    const int64_t out_height = expected.size(1);
    const int64_t out_width = expected.size(2);
    const Picture output(draw_shape(channels, out_height, out_width, random), variant.dtype(), 7.0);
    const Picture untouched = output.clone();
    const at::Tensor shift_floats = shift.to(at::kFloat);
    PoolTask task{};
    task.input = input.at();
    task.input_strides = input.strides();
    task.input_height = height;
    task.input_width = width;
    task.kernel = kernel;
    task.stride = stride;
    task.padding = padding;
    task.maximum = maximum;
    task.count_include_pad = count_include_pad;
    task.shift = has_shift ? shift_floats.const_data_ptr<float>() : nullptr;
    task.activation = activation;
    task.output = output.at();
    task.output_strides = output.strides();
    task.channels = channels;
    task.width = out_width;
    const int64_t cut = random.between(0, out_height * out_width);
    for (const auto& [first, last] : {std::pair{int64_t{0}, cut}, std::pair{cut, out_height * out_width}}) {
      task.first = first;
      task.last = last;
      variant.element->pool(task);
    }
    expect_near(
        output.view(), expected,
        finite(magnitude) * sum_error(kernel * kernel + 2) + finite(expected).abs() * output_error(variant),
        where);
    output.expect_changed_only(untouched, 0, channels, where);
  });
}

// [channels, height, width] tensors of every kind of stride that a caller may have.
at::Tensor draw_view(int64_t channels, int64_t height, int64_t width, Random& random, std::string& kind) {
  const auto values = [&](at::IntArrayRef shape) { return random.tensor(shape, at::kFloat).to(at::kFloat); };
  switch (random.between(0, 6)) {
    case 0:
      kind = "contiguous";
      return values({channels, height, width});
    case 1:
      kind = "channels-last";
      return values({height, width, channels}).permute({2, 0, 1});
    case 2:
      kind = "expanded channels";
      return values({1, height, width}).expand({channels, height, width});
    case 3:
      kind = "expanded rows and columns";
      return values({channels, 1, 1}).expand({channels, height, width});
    case 4:
      kind = "transposed";
      return values({channels, width, height}).transpose(1, 2);
    case 5:
      kind = "every second row and third column";
      return values({channels, 2 * height, 3 * width}).slice(1, 1, 2 * height, 2).slice(2, 0, 3 * width, 3);
    default:
      kind = "part of a larger tensor";
      return values({channels + 2, height + 3, width + 1})
          .narrow(0, 1, channels)
          .narrow(1, 3, height)
          .narrow(2, 1, width);
  }
}

void check_load(const Variant& variant) {
  for_each_drawn(4000, 250, [&](Random& random, int) {
    const int64_t channels = random.of<int64_t>({1, 2, 3, 5, 16, 17, 40});
    const int64_t pixel = random.of<int64_t>({channels, channels + 1, padded(channels)});
    const int64_t height = random.of<int64_t>({1, 2, 5, 14});
    const int64_t width = random.of<int64_t>({1, 3, 9, 14});
    std::string kind;
    at::Tensor x = draw_view(channels, height, width, random, kind);
    if (random.chance(0.3)) {
      x.select(0, 0).select(0, 0).select(0, 0).fill_(random.of<double>({std::nan(""), HUGE_VAL, -HUGE_VAL}));
    }
    const std::string where = text(channels, " x ", height, " x ", width, " ", kind, " to pixels of ", pixel);

    Picture::Shape shape = draw_shape(pixel, height, width, random);
    const Picture output(shape, variant.dtype(), 7.0);
    const Picture untouched = output.clone();
    LoadTask task{};
    task.input = x.const_data_ptr<float>();
    task.channel_stride = x.stride(0);
    task.row_stride = x.stride(1);
    task.column_stride = x.stride(2);
    task.output = output.at();
    task.output_strides = output.strides();
    task.channels = channels;
    task.pixel_channels = pixel;
    task.width = width;
    const int64_t cut = random.between(0, height);
    for (const auto& [first, last] : {std::pair{int64_t{0}, cut}, std::pair{cut, height}}) {
      task.first = first;
      task.last = last;
      variant.element->load(task);
    }
    // Exactly LibTorch's rounding.
    const at::Tensor expected = with_zeros(x.to(variant.dtype()).to(at::kDouble), 0, pixel);
    expect_near(output.view(), expected, at::zeros({}, at::kDouble), where);
    output.expect_changed_only(untouched, 0, pixel, where);
  });
}

TEST_CASE("scale") {
  for_each_variant(check_scale);
}

TEST_CASE("scale, sums of large images") {
  for_each_variant(check_long_sums_of_scale);
}

TEST_CASE("maximum pool") {
  for_each_variant([](const Variant& variant) { check_pool(variant, /*maximum=*/true); });
}

TEST_CASE("average pool") {
  for_each_variant([](const Variant& variant) { check_pool(variant, /*maximum=*/false); });
}

TEST_CASE("average pool, a large window") {
  for_each_variant(check_large_window);
}

TEST_CASE("load") {
  for_each_variant(check_load);
}

}  // namespace
}  // namespace senet::test
