// What the kernels of ours for CUDA compute, as plain structs: a kernel's one parameter, the same for the
// compiler of this library and for NVRTC, which has no headers. All tensors are channels-last, elements of
// one type; sums are in float32.
#pragma once

#ifndef __CUDACC_RTC__
#include <array>
#include <cstddef>
#include <cstdint>
#endif

namespace senet::inference::cuda {

#ifdef __CUDACC_RTC__
using int64_t = long long;
template <class T, int kCount>
struct Array {
  T values[kCount];
  __device__ const T& operator[](int i) const {
    return values[i];
  }
};
#else
template <class T, size_t kCount>
using Array = std::array<T, kCount>;
#endif

/// Where activations lie: [n, height, width, channels] with `pitch` elements from pixel to pixel. Kernels
/// read and write no more than `channels` of each.
struct Activation {
  void* data;
  int64_t n, height, width, channels, pitch;
};

/// float32 images of any strides (in elements, N C H W; 0 for what is expanded) to `to`, whose channels
/// beyond `channels` become 0.
struct Import {
  const float* from;
  Array<int64_t, 4> strides;
  int64_t channels;
  Activation to;
};

/// uint8 images of any strides (in elements, N C H W; 0 for what is repeated) to `to`, normalised: (x / 255 -
/// mean) / deviation, each rounded as PyTorch's operators round. Channels beyond `channels` become 0.
struct Unpack {
  const unsigned char* from;
  Array<int64_t, 4> strides;
  int64_t channels;  // at most kMostPixelChannels
  Array<float, 4> mean, deviation;
  Activation to;
};

/// y = relu?((x * scale + shift) * factors + residual), each part where it is given. y may be x or the
/// residual.
struct Pointwise {
  Activation x, y;
  const float* scale = nullptr;   // [channels]
  const float* shift = nullptr;   // [channels]
  const void* factors = nullptr;  // [n, channels], of the element type
  Activation residual = {};       // data may be null
  bool relu = false;
};

/// Means over the pixels, in parts: parts[n, p, c] = sum of the p-th share of the pixels / their whole
/// number.
struct Mean {
  Activation x;
  float* parts;  // [n, part_count, channels]
  int64_t part_count;
};

/// factors[n, c] = sigmoid(w2 . relu(w1 . mean + b1) + b2) of the means that `parts` add up to; without w2
/// sigmoid of the convolution of the means with `kernel` along the channels (ECA), padded by zeros; without
/// either the means themselves.
struct Excite {
  const float* parts;  // [n, part_count, in_channels]
  int64_t n, part_count, in_channels, hidden, channels;
  const void* w1 = nullptr;       // [hidden, in_channels], of the element type
  const float* b1 = nullptr;      // [hidden]; may be null
  const void* w2 = nullptr;       // [channels, hidden], of the element type
  const float* b2 = nullptr;      // [channels]; may be null
  const float* kernel = nullptr;  // [kernel_size], in_channels = channels
  int64_t kernel_size = 0;        // odd
  void* factors;                  // [n, channels], of the element type
};

/// y = relu?(weight x + bias) of vectors.
struct Dense {
  const void* x;       // [n, in_channels], of the element type as all but the bias
  const void* weight;  // [channels, in_channels]
  const float* bias;   // [channels]
  void* y;             // [n, channels]
  int64_t n, in_channels, channels;
  bool relu;
};

/// y = relu?((weight x + bias) * factors + residual) of every pixel: a 1 x 1 convolution with all that
/// follows it.
struct Conv1x1 {
  const void* x;         // [rows, in_channels], of 16-bit elements as all but the bias; a row is a pixel
  const void* weight;    // [out_channels, in_channels]
  const float* bias;     // [out_channels]
  const void* factors;   // [images, out_channels]; may be null
  const void* residual;  // [rows, out_channels]; may be null
  void* y;               // [rows, out_channels]
  int64_t rows, rows_of_image, in_channels, out_channels;
  bool relu;
};

/// A window's maximum (NaN stays) or mean, as LibTorch's max_pool2d and avg_pool2d.
struct Pool {
  Activation x, y;
  Array<int64_t, 2> kernel, stride, padding;
  bool is_max;
  bool count_include_pad = true;  // of a mean
};

/// The first `channels` of `from` as float32, N x C x H x W contiguous.
struct Export {
  Activation from;
  int64_t channels;
  float* to;
};

/// The kernels: their names and their tasks. Those of vectors take 16 bytes at once.
#define SENET_CUDA_KERNELS(X)               \
  X(import_vectors, Import)                 \
  X(import_half_vectors, Import)            \
  X(import_elements, Import)                \
  X(unpack_vectors, Unpack)                 \
  X(unpack_half_vectors, Unpack)            \
  X(unpack_elements, Unpack)                \
  X(pointwise_vectors, Pointwise)           \
  X(pointwise_elements, Pointwise)          \
  X(pointwise_residual_vectors, Pointwise)  \
  X(pointwise_residual_elements, Pointwise) \
  X(mean_vectors, Mean)                     \
  X(mean_elements, Mean)                    \
  X(excite_image, Excite)                   \
  X(excite_images, Excite)                  \
  X(gate_channels, Excite)                  \
  X(dense_image, Dense)                     \
  X(dense_images, Dense)                    \
  X(max_pool_vectors, Pool)                 \
  X(max_pool_elements, Pool)                \
  X(mean_pool_vectors, Pool)                \
  X(mean_pool_elements, Pool)               \
  X(export_channels, Export)                \
  X(export_tiles, Export)

/// Those of matrix units, for 16-bit elements; their tasks name how many rows of x a block has.
#define SENET_CUDA_MATRIX_KERNELS(X) \
  X(conv1x1_64, Conv1x1)             \
  X(conv1x1_128, Conv1x1)

// How both sides divide the work.
constexpr int kThreads = 256;        // of a block, at most
constexpr int kMeanChannels = 256;   // of a block's means, at most
constexpr int kExciteThreads = 512;  // of a block of an excitation, and of a dense layer
constexpr int kExciteImages = 4;     // of a block of excite_images and dense_images
constexpr int kTile = 32;            // pixels and channels of a tile of an export
constexpr int kVectorBytes = 16;
constexpr int kMostPixelChannels = 4;  // of images of uint8

// Of conv1x1: channels of y of a block, channels of x of a stage, stages; and floats from row to row of its
// sums, so that neighbours lie in other banks.
constexpr int kMatrixColumns = 128;
constexpr int kMatrixDepth = 64;
constexpr int kMatrixStages = 2;
constexpr int kMatrixPitch = kMatrixColumns + 4;

}  // namespace senet::inference::cuda
