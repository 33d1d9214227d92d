// Winograd's algorithm, with its kernels and the packing of its weights, against at::conv2d in float64.
#include "support.h"

#include "inference/cpu/winograd.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

namespace senet::test {
namespace {

using namespace inference;

struct WinogradCase {
  int64_t images;
  int64_t in;
  int64_t out;
  graph::Size2 size;  // of the input
  graph::Size2 padding;
  int64_t extra_border;  // of the input
  int64_t out_channel;   // of the output's pixel: where the output begins
  int64_t extra_channels;
  bool has_sums;
  bool store;
  Activation activation;
  int32_t members;

  int64_t height() const {
    return size[0] + 2 * padding[0] - 2;
  }
  int64_t width() const {
    return size[1] + 2 * padding[1] - 2;
  }
  std::string name() const {
    return text(images, " images, ", in, " to ", out, " channels, input ", size[0], " x ", size[1],
                ", padding ", padding[0], " ", padding[1], has_sums ? ", sums" : "",
                store ? "" : ", no output", activation == Activation::kRelu ? ", relu" : "", ", ", members,
                " members");
  }
};

WinogradCase draw_winograd_case(Random& random) {
  WinogradCase of{};
  of.images = random.of<int64_t>({1, 1, 2, 5});
  of.in = random.of<int64_t>({16, 17, 32, 40, 80});
  of.out = random.of<int64_t>({16, 20, 48, 64, 100, 192});
  for (size_t axis = 0; axis < 2; ++axis) {
    of.size[axis] = random.of<int64_t>({1, 2, 3, 4, 7, 8, 13});
    of.padding[axis] = of.size[axis] < 3 ? random.between(1, 2) : random.between(0, 2);
  }
  of.extra_border = random.between(0, 1);
  of.out_channel = kChannelBlock * random.between(0, 2);
  of.extra_channels = kChannelBlock * random.between(0, 1);
  of.has_sums = random.chance();
  of.store = !of.has_sums || random.chance(0.8);
  of.activation = random.chance() ? Activation::kRelu : Activation::kNone;
  of.members = static_cast<int32_t>(random.between(1, 3));
  return of;
}

BufferLayout placed(int64_t channels, int64_t pixel, int64_t height, int64_t width, graph::Size2 border,
                    int64_t offset, int64_t element_bytes = 4) {
  BufferLayout at;
  at.channels = channels;
  at.pixel = pixel;
  at.border = border;
  at.height = height;
  at.width = width;
  at.row = (width + 2 * border[1]) * pixel;
  at.interior = border[0] * at.row + border[1] * pixel;
  at.element_bytes = element_bytes;
  at.image_bytes = (height + 2 * border[0]) * at.row * element_bytes;
  at.offset_bytes = offset;
  at.is_shared = true;
  return at;
}

void check_winograd_case(const Variant& variant, const WinogradCase& of, Random& random) {
  const int64_t out_pixel = padded(of.out) + of.out_channel + of.extra_channels;
  Layout layout;
  const graph::Size2 border = {of.padding[0] + of.extra_border, of.padding[1] + of.extra_border};
  layout.buffers = {placed(of.in, padded(of.in), of.size[0], of.size[1], border, 0)};
  const int64_t input_bytes = layout.buffers[0].image_bytes;
  layout.buffers.push_back(placed(of.out, out_pixel, of.height(), of.width(), {1, 1}, input_bytes));
  const int64_t output_bytes = layout.buffers[1].image_bytes;
  layout.buffers.push_back(
      placed(of.out, padded(of.out), of.members, 1, {0, 0}, input_bytes + output_bytes, 8));
  const int64_t bytes = input_bytes + output_bytes + layout.buffers[2].image_bytes;

  const at::Tensor x = random.tensor({of.images, of.in, of.size[0], of.size[1]}, at::kFloat);
  const at::Tensor weight = random.tensor({of.out, of.in, 3, 3}, at::kFloat);
  const at::Tensor bias = random.tensor({of.out}, at::kFloat);

  ConvolutionStep step;
  step.algorithm = Algorithm::kWinograd;
  step.kernels = variant.element;
  step.input = 0;
  step.kernel = {3, 3};
  step.stride = {1, 1};
  step.padding = of.padding;
  step.in_channels = of.in;
  step.out_channels = of.out;
  step.vector_channels = variant.kernels->vector_channels;
  step.sums = of.has_sums ? 2 : kNoBuffer;
  step.store = of.store;
  step.coefficient_bytes = packed_bytes(of.out, 1, padded(of.in), true);
  step.weights = at::empty({16 * step.coefficient_bytes}, at::kByte);
  const std::vector<int32_t> vectors =
      split_panels(of.out, step.vector_channels, variant.kernels->max_vectors);
  int64_t channel = 0;
  for (const int32_t count : vectors) {
    pack_winograd_panel({weight, {}, {}}, channel, padded(of.in), count * step.vector_channels,
                        step.coefficient_bytes,
                        step.weights.mutable_data_ptr<uint8_t>() + channel * padded(of.in) * 4);
    step.panels.push_back(
        {count, of.activation, channel * padded(of.in) * 4, channel, 1, of.out_channel + channel});
    channel += count * step.vector_channels;
  }
  const at::Tensor padded_bias = with_zeros(bias, 0, padded(of.out)).to(at::kFloat);
  step.bias.assign(padded_bias.const_data_ptr<float>(),
                   padded_bias.const_data_ptr<float>() + padded_bias.numel());

  // NaN everywhere that the step has no business.
  at::Tensor arena = at::full({of.images * bytes / 4}, std::nan(""), at::kFloat);
  auto* base = reinterpret_cast<char*>(arena.mutable_data_ptr<float>());
  const at::Tensor input =
      arena.narrow(0, 0, of.images * input_bytes / 4)
          .reshape({of.images, of.size[0] + 2 * border[0], of.size[1] + 2 * border[1], padded(of.in)})
          .permute({0, 3, 1, 2});
  input.narrow(2, of.extra_border, of.size[0] + 2 * of.padding[0])
      .narrow(3, of.extra_border, of.size[1] + 2 * of.padding[1])
      .zero_();
  input.narrow(2, border[0], of.size[0]).narrow(3, border[1], of.size[1]).narrow(1, 0, of.in).copy_(x);
  for (int32_t member = 0; member < of.members; ++member) {
    at::Tensor scratch = at::full({step.scratch_bytes(layout) / 4}, std::nan(""), at::kFloat);
    Work work{};
    work.layout = &layout;
    work.shared_base = base;
    work.scratch = reinterpret_cast<char*>(scratch.mutable_data_ptr<float>());
    work.images = of.images;
    work.last = of.images;
    work.team = {member, of.members};
    step.run(work);
  }

  at::Tensor expected = at::conv2d(x, weight, bias, {1, 1}, of.padding);
  if (of.activation == Activation::kRelu) {
    expected = expected.relu();
  }
  const at::Tensor magnitude = at::conv2d(x.abs(), weight.abs(), bias.abs(), {1, 1}, of.padding).max();
  const at::Tensor allowed = 4 * sum_error(9 * of.in) * magnitude;
  const at::Tensor output = arena.narrow(0, of.images * input_bytes / 4, of.images * output_bytes / 4)
                                .reshape({of.images, of.height() + 2, of.width() + 2, out_pixel})
                                .permute({0, 3, 1, 2});
  at::Tensor whole = at::full_like(output, std::nan(""));
  const auto pixels = [&](const at::Tensor& image) {
    return image.narrow(2, 1, of.height()).narrow(3, 1, of.width());
  };
  if (of.store) {
    expect_near(pixels(output).narrow(1, of.out_channel, of.out), expected, allowed, of.name());
    pixels(whole)
        .narrow(1, of.out_channel, padded(of.out))
        .copy_(pixels(output).narrow(1, of.out_channel, padded(of.out)));
    if (of.in >= 1024) {
      expect_relative(pixels(output).narrow(1, of.out_channel, of.out), expected, 16 * kFloatError,
                      of.name());
    }
  }
  REQUIRE_MESSAGE(same_bytes(output.contiguous(), whole.contiguous()), of.name(),
                  ": changed memory beside the output");
  if (of.has_sums) {
    const at::Tensor sums = arena
                                .narrow(0, of.images * (input_bytes + output_bytes) / 4,
                                        of.images * layout.buffers[2].image_bytes / 4)
                                .view(at::kDouble)
                                .reshape({of.images, of.members, padded(of.out)})
                                .sum(1)
                                .narrow(1, 0, of.out);
    expect_near(sums, expected.sum({2, 3}), allowed * of.height() * of.width(), of.name() + ", sums");
    for (int64_t image = 0; of.store && image < of.images; ++image) {
      // Those of the very numbers that are written.
      const at::Tensor written = pixels(output)[image].narrow(0, of.out_channel, of.out).to(at::kDouble);
      expect_near(sums[image], written.sum(at::IntArrayRef{1, 2}), pixel_sum_error(written),
                  of.name() + ", sums of what is written");
    }
  }
}

TEST_CASE("winograd") {
  for_each_variant([](const Variant& variant) {
    if (variant.is_float) {
      for_each_drawn(1000, 120, [&](Random& random, int) {
        check_winograd_case(variant, draw_winograd_case(random), random);
      });
    }
  });
}

TEST_CASE("winograd, large images and many products") {
  for_each_variant([](const Variant& variant) {
    if (!variant.is_float) {
      return;
    }
    for_each_drawn(2000, 2, [&](Random& random, int i) {
      WinogradCase of = draw_winograd_case(random);
      of.in = i == 0 ? 16 : 2048;
      of.out = 20;
      of.size = i == 0 ? graph::Size2{67, 70} : graph::Size2{5, 4};
      of.padding = {1, 1};
      of.has_sums = of.store = true;
      of.activation = i == 0 ? Activation::kRelu : Activation::kNone;
      check_winograd_case(variant, of, random);
    });
  });
}

}  // namespace
}  // namespace senet::test
