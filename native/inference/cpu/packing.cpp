#include "inference/cpu/packing.h"

#include <ATen/ops/zeros.h>
#include <c10/util/BFloat16.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <tuple>
#include <utility>

namespace senet::inference {
namespace {

// Elements of a channel that are packed at a time: so many lines of the source stay in the first-level cache.
constexpr int64_t kElements = 16;

// Some rows of [out, in, height, width], each with its factor.
template <typename Source>
struct Rows {
  const Source* elements;
  const double* scale;  // may be null: 1
  int64_t count;
  int64_t in_channels;
  int64_t window;

  int64_t length() const {
    return in_channels * window;
  }
  double factor(int64_t row) const {
    return scale == nullptr ? 1.0 : scale[row];
  }
};

// The first of a panel's output channels and how many of them there are: the padding may be a panel of its
// own.
std::pair<int64_t, int64_t> rows_of(const at::Tensor& weight, int64_t first, int64_t count) {
  first = std::min(first, weight.size(0));
  return {first, std::min(count, weight.size(0) - first)};
}

// Calls `body` with the output channels [first, first + count) as Rows, or as many as there are.
template <typename Body>
void with_rows(const Linearised& linear, int64_t first, int64_t count, const Body& body) {
  const at::Tensor& weight = linear.weight;
  const int64_t in_channels = weight.size(1);
  const int64_t window = weight.size(2) * weight.size(3);
  std::tie(first, count) = rows_of(weight, first, count);
  if (weight.scalar_type() == at::kFloat && weight.is_contiguous()) {
    const double* const scale =
        linear.scale.defined() ? linear.scale.const_data_ptr<double>() + first : nullptr;
    body(Rows<float>{weight.const_data_ptr<float>() + first * in_channels * window, scale, count, in_channels,
                     window});
  } else {
    const at::Tensor product = linear.product(first, count, 0, in_channels);
    body(Rows<double>{product.const_data_ptr<double>(), nullptr, count, in_channels, window});
  }
}

template <typename Source>
void pack(const Rows<Source>& rows, int64_t pixel, bool is_float, int64_t channels, uint8_t* to) {
  const int64_t length = rows.length();
  const int64_t group = is_float ? 1 : 2;
  if (rows.count < channels || rows.in_channels < pixel) {
    std::memset(to, 0, static_cast<size_t>(packed_bytes(channels, rows.window, pixel, is_float)));
  }
  std::vector<float> transposed(static_cast<size_t>(kElements * channels));
  for (int64_t first = 0; first < length; first += kElements) {
    const int64_t count = std::min(kElements, length - first);
    for (int64_t o = 0; o < rows.count; ++o) {
      const Source* const from = rows.elements + o * length + first;
      const double factor = rows.factor(o);
      for (int64_t e = 0; e < count; ++e) {
        transposed[static_cast<size_t>(e * channels + o)] = static_cast<float>(from[e] * factor);
      }
    }
    for (int64_t e = 0; e < count; ++e) {
      const int64_t k = (first + e) % rows.window * pixel + (first + e) / rows.window;
      const int64_t at = (k / group) * channels * group + k % group;
      const float* const values = transposed.data() + e * channels;
      if (is_float) {
        std::copy_n(values, rows.count, reinterpret_cast<float*>(to) + at);
      } else {
        for (int64_t o = 0; o < rows.count; ++o) {
          reinterpret_cast<uint16_t*>(to)[at + o * group] = c10::detail::round_to_nearest_even(values[o]);
        }
      }
    }
  }
}

// G g G^T of Winograd's F(2 x 2, 3 x 3), where G is (1 0 0; 1/2 1/2 1/2; 1/2 -1/2 1/2; 0 0 1).
std::array<double, kWinogradCoefficients> transform(const std::array<double, 9>& g) {
  const auto expand = [](double a, double b, double c) {
    const double ends = 0.5 * (a + c);
    return std::array<double, 4>{a, ends + 0.5 * b, ends - 0.5 * b, c};
  };
  std::array<std::array<double, 4>, 3> columns;  // G g, column by column
  for (size_t x = 0; x < 3; ++x) {
    columns[x] = expand(g[x], g[3 + x], g[6 + x]);
  }
  std::array<double, kWinogradCoefficients> result;
  for (size_t y = 0; y < 4; ++y) {
    const std::array<double, 4> row = expand(columns[0][y], columns[1][y], columns[2][y]);
    std::copy(row.begin(), row.end(), result.begin() + static_cast<int64_t>(4 * y));
  }
  return result;
}

template <typename Source>
void pack_winograd(const Rows<Source>& rows, int64_t pixel, int64_t channels, int64_t coefficient_bytes,
                   uint8_t* to) {
  if (rows.count < channels || rows.in_channels < pixel) {
    for (int64_t k = 0; k < kWinogradCoefficients; ++k) {
      std::memset(to + k * coefficient_bytes, 0, static_cast<size_t>(packed_bytes(channels, 1, pixel, true)));
    }
  }
  const int64_t plane = kElements * channels;
  std::vector<float> transposed(static_cast<size_t>(kWinogradCoefficients * plane));
  for (int64_t first = 0; first < rows.in_channels; first += kElements) {
    const int64_t count = std::min(kElements, rows.in_channels - first);
    for (int64_t o = 0; o < rows.count; ++o) {
      const Source* const from = rows.elements + o * rows.length() + first * 9;
      const double factor = rows.factor(o);
      for (int64_t e = 0; e < count; ++e) {
        std::array<double, 9> window;
        std::transform(from + e * 9, from + (e + 1) * 9, window.begin(),
                       [factor](Source x) { return x * factor; });
        const std::array<double, kWinogradCoefficients> values = transform(window);
        for (int64_t k = 0; k < kWinogradCoefficients; ++k) {
          transposed[static_cast<size_t>(k * plane + e * channels + o)] =
              static_cast<float>(values[static_cast<size_t>(k)]);
        }
      }
    }
    for (int64_t k = 0; k < kWinogradCoefficients; ++k) {
      auto* const panel = reinterpret_cast<float*>(to + k * coefficient_bytes);
      for (int64_t e = 0; e < count; ++e) {
        std::copy_n(transposed.data() + k * plane + e * channels, rows.count, panel + (first + e) * channels);
      }
    }
  }
}

}  // namespace

int64_t packed_bytes(int64_t out_channels, int64_t window, int64_t pixel, bool is_float) {
  return padded_channels(out_channels) * window * pixel * (is_float ? 4 : 2);
}

namespace {

// Panels of at most so many vectors.
Grouping group_panels(int32_t most_vectors, int64_t groups, int64_t in_channels, int64_t out_channels,
                      int64_t pixel, int64_t step, int32_t vector_channels) {
  const int64_t outputs = out_channels / groups;  // of a group
  const int64_t inputs = in_channels / groups;
  Grouping result{0, {}};
  int64_t channel = 0;
  for (const int32_t vectors : split_panels(out_channels, vector_channels, most_vectors)) {
    const int64_t last = std::min(channel + vectors * vector_channels, out_channels) - 1;
    const int64_t begin = std::min(channel, last) / outputs * inputs / step * step;
    const int64_t end = (last / outputs + 1) * inputs;
    result.slice = std::max(result.slice, (end - begin + step - 1) / step * step);
    result.panels.push_back({vectors, channel, begin});
    channel += vectors * vector_channels;
  }
  for (Grouping::Panel& panel : result.panels) {
    panel.input_channel = std::min(panel.input_channel, pixel - result.slice);
  }
  return result;
}

}  // namespace

Grouping choose_grouping(int64_t groups, int64_t in_channels, int64_t out_channels, int64_t pixel,
                         int64_t step, const Kernels& kernels) {
  Grouping best = group_panels(1, groups, in_channels, out_channels, pixel, step, kernels.vector_channels);
  for (int32_t vectors = 2; vectors <= kernels.max_vectors; ++vectors) {
    Grouping wider =
        group_panels(vectors, groups, in_channels, out_channels, pixel, step, kernels.vector_channels);
    if (wider.slice <= best.slice) {
      best = std::move(wider);
    }
  }
  return best;
}

Linearised ungroup(const Linearised& linear, int64_t groups, int64_t first, int64_t count,
                   int64_t first_input, int64_t inputs) {
  const at::Tensor& weight = linear.weight;
  const int64_t outputs = weight.size(0) / groups;  // of a group
  const int64_t own = weight.size(1);
  std::tie(first, count) = rows_of(weight, first, count);
  const at::Tensor rows = linear.product(first, count, 0, own);
  at::Tensor dense = at::zeros({count, inputs, weight.size(2), weight.size(3)}, at::kDouble);
  for (int64_t o = 0; o < count; ++o) {
    dense.select(0, o).narrow(0, (first + o) / outputs * own - first_input, own).copy_(rows.select(0, o));
  }
  return {dense, {}, {}};
}

std::vector<int32_t> split_panels(int64_t channels, int32_t vector_channels, int32_t max_vectors) {
  const int64_t vectors = padded_channels(channels) / vector_channels;
  const int64_t count = (vectors + max_vectors - 1) / max_vectors;
  std::vector<int32_t> result;
  for (int64_t i = 0; i < count; ++i) {
    result.push_back(static_cast<int32_t>(vectors * (i + 1) / count - vectors * i / count));
  }
  return result;
}

void pack_panel(const Linearised& linear, int64_t first, int64_t pixel, bool is_float, int64_t channels,
                uint8_t* to) {
  with_rows(linear, first, channels, [&](const auto& rows) { pack(rows, pixel, is_float, channels, to); });
}

int64_t packed_byte_bytes(int64_t out_channels, int64_t window, int64_t pixel) {
  return padded_channels(out_channels) * window * pixel;
}

void pack_byte_panel(const at::Tensor& weight, int64_t first, int64_t pixel, int64_t channels, uint8_t* to) {
  constexpr int64_t kFour = 4;
  int64_t count = channels;
  std::tie(first, count) = rows_of(weight, first, count);
  const int64_t in_channels = weight.size(1);
  const int64_t window = weight.size(2) * weight.size(3);
  const int64_t length = in_channels * window;
  if (count < channels || in_channels < pixel) {
    std::memset(to, 0, static_cast<size_t>(channels * window * pixel));
  }
  const int8_t* const from = weight.const_data_ptr<int8_t>() + first * length;
  for (int64_t block = 0; block < length; block += kElements) {
    const int64_t end = std::min(block + kElements, length);
    for (int64_t o = 0; o < count; ++o) {
      for (int64_t e = block; e < end; ++e) {
        const int64_t k = e % window * pixel + e / window;
        to[(k / kFour * channels + o) * kFour + k % kFour] = static_cast<uint8_t>(from[o * length + e]);
      }
    }
  }
}

at::Tensor ungroup_bytes(const at::Tensor& weight, int64_t groups, int64_t first, int64_t count,
                         int64_t first_input, int64_t inputs) {
  const int64_t outputs = weight.size(0) / groups;  // of a group
  const int64_t own = weight.size(1);
  std::tie(first, count) = rows_of(weight, first, count);
  at::Tensor dense = at::zeros({count, inputs, weight.size(2), weight.size(3)}, at::kChar);
  for (int64_t o = 0; o < count; ++o) {
    dense.select(0, o)
        .narrow(0, (first + o) / outputs * own - first_input, own)
        .copy_(weight.select(0, first + o));
  }
  return dense;
}

void pack_winograd_panel(const Linearised& linear, int64_t first, int64_t pixel, int64_t channels,
                         int64_t coefficient_bytes, uint8_t* to) {
  with_rows(linear, first, channels,
            [&](const auto& rows) { pack_winograd(rows, pixel, channels, coefficient_bytes, to); });
}

void add_product(const at::Tensor& left, const Linearised& right, const Kernels& kernels,
                 const at::Tensor& sums) {
  // What is multiplied at a time lies in the first-level cache.
  constexpr int64_t kColumns = 16;
  constexpr int64_t kInner = 256;
  const int64_t inner = left.size(1);
  const int64_t columns = sums.size(1);
  double* const to = sums.mutable_data_ptr<double>();
  std::vector<double> piece(static_cast<size_t>(kInner * kColumns));
  with_rows(right, 0, inner, [&](const auto& rows) {
    for (int64_t first = 0; first < inner; first += kInner) {
      const int64_t depth = std::min(kInner, inner - first);
      const at::Tensor factors = left.narrow(1, first, depth).to(at::kDouble).contiguous();
      for (int64_t column = 0; column < columns; column += kColumns) {
        const int64_t width = std::min(kColumns, columns - column);
        for (int64_t k = 0; k < depth; ++k) {
          const auto* const row = rows.elements + (first + k) * columns + column;
          const double factor = rows.factor(first + k);
          std::transform(row, row + width, piece.begin() + k * width,
                         [factor](auto x) { return x * factor; });
        }
        kernels.multiply_add({factors.const_data_ptr<double>(), piece.data(), to + column, columns,
                              left.size(0), depth, width});
      }
    }
  });
}

}  // namespace senet::inference
