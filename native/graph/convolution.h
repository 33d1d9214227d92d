// Convolutions by LibTorch's operators, with what oneDNN computes wrong kept from it: on the CPU, on any
// processor, in every dtype that oneDNN serves (not float64), forward and backward. What it computes wrong
// was found by convolution-shapes.test.ts and in the field, with PyTorch 2.11 to 2.14:
//
// - A kernel at least 2 wide that moves sideways by at least 2 to an output 1 wide: oneDNN reads memory that
//   nobody wrote, in bfloat16 on processors with AMX (pytorch issues 169688 and 163347), with prepacked
//   weights and one input channel in float32 on all, and its gradient of bfloat16 weights is wrong on all.
//   The output is made 2 wide, and the padding beside it becomes zeros of the input.
// - More padding than half the kernel, so that a window may see more of it than of the input: the gradient of
//   bfloat16 weights is wrong for narrow inputs, and where a window lies in the padding alone oneDNN's
//   blocked kernels end the process. The padding becomes zeros of the input.
// - In 16 bits on processors with AMX, kernels 8 wide of 8 to 24 channels, and 4 wide of 16 that move by 4.
//   Only shapes as networks have them are trusted in 16 bits: kernels 1, 2, 3, 5 or 7 wide that overlap.
//   Others are computed in float32.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/constant_pad_nd.h>

#include <array>
#include <cstdint>

namespace senet::graph {

/// Height and width.
using Size2 = std::array<int64_t, 2>;

/// How a convolution's kernel moves.
struct Window {
  Size2 kernel;
  Size2 stride = {1, 1};
  Size2 padding = {0, 0};
  Size2 dilation = {1, 1};

  /// Whether oneDNN may compute it in 16 bits.
  bool is_usual() const {
    const int64_t width = kernel[1];
    const bool is_odd_or_two = width == 2 || (width % 2 == 1 && width <= 7);
    return kernel[0] <= 7 && (width == 1 || (is_odd_or_two && stride[1] < width));
  }
};

/// The same convolution in a shape that oneDNN computes right: zeros around the input take over from the
/// padding.
struct SafeShape {
  bool is_changed = false;
  std::array<int64_t, 4> zeros = {0, 0, 0, 0};  // left, right, top, bottom
  Size2 padding;
  bool has_second_column = false;  // the output has one more, to be dropped
};

/// Of an N x C x height x width input.
SafeShape find_safe_shape(const at::Tensor& input, const Window& window);

/// `convolve(input, padding)`, which gives N x O x height x width, on another input with another padding
/// where these must not be.
template <class Convolve>
at::Tensor convolve_safely(const at::Tensor& input, const Window& window, const Convolve& convolve) {
  const SafeShape safe = find_safe_shape(input, window);
  if (!safe.is_changed) {
    return convolve(input, window.padding);
  }
  const at::Tensor output = convolve(at::constant_pad_nd(input, safe.zeros), safe.padding);
  return safe.has_second_column ? output.narrow(3, 0, 1).contiguous(output.suggest_memory_format()) : output;
}

/// torch.nn.functional.conv2d of a batch, as it should be; the bias may be undefined.
at::Tensor convolve(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias,
                    const Window& window, int64_t groups);

}  // namespace senet::graph
