// Weights in the order that the kernels read, folded in float64, from weights of several kinds.
#include "support.h"

#include "inference/cpu/packing.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace senet::test {
namespace {

using namespace inference;

// No two elements alike, none of them zero: of any dtype that a module may have, dense or not, with factors
// or without.
Linearised random_linear(Random& random, const std::vector<int64_t>& shape) {
  const at::ScalarType dtypes[] = {at::kFloat, at::kFloat, at::kDouble, at::kBFloat16};
  Linearised linear;
  linear.weight = (random.tensor(shape, at::kFloat) + 2.0).to(dtypes[random.between(0, 3)]);
  if (random.chance()) {
    linear.weight = linear.weight.contiguous(at::MemoryFormat::ChannelsLast);
  }
  if (random.chance()) {
    linear.scale = random.tensor({shape[0], 1, 1, 1}, at::kDouble) + 2.0;
  }
  return linear;
}

void check_packing(const Variant& variant) {
  const int32_t width = variant.kernels->vector_channels;
  for_each_drawn(1000, 60, [&](Random& random, int) {
    const int64_t out = random.between(1, 150);
    const int64_t in = random.between(1, 40);
    const graph::Size2 kernel = {random.between(1, 4), random.between(1, 4)};
    const int64_t window = kernel[0] * kernel[1];
    const int64_t pixel = random.chance() ? padded(in) : variant.is_float ? in : (in + 1) / 2 * 2;
    const std::string where = text(out, " x ", in, " x ", kernel[0], " x ", kernel[1], ", pixel ", pixel);
    const std::vector<int32_t> panels = split_panels(out, width, variant.kernels->max_vectors);
    const int64_t bytes = packed_bytes(out, window, pixel, variant.is_float);
    REQUIRE_MESSAGE(bytes == padded(out) * window * pixel * (variant.is_float ? 4 : 2), where,
                    ": packed_bytes");

    const Linearised linear = random_linear(random, {out, in, kernel[0], kernel[1]});
    const at::Tensor rounded = linear.product().to(at::kFloat).to(variant.dtype()).to(at::kDouble);
    const at::Tensor memory = at::full({bytes + 64}, 0x5a, at::kByte);
    int64_t channel = 0;
    for (const int32_t vectors : panels) {
      pack_panel(linear, channel, pixel, variant.is_float, vectors * width,
                 memory.mutable_data_ptr<uint8_t>() + packed_bytes(channel, window, pixel, variant.is_float));
      channel += vectors * width;
    }
    REQUIRE_MESSAGE(memory.narrow(0, bytes, 64).eq(0x5a).all().item<bool>(), where,
                    ": wrote past packed_bytes");

    // Reading back as kernels.h says: a panel after the other, [tap][element][channel], for bfloat16 pairs of
    // elements innermost.
    const at::Tensor packed = memory.narrow(0, 0, bytes).view(variant.dtype()).to(at::kDouble);
    const int64_t group = variant.is_float ? 1 : 2;
    std::vector<at::Tensor> channels;
    int64_t start = 0;
    for (const int32_t vectors : panels) {
      const int64_t count = vectors * width;
      channels.push_back(packed.narrow(0, start, count * window * pixel)
                             .reshape({window * pixel / group, count, group})
                             .permute({1, 0, 2})
                             .reshape({count, kernel[0], kernel[1], pixel}));
      start += count * window * pixel;
    }
    const at::Tensor unpacked = at::cat(channels, 0).permute({0, 3, 1, 2});
    const at::Tensor all = with_zeros(with_zeros(rounded, 0, padded(out)), 1, pixel);
    REQUIRE_MESSAGE(at::equal(unpacked, all), where, ": other weights");
  });
}

TEST_CASE("split_panels") {
  for (const auto& [width, most] : {std::pair{8, 2}, std::pair{16, 4}}) {
    for (int64_t channels = 1; channels <= 2100; ++channels) {
      const std::vector<int32_t> panels = split_panels(channels, width, most);
      const auto [least, largest] = std::minmax_element(panels.begin(), panels.end());
      int64_t vectors = 0;
      for (const int32_t panel : panels) {
        vectors += panel;
      }
      const std::string where = text(channels, " channels in vectors of ", width);
      REQUIRE_MESSAGE(vectors * width == padded(channels), where, ": the panels have ", vectors * width);
      REQUIRE_MESSAGE((*least >= 1 && *largest <= most), where, ": a panel has ", *least, " or ", *largest,
                      " vectors");
      REQUIRE_MESSAGE(*largest - *least <= 1, where, ": panels of ", *least, " and ", *largest, " vectors");
      REQUIRE_MESSAGE(static_cast<int64_t>(panels.size()) == (vectors + most - 1) / most, where, ": ",
                      panels.size(), " panels");
    }
  }
}

// Against LibTorch's own sum of products.
TEST_CASE("pack_winograd_panel") {
  const at::Tensor g =
      at::tensor({1.0, 0.0, 0.0, 0.5, 0.5, 0.5, 0.5, -0.5, 0.5, 0.0, 0.0, 1.0}, at::kDouble).reshape({4, 3});
  for_each_drawn(2000, 40, [&](Random& random, int) {
    const int64_t out = random.between(1, 70);
    const int64_t in = random.between(1, 70);
    const int64_t channels = padded(std::min(out, random.between(1, 70)));
    const int64_t first = random.between(0, out - 1) / kChannelBlock * kChannelBlock;
    const int64_t count = std::min(channels, out - first);
    const std::string where = text(out, " x ", in, ", ", channels, " from ", first);
    const Linearised linear = random_linear(random, {out, in, 3, 3});
    const int64_t used = packed_bytes(channels, 1, padded(in), true);
    const int64_t pitch = used + 64;
    const at::Tensor memory = at::full({kWinogradCoefficients * pitch}, 0x5a, at::kByte);
    pack_winograd_panel(linear, first, padded(in), channels, pitch, memory.mutable_data_ptr<uint8_t>());
    const at::Tensor planes = memory.reshape({kWinogradCoefficients, pitch});
    REQUIRE_MESSAGE(planes.narrow(1, used, 64).eq(0x5a).all().item<bool>(), where,
                    ": wrote past packed_bytes");
    const at::Tensor packed = planes.narrow(1, 0, used)
                                  .contiguous()
                                  .view(at::kFloat)
                                  .reshape({kWinogradCoefficients, padded(in), channels})
                                  .to(at::kDouble);
    const at::Tensor expected =
        with_zeros(with_zeros(at::einsum("ak,oikl,bl->abio", {g, linear.product(first, count, 0, in), g})
                                  .reshape({kWinogradCoefficients, in, count}),
                              1, padded(in)),
                   2, channels);
    expect_near(packed, expected, 2 * kFloatError * expected.abs() + 1e-12, where);
  });
}

void check_add_product(const Variant& variant) {
  for_each_drawn(3000, 60, [&](Random& random, int) {
    const int64_t rows = random.between(1, 40);
    const int64_t inner = random.between(1, 600);
    const int64_t columns = random.between(1, 100);
    const Linearised right = random_linear(random, {inner, columns, 1, 1});
    const at::Tensor left = random.tensor({rows, inner}, at::kFloat).to(at::kFloat);
    const at::Tensor sums = random.tensor({rows, columns}, at::kDouble);
    const at::Tensor expected = sums + at::matmul(left.to(at::kDouble), right.product().flatten(1));
    add_product(left, right, *variant.kernels, sums);
    expect_near(sums, expected, at::full({}, 1e-12 * static_cast<double>(inner), at::kDouble),
                text(rows, " x ", inner, " x ", columns));
  });
}

TEST_CASE("pack_panel") {
  for_each_variant(check_packing);
}

TEST_CASE("add_product") {
  for_each_variant([](const Variant& variant) {
    if (variant.is_float) {
      check_add_product(variant);
    }
  });
}

}  // namespace
}  // namespace senet::test
