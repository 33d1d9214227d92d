// The kernels of kernels.h: CUDA C++ that NVRTC compiles for one type of elements, SENET_HALF, SENET_BFLOAT16
// or SENET_FLOAT. The tests compile it for the processor, with what CUDA brings made by
// test/native/cuda_host.h.
//
// A block's threads lie beside each other along the channels (x), then along the pixels (y), so that
// neighbours read neighbouring memory. A thread has `kCount` channels at once: 16 bytes, or one where
// channels, pitch or pointers are not made for that; kernels.cpp decides. Blocks beyond a grid's limits are
// the same blocks again, in a loop.
//
// Elements become float32 when they are read. Every sum has one order, so results do not vary from run to
// run.
#include "inference/cuda/tasks.h"

using namespace senet::inference::cuda;

#ifdef __CUDACC__

// So many blocks on a multiprocessor at least: what ptxas saves for more, it may spill.
#define SENET_KERNEL_OF_BLOCKS(threads, blocks) extern "C" __global__ void __launch_bounds__(threads, blocks)
#define SENET_KERNEL(threads) SENET_KERNEL_OF_BLOCKS(threads, 1)

__device__ inline float half_to_float(unsigned short bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}
__device__ inline unsigned short float_to_half(float value) {
  unsigned short bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}
__device__ inline float bfloat16_to_float(unsigned short bits) {
  return __uint_as_float(static_cast<unsigned>(bits) << 16);
}
#ifdef SENET_BFLOAT16
__device__ inline unsigned short float_to_bfloat16(float value) {
  unsigned short bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}
#endif
__device__ inline float infinity() {
  return __uint_as_float(0x7f800000);
}

extern __shared__ __align__(16) float scratch[];  // as much as kernels.cpp asks for

#endif

#if defined(SENET_FLOAT)
using Element = float;
__device__ inline float to_float(Element element) {
  return element;
}
__device__ inline Element to_element(float value) {
  return value;
}
#else
struct Element {
  unsigned short bits;
};
#if defined(SENET_HALF)
__device__ inline float to_float(Element element) {
  return half_to_float(element.bits);
}
__device__ inline Element to_element(float value) {
  return {float_to_half(value)};
}
#elif defined(SENET_BFLOAT16)
__device__ inline float to_float(Element element) {
  return bfloat16_to_float(element.bits);
}
__device__ inline Element to_element(float value) {
  return {float_to_bfloat16(value)};
}
#else
#error "which type do the elements have?"
#endif
#endif

constexpr int kVector = kVectorBytes / static_cast<int>(sizeof(Element));

// Elements that are read and written by one instruction.
template <class T, int kCount>
struct alignas(kCount * sizeof(T)) Packet {
  T values[kCount];
};

template <int kCount>
__device__ inline Packet<Element, kCount> load(const void* elements, int64_t index) {
  return *reinterpret_cast<const Packet<Element, kCount>*>(static_cast<const Element*>(elements) + index);
}

template <int kCount>
__device__ inline void store(void* elements, int64_t index, const float (&values)[kCount]) {
  Packet<Element, kCount> packet;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    packet.values[i] = to_element(values[i]);
  }
  *reinterpret_cast<Packet<Element, kCount>*>(static_cast<Element*>(elements) + index) = packet;
}

// float32 beside as many elements: 16 bytes at once, if there are as many.
template <int kCount>
__device__ inline void load_floats(float (&values)[kCount], const float* from) {
  constexpr int kAtOnce = kCount < 4 ? kCount : 4;
#pragma unroll
  for (int i = 0; i < kCount; i += kAtOnce) {
    const auto packet = *reinterpret_cast<const Packet<float, kAtOnce>*>(from + i);
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      values[i + j] = packet.values[j];
    }
  }
}

__device__ inline int64_t least(int64_t left, int64_t right) {
  return left < right ? left : right;
}
__device__ inline int64_t most(int64_t left, int64_t right) {
  return left > right ? left : right;
}

// NaN stays.
__device__ inline float relu(float value) {
  return value < 0 ? 0 : value;
}
__device__ inline float sigmoid(float value) {
  return 1 / (1 + expf(-value));
}

// The first of this thread's channels.
template <int kCount>
__device__ inline int64_t channel_of(unsigned slab) {
  return (int64_t{slab} * blockDim.x + threadIdx.x) * kCount;
}

