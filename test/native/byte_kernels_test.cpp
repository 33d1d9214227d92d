// The kernels of bytes of every instruction set: what each gives is, bit for bit, what its definition says in
// integers and in single operations of float32.
#include "support.h"

#include "inference/cpu/packing.h"
#include "inference/cpu/quantize.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace senet::test {
namespace {

using namespace inference;

// Runs `test` with the kernels of bytes of each instruction set.
void for_each_byte_variant(const std::function<void(const Kernels&)>& test) {
  for (const char* name :
       {"scalar", "avx2", "avx2_vnni", "avx512", "avx512_vnni", "amx_int8", "amx_emulated"}) {
    SUBCASE(name) {
      if (const Kernels* kernels = runnable_kernels(name)) {
        REQUIRE(kernels->bytes != nullptr);
        test(*kernels);
      }
    }
  }
}

std::vector<uint8_t> draw_bytes(Random& random, int64_t count) {
  std::vector<uint8_t> result(static_cast<size_t>(count));
  // Runs of extremes now and then: where 16 bits would overflow.
  const bool extreme = random.chance(0.2);
  for (uint8_t& byte : result) {
    byte = static_cast<uint8_t>(extreme ? 255 : random.between(0, 255));
  }
  return result;
}

std::vector<float> draw_floats(Random& random, int64_t count, double scale) {
  std::vector<float> result(static_cast<size_t>(count));
  for (float& value : result) {
    value = static_cast<float>(static_cast<double>(random.between(-1000, 1000)) / 1000 * scale);
  }
  return result;
}

uint8_t to_byte(float y, float least) {
  y = y > least ? y : least;
  return y < 255.0f ? static_cast<uint8_t>(std::nearbyint(y)) : uint8_t{255};
}

TEST_CASE("bytes: a convolution is its definition, bit for bit") {
  for_each_byte_variant([](const Kernels& kernels) {
    for_each_drawn(7100, 60, [&](Random& random, int) {
      const int64_t in = 4 * random.between(1, 12);
      const int64_t out = random.between(1, 70);
      const int64_t kernel = random.of<int64_t>({1, 1, 3});
      const int64_t stride = random.between(1, 2);
      const int64_t height = random.between(kernel, 9);
      const int64_t width = random.between(kernel, random.chance(0.3) ? 40 : 9);
      const int64_t out_height = (height - kernel) / stride + 1;
      const int64_t out_width = (width - kernel) / stride + 1;
      const int64_t channels = padded(out);
      const std::vector<uint8_t> x = draw_bytes(random, height * width * in);
      at::Tensor weight = at::zeros({out, in, kernel, kernel}, at::kChar);
      auto* const w = weight.mutable_data_ptr<int8_t>();
      for (int64_t i = 0; i < weight.numel(); ++i) {
        w[i] = static_cast<int8_t>(random.chance(0.1) ? -127 : random.between(-127, 127));
      }
      const bool has_scale = random.chance();
      const bool has_residual = random.chance();
      const bool has_sums = random.chance();
      const bool is_float = !has_sums && random.chance(0.3);
      const bool relu = random.chance();
      std::vector<int32_t> start(static_cast<size_t>(channels));
      for (int32_t& value : start) {
        value = static_cast<int32_t>(random.between(-100000, 100000));
      }
      std::vector<float> multiplier = draw_floats(random, channels, 0.002);
      std::vector<float> bias = draw_floats(random, channels, 100);
      const std::vector<float> scale = draw_floats(random, channels, 1);
      const std::vector<uint8_t> residual = draw_bytes(random, out_height * out_width * channels);
      if (random.chance(0.2)) {
        bias[0] = std::numeric_limits<float>::quiet_NaN();
        multiplier[static_cast<size_t>(out - 1)] = 1e9f;
      }
      ToBytes to;
      to.residual_factor = static_cast<float>(random.between(-200, 200)) / 100;
      to.offset = static_cast<float>(random.between(0, 2550)) / 10;
      to.least = relu ? 13.0f : 0.0f;
      // Panel after panel, as pack.cpp does it.
      std::vector<uint8_t> packed(static_cast<size_t>(packed_byte_bytes(out, kernel * kernel, in)) + 64);
      std::vector<uint8_t> bytes(static_cast<size_t>(out_height * out_width * channels), 77);
      std::vector<float> floats(bytes.size(), -77.0f);
      std::vector<double> sums(static_cast<size_t>(channels), 5.0);
      std::vector<int64_t> taps;
      for (int64_t row = 0; row < kernel; ++row) {
        taps.push_back(row * width * in);
      }
      int64_t channel = 0;
      int64_t at = 0;
      for (const int32_t vectors : split_panels(out, kernels.vector_channels, kernels.max_vectors)) {
        const int64_t panel = vectors * kernels.vector_channels;
        pack_byte_panel(weight, channel, in, panel, packed.data() + at);
        ConvTask task{};
        task.input = x.data();
        task.input_strides = {stride * width * in, stride * in};
        task.taps = taps.data();
        task.tap_count = kernel;
        task.tap_length = kernel * in;
        task.weights = packed.data() + at;
        task.bias = bias.data() + channel;
        task.start = start.data() + channel;
        task.multiplier = multiplier.data() + channel;
        task.scale = has_scale ? scale.data() + channel : nullptr;
        task.residual = has_residual ? residual.data() + channel : nullptr;
        task.residual_strides = {out_width * channels, channels};
        task.sums = has_sums ? sums.data() + channel : nullptr;
        task.output = is_float ? static_cast<void*>(floats.data() + channel) : bytes.data() + channel;
        task.output_strides = {out_width * channels, channels};
        task.output_is_float = is_float;
        task.output_is_byte = !is_float;
        task.activation = relu ? Activation::kRelu : Activation::kNone;
        task.to_bytes = to;
        task.vectors = vectors;
        task.width = out_width;
        task.last = out_height * out_width;
        ConvolutionRunner(*kernels.bytes, task, out_height, 1).run(task);
        at += packed_byte_bytes(panel, kernel * kernel, in);
        channel += panel;
      }
      for (int64_t o = 0; o < out; ++o) {
        const auto c = static_cast<size_t>(o);
        double sum = 5.0;
        for (int64_t pixel = 0; pixel < out_height * out_width; ++pixel) {
          int32_t total = start[c];
          for (int64_t i = 0; i < in; ++i) {
            for (int64_t ky = 0; ky < kernel; ++ky) {
              for (int64_t kx = 0; kx < kernel; ++kx) {
                const int64_t y = pixel / out_width * stride + ky;
                const int64_t column = pixel % out_width * stride + kx;
                total += w[((o * in + i) * kernel + ky) * kernel + kx] *
                         static_cast<int32_t>(x[static_cast<size_t>((y * width + column) * in + i)]);
              }
            }
          }
          const float factor = has_scale ? multiplier[c] * scale[c] : multiplier[c];
          const float shift = has_scale ? std::fma(bias[c], scale[c], to.offset) : bias[c] + to.offset;
          float y = std::fma(static_cast<float>(total), factor, shift);
          const auto element = static_cast<size_t>(pixel * channels + o);
          if (has_residual) {
            y = std::fma(static_cast<float>(residual[element]), to.residual_factor, y);
          }
          if (is_float) {
            y = relu && y < 0.0f ? 0.0f : y;
            const bool same = floats[element] == y || (std::isnan(y) && std::isnan(floats[element]));
            REQUIRE_MESSAGE(same, kernels.name, ": channel ", o, ", pixel ", pixel, ": ", floats[element],
                            " is not ", y);
          } else {
            const uint8_t expected = to_byte(y, to.least);
            REQUIRE_MESSAGE(bytes[element] == expected, kernels.name, ": channel ", o, ", pixel ", pixel,
                            ": ", static_cast<int>(bytes[element]), " is not ", static_cast<int>(expected),
                            " of ", y);
            sum += expected;
          }
        }
        if (has_sums) {
          REQUIRE(sums[c] == sum);
        }
      }
    });
  });
}

TEST_CASE("bytes: scaling and pooling are their definitions, bit for bit") {
  for_each_byte_variant([](const Kernels& kernels) {
    for_each_drawn(7200, 60, [&](Random& random, int) {
      const int64_t channels = 16 * random.between(1, 3);
      const int64_t height = random.between(2, 9);
      const int64_t width = random.between(2, 9);
      const std::vector<uint8_t> x = draw_bytes(random, height * width * channels);
      const std::vector<float> xf = draw_floats(random, height * width * channels, 40);
      const std::vector<uint8_t> residual = draw_bytes(random, height * width * channels);
      const std::vector<float> scale = draw_floats(random, channels, 2);
      const std::vector<float> shift = draw_floats(random, channels, 20);
      ToBytes to;
      to.factor = 1.7f;
      to.input_factor = 0.73f;
      to.input_zero = static_cast<float>(random.between(0, 255));
      to.residual_factor = 0.31f;
      to.offset = static_cast<float>(random.between(0, 255));
      to.least = random.chance() ? to.offset : 0.0f;
      ScaleTask task{};
      const Strides strides = {width * channels, channels};
      task.input_is_float = random.chance(0.3);
      if (task.input_is_float) {
        to.input_zero = 0;
      }
      task.input = task.input_is_float ? static_cast<const void*>(xf.data()) : x.data();
      task.input_strides = task.residual_strides = task.output_strides = strides;
      task.scale = random.chance() ? scale.data() : nullptr;
      task.shift = random.chance() ? shift.data() : nullptr;
      task.residual = random.chance() ? residual.data() : nullptr;
      std::vector<double> sums(static_cast<size_t>(channels), 0.0);
      task.output_is_float = random.chance(0.3);
      task.sums = !task.output_is_float && random.chance() ? sums.data() : nullptr;
      std::vector<uint8_t> bytes(x.size());
      std::vector<float> floats(x.size());
      task.output = task.output_is_float ? static_cast<void*>(floats.data()) : bytes.data();
      task.channels = channels;
      task.width = width;
      task.last = height * width;
      task.to_bytes = to;
      kernels.bytes->scale(task);
      std::vector<double> expected_sums(sums.size(), 0.0);
      for (size_t i = 0; i < x.size(); ++i) {
        const size_t c = i % static_cast<size_t>(channels);
        const float factor = task.scale != nullptr ? scale[c] * to.input_factor : to.input_factor;
        float offset = std::fma(-to.input_zero, factor, to.offset);
        if (task.shift != nullptr) {
          offset = std::fma(shift[c], to.factor, offset);
        }
        float y = std::fma(task.input_is_float ? xf[i] : static_cast<float>(x[i]), factor, offset);
        if (task.residual != nullptr) {
          y = std::fma(static_cast<float>(residual[i]), to.residual_factor, y);
        }
        if (task.output_is_float) {
          REQUIRE(floats[i] == y);
        } else {
          REQUIRE(static_cast<int>(bytes[i]) == static_cast<int>(to_byte(y, to.least)));
          expected_sums[c] += to_byte(y, to.least);
        }
      }
      if (task.sums != nullptr) {
        REQUIRE(sums == expected_sums);
      }

      PoolTask pool{};
      pool.input = x.data();
      pool.input_strides = strides;
      pool.input_height = height;
      pool.input_width = width;
      pool.kernel = random.between(2, 3);
      pool.stride = random.between(1, 2);
      pool.padding = random.between(0, 1);
      pool.maximum = random.chance();
      pool.count_include_pad = random.chance();
      pool.shift = random.chance() ? shift.data() : nullptr;
      const int64_t rows = (height + 2 * pool.padding - pool.kernel) / pool.stride + 1;
      const int64_t columns = (width + 2 * pool.padding - pool.kernel) / pool.stride + 1;
      std::vector<uint8_t> pooled(static_cast<size_t>(rows * columns * channels));
      pool.output = pooled.data();
      pool.output_strides = {columns * channels, channels};
      pool.channels = channels;
      pool.width = columns;
      pool.last = rows * columns;
      pool.to_bytes = to;
      kernels.bytes->pool(pool);
      for (int64_t pixel = 0; pixel < rows * columns; ++pixel) {
        for (int64_t c = 0; c < channels; ++c) {
          int32_t result = 0;
          int32_t inside = 0;
          for (int64_t i = 0; i < pool.kernel * pool.kernel; ++i) {
            const int64_t y = pixel / columns * pool.stride - pool.padding + i / pool.kernel;
            const int64_t column = pixel % columns * pool.stride - pool.padding + i % pool.kernel;
            if (y >= 0 && y < height && column >= 0 && column < width) {
              const int32_t value = x[static_cast<size_t>((y * width + column) * channels + c)];
              result = pool.maximum ? std::max(result, value) : result + value;
              ++inside;
            }
          }
          const auto zero = static_cast<int32_t>(to.input_zero);
          result -= zero * (pool.maximum ? 1 : inside);
          const auto count = pool.count_include_pad ? static_cast<float>(pool.kernel * pool.kernel)
                                                    : static_cast<float>(inside);
          const float factor = pool.maximum ? to.input_factor : to.input_factor / count;
          const float offset = pool.shift == nullptr
                                   ? to.offset
                                   : std::fma(shift[static_cast<size_t>(c)], to.factor, to.offset);
          const float y = std::fma(static_cast<float>(result), factor, offset);
          REQUIRE(static_cast<int>(pooled[static_cast<size_t>(pixel * channels + c)]) ==
                  static_cast<int>(to_byte(y, to.least)));
        }
      }
    });
  });
}

TEST_CASE("bytes: weights that were rounded stay what they are when they are rounded once more") {
  for_each_drawn(7300, 40, [](Random& random, int) {
    const at::Tensor weight = random.tensor({random.between(1, 40), random.between(1, 40), 3, 3}, at::kFloat)
                                  .to(at::kFloat)
                                  .mul(random.of<double>({1e-6, 0.02, 1, 3000}));
    const at::Tensor scales = weight_scales(weight);
    const at::Tensor bytes = to_int8(weight, scales);
    const at::Tensor rounded = (bytes.to(at::kDouble) * scales.reshape({-1, 1, 1, 1})).to(at::kFloat);
    CHECK(same_bytes(weight_scales(rounded), scales));
    CHECK(same_bytes(to_int8(rounded, scales), bytes));
    CHECK(bytes.abs().flatten(1).amax(1).eq(127).all().item<bool>());
    const at::Tensor off = (rounded - weight).abs().flatten(1).amax(1).to(at::kDouble);
    CHECK((off <= scales * 0.5001).all().item<bool>());
  });
}

}  // namespace
}  // namespace senet::test
