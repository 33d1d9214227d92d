#include "nn/convolution.h"

namespace senet::nn {

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

}  // namespace senet::nn