__device__ inline int thread_of_block() {
  return static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x);
}

// --- import and unpack: a thread has a pixel; grid: columns, rows, images
// ------------------------------------------------------

__device__ inline float value_of(const Import& task, const float* from, int64_t channel) {
  return from[channel * task.strides[1]];
}
__device__ inline float value_of(const Unpack& task, const unsigned char* from, int64_t channel) {
  // An index that the compiler does not know would put the arrays into memory.
  float mean = task.mean[0];
  float deviation = task.deviation[0];
#pragma unroll
  for (int c = 1; c < kMostPixelChannels; ++c) {
    mean = c == channel ? task.mean[c] : mean;
    deviation = c == channel ? task.deviation[c] : deviation;
  }
  return (static_cast<float>(from[channel * task.strides[1]]) / 255 - mean) / deviation;
}

template <int kCount, class Task>
__device__ inline void import_images(const Task& task) {
  const Activation& to = task.to;
  const int64_t column = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (column >= to.width) {
    return;
  }
  for (int64_t n = blockIdx.z; n < to.n; n += gridDim.z) {
    for (int64_t row = blockIdx.y; row < to.height; row += gridDim.y) {
      const auto* const from =
          task.from + n * task.strides[0] + row * task.strides[2] + column * task.strides[3];
      const int64_t pixel = ((n * to.height + row) * to.width + column) * to.pitch;
#pragma unroll 1
      for (int64_t channel = 0; channel < to.channels; channel += kCount) {
        float values[kCount];
#pragma unroll
        for (int i = 0; i < kCount; ++i) {
          values[i] = channel + i < task.channels ? value_of(task, from, channel + i) : 0;
        }
        store(to.data, pixel + channel, values);
      }
    }
  }
}

SENET_KERNEL(kThreads) import_vectors(const Import task) {
  import_images<kVector>(task);
}
SENET_KERNEL(kThreads) import_half_vectors(const Import task) {
  import_images<kVector / 2>(task);
}
SENET_KERNEL(kThreads) import_elements(const Import task) {
  import_images<1>(task);
}
SENET_KERNEL(kThreads) unpack_vectors(const Unpack task) {
  import_images<kVector>(task);
}
SENET_KERNEL(kThreads) unpack_half_vectors(const Unpack task) {
  import_images<kVector / 2>(task);
}
SENET_KERNEL(kThreads) unpack_elements(const Unpack task) {
  import_images<1>(task);
}

// --- pointwise; grid: pixels, slabs of channels, images
// -------------------------------------------------------------

template <int kCount, bool kResidual>
__device__ inline void pointwise(const Pointwise& task) {
  constexpr int kPixels = 4;  // that a thread reads before it writes the first
  const int64_t channel = channel_of<kCount>(blockIdx.y);
  if (channel >= task.x.channels) {
    return;
  }
  const float lowest = task.relu ? 0 : -infinity();
  const int64_t pixels = task.x.height * task.x.width;
  const int64_t step = int64_t{gridDim.x} * blockDim.y;
  const int64_t first = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  for (int64_t n = blockIdx.z; n < task.x.n; n += gridDim.z) {
    // What is not given changes no value: x * 1 + -0 is x, also of -0.
    float scale[kCount];
    float shift[kCount];
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      scale[i] = 1;
      shift[i] = -0.0f;
    }
    if (task.scale != nullptr) {
      load_floats(scale, task.scale + channel);
    }
    if (task.shift != nullptr) {
      load_floats(shift, task.shift + channel);
    }
    if (task.factors != nullptr) {
      const auto factors = load<kCount>(task.factors, n * task.x.channels + channel);
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        scale[i] *= to_float(factors.values[i]);
        shift[i] *= to_float(factors.values[i]);
      }
    }
    for (int64_t pixel = first; pixel < pixels; pixel += kPixels * step) {
      Packet<Element, kCount> x[kPixels];
      Packet<Element, kCount> residual[kPixels];
#pragma unroll
      for (int k = 0; k < kPixels; ++k) {
        const int64_t at = n * pixels + pixel + k * step;
        if (pixel + k * step < pixels) {
          x[k] = load<kCount>(task.x.data, at * task.x.pitch + channel);
          if (kResidual) {
            residual[k] = load<kCount>(task.residual.data, at * task.residual.pitch + channel);
          }
        }
      }
#pragma unroll
      for (int k = 0; k < kPixels; ++k) {
        if (pixel + k * step < pixels) {
          float y[kCount];
#pragma unroll
          for (int i = 0; i < kCount; ++i) {
            const float value = to_float(x[k].values[i]) * scale[i] + shift[i];
            const float sum = kResidual ? value + to_float(residual[k].values[i]) : value;
            y[i] = sum < lowest ? lowest : sum;  // NaN stays
          }
          store(task.y.data, (n * pixels + pixel + k * step) * task.y.pitch + channel, y);
        }
      }
    }
  }
}

