// The kernels of ours for CUDA: the text of kernels.cu compiled by NVRTC when a device first needs it, kept on disk
// for the next process, and a function to enqueue each. All tensors are channels-last, elements of one type; sums are
// in float32. Knows no LibTorch.
#pragma once

#include "inference/cuda/convolutions.h"
#include "inference/cuda/driver.h"

#include <array>
#include <cstdint>
#include <memory>
#include <string>

namespace senet::inference::cuda {

/// Where activations lie: [n, height, width, channels] with `pitch` elements from pixel to pixel.
struct Activation {
  void* data;
  int64_t n, height, width, channels, pitch;
};

/// float32 images of any strides (in elements, N C H W; 0 for what is expanded) to `to`, whose channels beyond
/// `channels` become 0.
struct Import {
  const float* from;
  std::array<int64_t, 4> strides;
  int64_t channels;
  Activation to;
};

/// y = relu?((x * scale + shift) * factors + residual), each part where it is given.
struct Pointwise {
  Activation x, y;
  const float* scale = nullptr;   // [channels]
  const float* shift = nullptr;   // [channels]
  const void* factors = nullptr;  // [n, channels], of the element type
  Activation residual = {};       // data may be null
  bool relu = false;
};

/// Means over the pixels, in parts: parts[n, p, c] = sum of the p-th share of the pixels / their whole number.
struct Mean {
  Activation x;
  float* parts;  // [n, part_count, channels]
  int64_t part_count;
};

/// factors[n, c] = sigmoid(w2 . relu(w1 . mean + b1) + b2) of the means that `parts` add up to; without w2
/// sigmoid of the convolution of the means with `kernel` along the channels (ECA), padded by zeros.
struct Excite {
  const float* parts;  // [n, part_count, in_channels]
  int64_t n, part_count, in_channels, hidden, channels;
  const void* w1 = nullptr;   // [hidden, in_channels], of the element type
  const float* b1 = nullptr;  // [hidden]
  const void* w2 = nullptr;   // [channels, hidden], of the element type
  const float* b2 = nullptr;  // [channels]
  const float* kernel = nullptr;  // [kernel_size], in_channels = channels
  int64_t kernel_size = 0;
  void* factors;  // [n, channels], of the element type
};

/// A window's maximum (NaN stays) or mean, as LibTorch's max_pool2d and avg_pool2d.
struct Pool {
  Activation x, y;
  std::array<int64_t, 2> kernel, stride, padding;
  bool is_max;
  bool count_include_pad = true;  // of a mean
};

/// The first `channels` of `from` as float32, N x C x H x W contiguous.
struct Export {
  Activation from;
  int64_t channels;
  float* to;
};

/// The kernels of one element type on one device. Its functions enqueue and return; each may be captured, and may be
/// called by several threads. All throw ERR_SENET_CUDA.
class Kernels {
 public:
  virtual ~Kernels() = default;
  virtual void run(const Import&, Stream) const = 0;
  virtual void run(const Pointwise&, Stream) const = 0;
  virtual void run(const Mean&, Stream) const = 0;
  virtual void run(const Excite&, Stream) const = 0;
  virtual void run(const Pool&, Stream) const = 0;
  virtual void run(const Export&, Stream) const = 0;
  /// Copies channels: of what is concatenated.
  virtual void copy(const Activation& from, const Activation& to, Stream) const = 0;
};

/// Into how many parts Mean should cut an image's pixels, so that `multiprocessors` are busy.
int64_t mean_parts(const Activation& x, int multiprocessors);

/// Of the current device, of capability `architecture` (90 for 9.0). Compiled ones are kept in the folder `cache`
/// (empty: nowhere), by a name of everything that they depend on; what is damaged there is compiled anew. Throws
/// ERR_SENET_CUDA with NVRTC's log.
std::unique_ptr<const Kernels> make_kernels(const Driver& driver, int architecture, Type type,
                                            const std::string& cache);

/// The machine code of the kernels (what make_kernels loads): needs NVRTC, and no device.
std::string compile_kernels(const Driver& driver, int architecture, Type type, const std::string& cache);

}  // namespace senet::inference::cuda
