#include "graph/convolution.h"

#include <ATen/autocast_mode.h>
#include <ATen/ops/conv2d.h>

#include <optional>

namespace senet::graph {
namespace {

// 16 bits that the CPU would compute a convolution of this input in, if it would.
std::optional<at::ScalarType> short_dtype(const at::Tensor& input) {
  if (!input.is_cpu() || input.scalar_type() == at::kDouble) {
    return std::nullopt;
  }
  const at::ScalarType dtype = at::autocast::is_autocast_enabled(at::kCPU)
                                   ? at::autocast::get_autocast_dtype(at::kCPU)
                                   : input.scalar_type();
  return dtype == at::kFloat ? std::nullopt : std::optional(dtype);
}

at::Tensor convolve_as_given(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias,
                             const Window& window, int64_t groups) {
  return convolve_safely(input, window, [&](const at::Tensor& x, const Size2& padding) {
    return at::conv2d(x, weight, bias, window.stride, padding, window.dilation, groups);
  });
}

at::Tensor to_float(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.to(at::kFloat) : tensor;
}

}  // namespace

SafeShape find_safe_shape(const at::Tensor& input, const Window& window) {
  SafeShape safe;
  safe.padding = window.padding;
  if (!input.is_cpu() || input.scalar_type() == at::kDouble) {
    return safe;
  }
  const auto extent = [&](size_t axis) { return window.dilation[axis] * (window.kernel[axis] - 1) + 1; };
  const auto size = [&](size_t axis) { return input.size(2 + static_cast<int64_t>(axis)); };
  const auto pad_with_zeros = [&](size_t axis, int64_t more) {
    const size_t first = axis == 0 ? 2 : 0;
    safe.zeros[first] = window.padding[axis];
    safe.zeros[first + 1] = window.padding[axis] + more;
    safe.padding[axis] = 0;
    safe.is_changed = true;
  };
  for (const size_t axis : {size_t{0}, size_t{1}}) {
    // Between the taps of a dilated kernel there is room for a small input.
    const int64_t padding = window.padding[axis];
    if (2 * padding >= extent(axis) || (padding > 0 && size(axis) < window.dilation[axis])) {
      pad_with_zeros(axis, 0);
    }
  }
  const int64_t missing = extent(1) + window.stride[1] - (size(1) + 2 * window.padding[1]);
  if (window.kernel[1] > 1 && window.stride[1] > 1 && missing > 0) {
    pad_with_zeros(1, missing);
    safe.has_second_column = true;
  }
  return safe;
}

at::Tensor convolve(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias,
                    const Window& window, int64_t groups) {
  const auto dtype = window.is_usual() ? std::nullopt : short_dtype(input);
  if (!dtype) {
    return convolve_as_given(input, weight, bias, window, groups);
  }
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  return convolve_as_given(to_float(input), to_float(weight), to_float(bias), window, groups).to(*dtype);
}

}  // namespace senet::graph