SENET_KERNEL(kThreads) pointwise_vectors(const Pointwise task) {
  pointwise<kVector, false>(task);
}
SENET_KERNEL(kThreads) pointwise_elements(const Pointwise task) {
  pointwise<1, false>(task);
}
SENET_KERNEL(kThreads) pointwise_residual_vectors(const Pointwise task) {
  pointwise<kVector, true>(task);
}
SENET_KERNEL(kThreads) pointwise_residual_elements(const Pointwise task) {
  pointwise<1, true>(task);
}

// --- mean; grid: parts, slabs of channels, images
// -------------------------------------------------------------------

template <int kCount>
__device__ inline void mean(const Mean& task) {
  __shared__ float sums[kThreads * kCount];  // [y][channel of the slab]
  const int slab_channels = static_cast<int>(blockDim.x) * kCount;
  const int64_t slab = int64_t{blockIdx.y} * slab_channels;
  const int64_t channel = channel_of<kCount>(blockIdx.y);
  const int64_t pixels = task.x.height * task.x.width;
  for (int64_t part = blockIdx.x; part < task.part_count; part += gridDim.x) {
    const int64_t first = pixels * part / task.part_count;
    const int64_t last = pixels * (part + 1) / task.part_count;
    for (int64_t n = blockIdx.z; n < task.x.n; n += gridDim.z) {
      float sum[kCount] = {};
      if (channel < task.x.channels) {
#pragma unroll 4
        for (int64_t pixel = first + threadIdx.y; pixel < last; pixel += blockDim.y) {
          const auto x = load<kCount>(task.x.data, (n * pixels + pixel) * task.x.pitch + channel);
#pragma unroll
          for (int i = 0; i < kCount; ++i) {
            sum[i] += to_float(x.values[i]);
          }
        }
      }
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        sums[thread_of_block() * kCount + i] = sum[i];
      }
      __syncthreads();
      for (int c = thread_of_block(); c < slab_channels; c += static_cast<int>(blockDim.x * blockDim.y)) {
        if (slab + c < task.x.channels) {
          float total = 0;
          for (unsigned y = 0; y < blockDim.y; ++y) {
            total += sums[static_cast<int>(y) * slab_channels + c];
          }
          task.parts[(n * task.part_count + part) * task.x.channels + slab + c] =
              total / static_cast<float>(pixels);
        }
      }
      __syncthreads();  // before the sums of the next image take the place
    }
  }
}

SENET_KERNEL(kThreads) mean_vectors(const Mean task) {
  mean<kVector>(task);
}
SENET_KERNEL(kThreads) mean_elements(const Mean task) {
  mean<1>(task);
}

// --- excite; grid: slices of the output channels, images by kImages
// -------------------------------------------------

// The mean of a channel.
__device__ inline float add_parts(const Excite& task, int64_t n, int64_t channel) {
  const float* const parts = task.parts + n * task.part_count * task.in_channels + channel;
  float sum = 0;
#pragma unroll 8
  for (int64_t part = 0; part < task.part_count; ++part) {
    sum += parts[part * task.in_channels];
  }
  return sum;
}

// Products of rows [first, last) of `weights` [rows, length] with each image's vector [length], `pitch`
// floats from one to the next, for store(row, image, product). A row belongs to so many lanes of a warp as
// have something of it to read, and a thread has several rows at once, for which it reads the vectors once.
template <int kCount, int kImages, class Store>
__device__ inline void multiply(const void* weights, int64_t length, int64_t first, int64_t last,
                                const float* vectors, int pitch, Store store) {
  constexpr int kRows = 4;
  const int packets = static_cast<int>(length) / kCount;
  int lanes = 1;
  while (lanes < 32 && lanes < packets) {
    lanes *= 2;
  }
  const int lane = static_cast<int>(threadIdx.x) & (lanes - 1);
  const int groups = kExciteThreads / lanes;
  const int group = static_cast<int>(threadIdx.x) / lanes;
#pragma unroll 1
  for (int64_t base = first; base < last; base += groups * kRows) {  // all threads together: they shuffle
    float sums[kRows][kImages] = {};
#pragma unroll 1
    for (int packet = lane; packet < packets; packet += lanes) {
      Packet<Element, kCount> row[kRows] = {};
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const int64_t at = base + group + r * groups;
        if (at < last) {
          row[r] = load<kCount>(weights, at * length + int64_t{packet} * kCount);
        }
      }
#pragma unroll
      for (int image = 0; image < kImages; ++image) {
        float vector[kCount];
        load_floats(vector, vectors + image * pitch + packet * kCount);
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
#pragma unroll
          for (int i = 0; i < kCount; ++i) {
            sums[r][image] += to_float(row[r].values[i]) * vector[i];
          }
        }
      }
    }
#pragma unroll 1
    for (int other = lanes / 2; other > 0; other /= 2) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int image = 0; image < kImages; ++image) {
          sums[r][image] += __shfl_xor_sync(0xffffffff, sums[r][image], other);
        }
      }
    }
    // All lanes of a row have all sums: each stores others.
#pragma unroll 1
    for (int k = lane; k < kRows * kImages; k += lanes) {
      float sum = 0;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int image = 0; image < kImages; ++image) {
          sum = r * kImages + image == k ? sums[r][image] : sum;
        }
      }
      const int64_t at = base + group + k / kImages * groups;
      if (at < last) {
        store(at, k % kImages, sum);
      }
    }
  }
}

// By 16 bytes where rows allow it.
template <int kImages, class Store>
__device__ inline void multiply_rows(const void* weights, int64_t length, int64_t first, int64_t last,
                                     const float* vectors, int pitch, Store store) {
  if (length % kVector == 0 && reinterpret_cast<size_t>(weights) % kVectorBytes == 0) {
    multiply<kVector, kImages>(weights, length, first, last, vectors, pitch, store);
  } else {
    multiply<1, kImages>(weights, length, first, last, vectors, pitch, store);
  }
}

template <int kImages>
__device__ inline void excite(const Excite& task) {
  // In `scratch`: means for each image, then what is hidden, each rounded up to 16 bytes.
  const int in_pitch = static_cast<int>(task.in_channels + 3) / 4 * 4;
  const int hidden_pitch = static_cast<int>(task.hidden + 3) / 4 * 4;
  float* const means = scratch;
  float* const hidden = scratch + kImages * in_pitch;
  const int64_t first_channel = task.channels * blockIdx.x / gridDim.x;
  const int64_t last_channel = task.channels * (blockIdx.x + 1) / gridDim.x;
  for (int64_t first = int64_t{blockIdx.y} * kImages; first < task.n; first += int64_t{gridDim.y} * kImages) {
    const int64_t images = task.n - first;
    for (int image = 0; image < kImages; ++image) {
      for (int c = static_cast<int>(threadIdx.x); c < task.in_channels; c += kExciteThreads) {
        means[image * in_pitch + c] = image < images ? add_parts(task, first + image, c) : 0;
      }
    }
    __syncthreads();
    multiply_rows<kImages>(task.w1, task.in_channels, 0, task.hidden, means, in_pitch,
                           [&](int64_t row, int image, float product) {
                             const float bias = task.b1 == nullptr ? 0 : task.b1[row];
                             hidden[image * hidden_pitch + row] = relu(product + bias);
                           });
    __syncthreads();
    multiply_rows<kImages>(task.w2, task.hidden, first_channel, last_channel, hidden, hidden_pitch,
                           [&](int64_t row, int image, float product) {
                             if (image < images) {
                               const float bias = task.b2 == nullptr ? 0 : task.b2[row];
                               static_cast<Element*>(task.factors)[(first + image) * task.channels + row] =
                                   to_element(sigmoid(product + bias));
                             }
                           });
    // The next images' means may be written now: nobody reads the old ones, and `hidden` waits at their
    // barrier.
  }
}

SENET_KERNEL(kExciteThreads) excite_image(const Excite task) {
  excite<1>(task);
}
SENET_KERNEL(kExciteThreads) excite_images(const Excite task) {
  excite<kExciteImages>(task);
}

// --- dense; grid: slices of the output channels, images by kImages
// -------------------------------------------------------------------

template <int kImages>
__device__ inline void dense(const Dense& task) {
  const int pitch = static_cast<int>(task.in_channels + 3) / 4 * 4;  // of the vectors in `scratch`
  const int64_t first_channel = task.channels * blockIdx.x / gridDim.x;
  const int64_t last_channel = task.channels * (blockIdx.x + 1) / gridDim.x;
  for (int64_t first = int64_t{blockIdx.y} * kImages; first < task.n; first += int64_t{gridDim.y} * kImages) {
    const int64_t images = task.n - first;
    for (int image = 0; image < kImages; ++image) {
      for (int c = static_cast<int>(threadIdx.x); c < task.in_channels; c += kExciteThreads) {
        const int64_t at = (first + image) * task.in_channels + c;
        scratch[image * pitch + c] = image < images ? to_float(static_cast<const Element*>(task.x)[at]) : 0;
      }
    }
    __syncthreads();
    multiply_rows<kImages>(task.weight, task.in_channels, first_channel, last_channel, scratch, pitch,
                           [&](int64_t row, int image, float product) {
                             if (image < images) {
                               const float y = product + task.bias[row];
                               static_cast<Element*>(task.y)[(first + image) * task.channels + row] =
                                   to_element(task.relu ? relu(y) : y);
                             }
                           });
    __syncthreads();  // before the next images' vectors take the place
  }
}

SENET_KERNEL(kExciteThreads) dense_image(const Dense task) {
  dense<1>(task);
}
SENET_KERNEL(kExciteThreads) dense_images(const Dense task) {
  dense<kExciteImages>(task);
}

#ifndef SENET_FLOAT

// --- 1 x 1 convolution; grid: tiles of y, those beside each other along the channels first
// -------------------------------------------------------------------

// A block computes a tile of kRows pixels by kMatrixColumns channels. Its eight warps have kRows / 2 by 32 of
// it each. Stages of x and of the weights, kMatrixDepth channels deep, are read ahead by copies that nobody
// waits for. The sums then go through shared memory, so that the residual is read and y is written by whole
// vectors.
//
// A row of a stage is eight vectors; vector v of row r lies at v ^ (r % 8), so that eight rows' equal vectors
// lie in other banks.
__device__ inline int at_stage(int row, int channel) {
  return row * kMatrixDepth + (((channel / 8) ^ (row & 7)) * 8) + channel % 8;
}

#ifdef __CUDACC__

// 16 bytes from global to shared memory, or zeros.
__device__ inline void copy_ahead(Element* to, const Element* from, bool is_there) {
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(to));
  const int bytes = is_there ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(bytes)
               : "memory");
}
__device__ inline void end_stage() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Until all stages but the last `kAhead` are there.
template <int kAhead>
__device__ inline void wait_stages() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kAhead) : "memory");
}

// 16 rows by 16 channels of x, spread over a warp as its matrix unit takes them.
struct LeftTile {
  unsigned values[4];
};
// 16 channels by 8 rows of the weights.
struct RightTile {
  unsigned values[2];
};
__device__ inline unsigned load_pair(const Element* stage, int row, int channel) {
  return *reinterpret_cast<const unsigned*>(stage + at_stage(row, channel));
}
__device__ inline LeftTile load_left(const Element* stage, int row, int channel) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int r = row + lane / 4;
  const int c = channel + lane % 4 * 2;
  return {load_pair(stage, r, c), load_pair(stage, r + 8, c), load_pair(stage, r, c + 8),
          load_pair(stage, r + 8, c + 8)};
}
__device__ inline RightTile load_right(const Element* stage, int row, int channel) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int c = channel + lane % 4 * 2;
  return {load_pair(stage, row + lane / 4, c), load_pair(stage, row + lane / 4, c + 8)};
}
#ifdef SENET_HALF
#define SENET_MMA "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"
#else
#define SENET_MMA "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"
#endif
__device__ inline void multiply_tiles(float (&sums)[4], const LeftTile& left, const RightTile& right) {
  asm volatile(SENET_MMA " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
               : "r"(left.values[0]), "r"(left.values[1]), "r"(left.values[2]), "r"(left.values[3]),
                 "r"(right.values[0]), "r"(right.values[1]));
}

#else

// The same by plain loops: each thread computes its own sums from the stages.
__device__ inline void copy_ahead(Element* to, const Element* from, bool is_there) {
  for (int i = 0; i < 8; ++i) {
    to[i] = is_there ? from[i] : Element{};
  }
}
__device__ inline void end_stage() {}
template <int kAhead>
__device__ inline void wait_stages() {}
struct LeftTile {
  const Element* stage;
  int row, channel;
};
using RightTile = LeftTile;
__device__ inline LeftTile load_left(const Element* stage, int row, int channel) {
  return {stage, row, channel};
}
__device__ inline RightTile load_right(const Element* stage, int row, int channel) {
  return {stage, row, channel};
}
__device__ inline void multiply_tiles(float (&sums)[4], const LeftTile& left, const RightTile& right) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int i = 0; i < 4; ++i) {
    const int row = left.row + lane / 4 + i / 2 * 8;
    const int column = right.row + lane % 4 * 2 + i % 2;
    for (int k = 0; k < 16; ++k) {
      sums[i] += to_float(left.stage[at_stage(row, left.channel + k)]) *
                 to_float(right.stage[at_stage(column, right.channel + k)]);
    }
  }
}

#endif

template <int kRows>
__device__ inline void conv1x1(const Conv1x1& task) {
  constexpr int kLeftTiles = kRows / 32;  // of a warp, and 4 right ones
  constexpr int kRightTiles = 4;
  constexpr int kStage = (kRows + kMatrixColumns) * kMatrixDepth;
  Element* const stages = reinterpret_cast<Element*>(scratch);
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t across = (task.out_channels + kMatrixColumns - 1) / kMatrixColumns;
  const int64_t first_row = blockIdx.x / across * kRows;
  const int64_t first_column = blockIdx.x % across * kMatrixColumns;

  const auto read_stage = [&](int step) {
    Element* const stage = stages + step % kMatrixStages * kStage;
    const int64_t first_channel = int64_t{step} * kMatrixDepth;
#pragma unroll 2
    for (int i = 0; i < (kRows + kMatrixColumns) * 8 / kThreads; ++i) {
      const int vector = thread + i * kThreads;
      const int row = vector / 8;
      const int64_t channel = first_channel + vector % 8 * 8;
      const bool is_x = row < kRows;
      const int64_t from_row = is_x ? first_row + row : first_column + row - kRows;
      const bool is_there = channel < task.in_channels && from_row < (is_x ? task.rows : task.out_channels);
      const auto* const from = static_cast<const Element*>(is_x ? task.x : task.weight);
      copy_ahead(stage + at_stage(row, vector % 8 * 8),
                 from + (is_there ? from_row * task.in_channels + channel : 0), is_there);
    }
    end_stage();
  };

  float sums[kLeftTiles][kRightTiles][4] = {};
  const int warp = thread / 32;
  const int warp_row = warp / 4 * (kRows / 2);
  const int warp_column = warp % 4 * 32;
  const int steps = static_cast<int>((task.in_channels + kMatrixDepth - 1) / kMatrixDepth);
  read_stage(0);
  for (int step = 0; step < steps; ++step) {
    if (step + 1 < steps) {
      read_stage(step + 1);
      wait_stages<1>();
    } else {
      wait_stages<0>();
    }
    __syncthreads();
    const Element* const x = stages + step % kMatrixStages * kStage;
    const Element* const weight = x + kRows * kMatrixDepth;
#pragma unroll 1
    for (int k = 0; k < kMatrixDepth; k += 16) {
      LeftTile left[kLeftTiles];
      RightTile right[kRightTiles];
#pragma unroll
      for (int i = 0; i < kLeftTiles; ++i) {
        left[i] = load_left(x, warp_row + 16 * i, k);
      }
#pragma unroll
      for (int j = 0; j < kRightTiles; ++j) {
        right[j] = load_right(weight, warp_column + 8 * j, k);
      }
#pragma unroll
      for (int i = 0; i < kLeftTiles; ++i) {
#pragma unroll
        for (int j = 0; j < kRightTiles; ++j) {
          multiply_tiles(sums[i][j], left[i], right[j]);
        }
      }
    }
    __syncthreads();  // before the next stage takes the place, or the sums do
  }

  const int lane = thread % 32;
#pragma unroll
  for (int i = 0; i < kLeftTiles; ++i) {
#pragma unroll
    for (int j = 0; j < kRightTiles; ++j) {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const int row = warp_row + 16 * i + lane / 4 + k / 2 * 8;
        const int column = warp_column + 8 * j + lane % 4 * 2 + k % 2;
        scratch[row * kMatrixPitch + column] = sums[i][j][k];
      }
    }
  }
  __syncthreads();

  constexpr int kVectorsAcross = kMatrixColumns / 8;
  constexpr int kRowsAtOnce = kThreads / kVectorsAcross;
  const int column = thread % kVectorsAcross * 8;
  const int64_t channel = first_column + column;
  if (channel >= task.out_channels) {
    return;
  }
  float bias[8];
  load_floats(bias, task.bias + channel);
#pragma unroll 2
  for (int row = thread / kVectorsAcross; row < kRows; row += kRowsAtOnce) {
    const int64_t pixel = first_row + row;
    if (pixel >= task.rows) {
      return;
    }
    const int64_t at = pixel * task.out_channels + channel;
    float y[8];
    load_floats(y, scratch + row * kMatrixPitch + column);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      y[i] += bias[i];
    }
    if (task.factors != nullptr) {
      const auto image = static_cast<unsigned>(pixel) / static_cast<unsigned>(task.rows_of_image);
      const auto factors = load<8>(task.factors, int64_t{image} * task.out_channels + channel);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        y[i] *= to_float(factors.values[i]);
      }
    }
    if (task.residual != nullptr) {
      const auto residual = load<8>(task.residual, at);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        y[i] += to_float(residual.values[i]);
      }
    }
    if (task.relu) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        y[i] = relu(y[i]);
      }
    }
    store<8>(task.y, at, y);
  }
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
SENET_KERNEL_OF_BLOCKS(kThreads, 2) conv1x1_64(const Conv1x1 task) {
  conv1x1<64>(task);
}
SENET_KERNEL_OF_BLOCKS(kThreads, 2) conv1x1_128(const Conv1x1 task) {
  conv1x1<128>(task);
}
#endif

#endif

// The means themselves, or the sigmoid of their convolution along the channels; grid: channels, images. A
// block's means, with those that its windows reach, lie in shared memory.
SENET_KERNEL(kThreads) gate_channels(const Excite task) {
  const int reach = static_cast<int>(task.kernel_size / 2);
  const int64_t first = int64_t{blockIdx.x} * kThreads;
  const int64_t channel = first + threadIdx.x;
  for (int64_t n = blockIdx.y; n < task.n; n += gridDim.y) {
    for (int i = static_cast<int>(threadIdx.x); i < kThreads + 2 * reach; i += kThreads) {
      const int64_t c = first - reach + i;
      scratch[i] = c >= 0 && c < task.channels ? add_parts(task, n, c) : 0;
    }
    __syncthreads();
    if (channel < task.channels) {
      float value = scratch[threadIdx.x + static_cast<unsigned>(reach)];
      if (task.kernel != nullptr) {
        float sum = 0;
        for (int k = 0; k < task.kernel_size; ++k) {
          sum += task.kernel[k] * scratch[threadIdx.x + static_cast<unsigned>(k)];
        }
        value = sigmoid(sum);
      }
      static_cast<Element*>(task.factors)[n * task.channels + channel] = to_element(value);
    }
    __syncthreads();
  }
}

// --- pools; grid: columns by slabs of channels, rows, images
// --------------------------------------------------------

// A window along one axis, in pixels.
struct Span {
  int64_t first, last;  // of the input
  int64_t padded;       // pixels with those of the padding
};

__device__ inline Span span_of(int64_t output, int64_t kernel, int64_t stride, int64_t padding,
                               int64_t size) {
  const int64_t begin = output * stride - padding;
  // With ceil mode a window may reach beyond the padding: that does not count.
  const int64_t end = least(begin + kernel, size + padding);
  return {most(begin, 0), least(end, size), end - begin};
}

template <int kCount, bool kMax>
__device__ inline void pool(const Pool& task) {
  const unsigned slab_channels = blockDim.x * kCount;
  const unsigned slabs = (static_cast<unsigned>(task.x.channels) + slab_channels - 1) / slab_channels;
  const int64_t channel = channel_of<kCount>(blockIdx.x % slabs);
  const int64_t column = int64_t{blockIdx.x / slabs} * blockDim.y + threadIdx.y;
  if (channel >= task.x.channels || column >= task.y.width) {
    return;
  }
  const Span columns = span_of(column, task.kernel[1], task.stride[1], task.padding[1], task.x.width);
  for (int64_t row = blockIdx.y; row < task.y.height; row += gridDim.y) {
    const Span rows = span_of(row, task.kernel[0], task.stride[0], task.padding[0], task.x.height);
    for (int64_t n = blockIdx.z; n < task.x.n; n += gridDim.z) {
      float result[kCount];
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        result[i] = kMax ? -infinity() : 0;
      }
      for (int64_t h = rows.first; h < rows.last; ++h) {
        const int64_t line = (n * task.x.height + h) * task.x.width;
#pragma unroll 3
        for (int64_t w = columns.first; w < columns.last; ++w) {
          const auto x = load<kCount>(task.x.data, (line + w) * task.x.pitch + channel);
#pragma unroll
          for (int i = 0; i < kCount; ++i) {
            const float value = to_float(x.values[i]);
            if (kMax) {
              result[i] = value > result[i] || value != value ? value : result[i];  // NaN stays
            } else {
              result[i] += value;
            }
          }
        }
      }
      if (!kMax) {
        const int64_t count = task.count_include_pad
                                  ? rows.padded * columns.padded
                                  : (rows.last - rows.first) * (columns.last - columns.first);
        const float factor = 1 / static_cast<float>(count);
#pragma unroll
        for (int i = 0; i < kCount; ++i) {
          result[i] *= factor;
        }
      }
      store(task.y.data, ((n * task.y.height + row) * task.y.width + column) * task.y.pitch + channel,
            result);
    }
  }
}

SENET_KERNEL(kThreads) max_pool_vectors(const Pool task) {
  pool<kVector, true>(task);
}
SENET_KERNEL(kThreads) max_pool_elements(const Pool task) {
  pool<1, true>(task);
}
SENET_KERNEL(kThreads) mean_pool_vectors(const Pool task) {
  pool<kVector, false>(task);
}
SENET_KERNEL(kThreads) mean_pool_elements(const Pool task) {
  pool<1, false>(task);
}

// --- export
// ---------------------------------------------------------------------------------------------------------

// Of few pixels: a thread has a channel; grid: channels, pixels, images.
SENET_KERNEL(kThreads) export_channels(const Export task) {
  const int64_t pixels = task.from.height * task.from.width;
  const int64_t channel = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (channel >= task.channels) {
    return;
  }
  for (int64_t n = blockIdx.z; n < task.from.n; n += gridDim.z) {
    for (int64_t pixel = blockIdx.y; pixel < pixels; pixel += gridDim.y) {
      const auto x = load<1>(task.from.data, (n * pixels + pixel) * task.from.pitch + channel);
      task.to[(n * task.channels + channel) * pixels + pixel] = to_float(x.values[0]);
    }
  }
}

// Tiles are turned in shared memory, so that both sides have neighbours; grid: pixels, channels, images.
SENET_KERNEL(kThreads) export_tiles(const Export task) {
  __shared__ float tile[kTile][kTile + 1];  // [channel][pixel]; one more, so that a column lies in all banks
  const int64_t pixels = task.from.height * task.from.width;
  const int64_t first_pixel = int64_t{blockIdx.x} * kTile;
  const int x = static_cast<int>(threadIdx.x);
  const int y = static_cast<int>(threadIdx.y);
  const int rows = static_cast<int>(blockDim.y);
  for (int64_t n = blockIdx.z; n < task.from.n; n += gridDim.z) {
    for (int64_t first_channel = int64_t{blockIdx.y} * kTile; first_channel < task.channels;
         first_channel += int64_t{gridDim.y} * kTile) {
      for (int p = y; p < kTile; p += rows) {
        if (first_pixel + p < pixels && first_channel + x < task.channels) {
          const int64_t at = (n * pixels + first_pixel + p) * task.from.pitch + first_channel + x;
          tile[x][p] = to_float(load<1>(task.from.data, at).values[0]);
        }
      }
      __syncthreads();
      for (int c = y; c < kTile; c += rows) {
        if (first_pixel + x < pixels && first_channel + c < task.channels) {
          task.to[(n * task.channels + first_channel + c) * pixels + first_pixel + x] = tile[c][x];
        }
      }
      __syncthreads();
    }
  }
}
