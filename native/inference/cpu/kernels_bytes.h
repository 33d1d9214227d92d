// The kernels of bytes: activations uint8, weights int8, sums of products int32 and exact. What they give is
// the same bits on every instruction set: sums over pixels are those of bytes, and what is computed in
// float32 is a fixed row of multiplications and fused multiply-adds, element by element. Included by
// kernels_<set>.cpp as kernels_simd.h is, which it brings.
//
// An Isa has, beside what a float32 one has: Ints (as many int32 as a Vector has floats), load_ints,
// zero_ints, broadcast_int, add_ints, max_ints, low_ints and high_ints (the halves as Doubles), load_bytes
// and store_bytes (as Ints), to_floats, to_bytes (Vector to Ints, at most 255), at_least, fused (x * y + z of
// one rounding); and for the products load_weights, broadcast_bytes and dot (of four elements).

#include "inference/cpu/kernels_simd.h"

// The addresses of bytes.
template <class Isa>
struct BytesOf : Isa {
  using Element = uint8_t;
};

template <class Isa>
inline void add_ints_to_sums(double* sums, typename Isa::Ints values) {
  using Doubles = typename Isa::Doubles;
  Doubles low;
  Doubles high;
  __builtin_memcpy(&low, sums, sizeof(Doubles));
  __builtin_memcpy(&high, sums + Isa::kWidth / 2, sizeof(Doubles));
  low += Isa::low_ints(values);
  high += Isa::high_ints(values);
  __builtin_memcpy(sums, &low, sizeof(Doubles));
  __builtin_memcpy(sums + Isa::kWidth / 2, &high, sizeof(Doubles));
}

// One block of the output, as WindowBlock; an instruction takes four elements of the window.
template <class Isa, int kVectors>
struct ByteBlock {
  template <int kPixels>
  static void run(const ConvTask& task, int64_t row, int64_t column) {
    using Ints = typename Isa::Ints;
    constexpr int kFour = 4;
    const AnyPixels<BytesOf<Isa>, kPixels> pixels(task, row, column);
    if (task.residual != nullptr) {
#pragma GCC unroll 16
      for (int p = 0; p < kPixels; ++p) {
        __builtin_prefetch(static_cast<const uint8_t*>(task.residual) + pixels.residual(p));
      }
    }
    if (task.output != nullptr && task.prefetch_output) {
#pragma GCC unroll 16
      for (int p = 0; p < kPixels; ++p) {
        __builtin_prefetch(static_cast<const uint8_t*>(task.output) + pixels.output(p), 1);
      }
    }
    Ints sums[kPixels][kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const Ints start = Isa::load_ints(task.start + v * Isa::kWidth);
#pragma GCC unroll 16
      for (int p = 0; p < kPixels; ++p) {
        sums[p][v] = start;
      }
    }
    const int8_t* weights = static_cast<const int8_t*>(task.weights);
    for (int64_t tap = 0; tap < task.tap_count; ++tap) {
      const uint8_t* x[kPixels];
#pragma GCC unroll 16
      for (int p = 0; p < kPixels; ++p) {
        x[p] = pixels.window(p) + task.taps[tap];
      }
      for (int64_t k = 0; k < task.tap_length; k += kFour) {
        decltype(Isa::load_weights(weights)) w[kVectors];
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
          w[v] = Isa::load_weights(weights + v * Isa::kWidth * kFour);
        }
        weights += kVectors * Isa::kWidth * kFour;
#pragma GCC unroll 16
        for (int p = 0; p < kPixels; ++p) {
          const auto four = Isa::broadcast_bytes(x[p] + k);
#pragma GCC unroll 4
          for (int v = 0; v < kVectors; ++v) {
            sums[p][v] = Isa::dot(sums[p][v], w[v], four);
          }
        }
      }
    }
    finish<0, kPixels>(task, pixels, sums);
  }

  // Of one vector after the other, each of which the compiler sees as its own: else it keeps the sums in
  // memory.
  template <int kVector, int kPixels, class Pixels>
  SENET_INLINE static void finish(const ConvTask& task, const Pixels& pixels,
                                  typename Isa::Ints (&sums)[kPixels][kVectors]) {
    using Vector = typename Isa::Vector;
    constexpr int64_t kAt = kVector * Isa::kWidth;
    const Vector offset = Isa::broadcast(task.to_bytes.offset);
    Vector factor = Isa::load(task.multiplier + kAt);
    Vector shift = Isa::load(task.bias + kAt);
    if (task.scale != nullptr) {
      const Vector scale = Isa::load(task.scale + kAt);
      factor = Isa::multiply(factor, scale);
      shift = Isa::fused(shift, scale, offset);
    } else {
      shift = Isa::add(shift, offset);
    }
    Vector y[kPixels];
#pragma GCC unroll 16
    for (int p = 0; p < kPixels; ++p) {
      y[p] = Isa::fused(Isa::to_floats(sums[p][kVector]), factor, shift);
    }
    if (task.residual != nullptr) {
      const Vector residual_factor = Isa::broadcast(task.to_bytes.residual_factor);
#pragma GCC unroll 16
      for (int p = 0; p < kPixels; ++p) {
        const uint8_t* const from = static_cast<const uint8_t*>(task.residual) + pixels.residual(p) + kAt;
        y[p] = Isa::fused(Isa::to_floats(Isa::load_bytes(from)), residual_factor, y[p]);
      }
    }
    if (task.output_is_float) {
      store_floats<kPixels>(task, pixels, kAt, y);
    } else {
      store_bytes<kPixels>(task, pixels, kAt, y);
    }
    if constexpr (kVector + 1 < kVectors) {
      finish<kVector + 1, kPixels>(task, pixels, sums);
    }
  }

  template <int kPixels, class Pixels>
  SENET_INLINE static void store_floats(const ConvTask& task, const Pixels& pixels, int64_t at,
                                        typename Isa::Vector (&y)[kPixels]) {
#pragma GCC unroll 16
    for (int p = 0; p < kPixels; ++p) {
      if (task.activation == Activation::kRelu) {
        y[p] = Isa::relu(y[p]);
      }
      if (task.output != nullptr) {
        Isa::store(static_cast<float*>(task.output) + pixels.output(p) + at, y[p]);
      }
    }
  }

  template <int kPixels, class Pixels>
  SENET_INLINE static void store_bytes(const ConvTask& task, const Pixels& pixels, int64_t at,
                                       typename Isa::Vector (&y)[kPixels]) {
    using Ints = typename Isa::Ints;
    const typename Isa::Vector least = Isa::broadcast(task.to_bytes.least);
    Ints bytes[kPixels];
#pragma GCC unroll 16
    for (int p = 0; p < kPixels; ++p) {
      bytes[p] = Isa::to_bytes(Isa::at_least(y[p], least));
    }
    if (task.output != nullptr) {
#pragma GCC unroll 16
      for (int p = 0; p < kPixels; ++p) {
        Isa::store_bytes(static_cast<uint8_t*>(task.output) + pixels.output(p) + at, bytes[p]);
      }
    }
    if (task.sums != nullptr) {
      Ints total = bytes[0];
#pragma GCC unroll 16
      for (int p = 1; p < kPixels; ++p) {
        total = Isa::add_ints(total, bytes[p]);
      }
      add_ints_to_sums<Isa>(task.sums + at, total);
    }
  }
};

template <class Isa, int kVectors = Isa::kMaxVectors>
void convolve_bytes(const ConvTask& task) noexcept {
  if constexpr (kVectors > 1) {
    if (task.vectors < kVectors) {
      convolve_bytes<Isa, kVectors - 1>(task);
      return;
    }
  }
  run_blocks<ByteBlock<Isa, kVectors>, Isa::block_pixels(kVectors)>(task, task.first, task.last);
}

template <class Isa>
SENET_INLINE typename Isa::Vector load_either(const void* base, int64_t offset, bool is_float) {
  return is_float ? Isa::load(static_cast<const float*>(base) + offset)
                  : Isa::to_floats(Isa::load_bytes(static_cast<const uint8_t*>(base) + offset));
}

// The next kPixels pixels from `row` and `column` on, which move behind them.
template <class Isa, int kPixels>
void scale_bytes_block(const ScaleTask& task, int64_t& row, int64_t& column) {
  using Vector = typename Isa::Vector;
  using Ints = typename Isa::Ints;
  int64_t in[kPixels];
  int64_t other[kPixels];
  int64_t out[kPixels];
  for (int p = 0; p < kPixels; ++p) {
    in[p] = row * task.input_strides.row + column * task.input_strides.column;
    other[p] = row * task.residual_strides.row + column * task.residual_strides.column;
    out[p] = row * task.output_strides.row + column * task.output_strides.column;
    if (++column == task.width) {
      column = 0;
      ++row;
    }
  }
  const ToBytes& to = task.to_bytes;
  const Vector least = Isa::broadcast(to.least);
  for (int64_t c = 0; c < task.channels; c += Isa::kWidth) {
    Vector factor = Isa::broadcast(to.input_factor);
    if (task.scale != nullptr) {
      factor = Isa::multiply(Isa::load(task.scale + c), factor);
    }
    // offset + shift - zero * factor
    Vector shift = Isa::fused(Isa::broadcast(-to.input_zero), factor, Isa::broadcast(to.offset));
    if (task.shift != nullptr) {
      shift = Isa::fused(Isa::load(task.shift + c), Isa::broadcast(to.factor), shift);
    }
    Ints total = Isa::zero_ints();
    Vector float_total = Isa::zero();
    for (int p = 0; p < kPixels; ++p) {
      Vector y = Isa::fused(load_either<Isa>(task.input, in[p] + c, task.input_is_float), factor, shift);
      if (task.residual != nullptr) {
        y = Isa::fused(load_either<Isa>(task.residual, other[p] + c, task.residual_is_float),
                       Isa::broadcast(to.residual_factor), y);
      }
      if (task.output_is_float) {
        y = task.activation == Activation::kRelu ? Isa::relu(y) : y;
        float_total = Isa::add(float_total, y);
        if (task.output != nullptr) {
          Isa::store(static_cast<float*>(task.output) + out[p] + c, y);
        }
        continue;
      }
      const Ints bytes = Isa::to_bytes(Isa::at_least(y, least));
      total = Isa::add_ints(total, bytes);
      if (task.output != nullptr) {
        Isa::store_bytes(static_cast<uint8_t*>(task.output) + out[p] + c, bytes);
      }
    }
    if (task.sums != nullptr && task.output_is_float) {
      add_to_sums<Isa>(task.sums + c, float_total);
    } else if (task.sums != nullptr) {
      add_ints_to_sums<Isa>(task.sums + c, total);
    }
  }
}

template <class Isa>
void scale_bytes(const ScaleTask& task) noexcept {
  constexpr int kPixels = 8;
  int64_t row = task.first / task.width;
  int64_t column = task.first % task.width;
  int64_t pixel = task.first;
  for (; pixel + kPixels <= task.last; pixel += kPixels) {
    scale_bytes_block<Isa, kPixels>(task, row, column);
  }
  for (; pixel < task.last; ++pixel) {
    scale_bytes_block<Isa, 1>(task, row, column);
  }
}

template <class Isa>
void pool_bytes(const PoolTask& task) noexcept {
  using Vector = typename Isa::Vector;
  using Ints = typename Isa::Ints;
  const ToBytes& to = task.to_bytes;
  const Vector least = Isa::broadcast(to.least);
  for (int64_t pixel = task.first; pixel < task.last; ++pixel) {
    const int64_t row = pixel / task.width;
    const int64_t column = pixel % task.width;
    const PoolWindow window(task, row, column);
    const auto zeros = static_cast<int32_t>(to.input_zero) *
                       (task.maximum ? 1 : static_cast<int32_t>(window.height() * window.width()));
    const Vector factor =
        Isa::broadcast(task.maximum ? to.input_factor : to.input_factor / static_cast<float>(window.count));
    const int64_t out = row * task.output_strides.row + column * task.output_strides.column;
    for (int64_t c = 0; c < task.channels; c += Isa::kWidth) {
      Ints result = Isa::zero_ints();
      for (int64_t y = window.first_row; y < window.last_row; ++y) {
        const uint8_t* from = static_cast<const uint8_t*>(task.input) + y * task.input_strides.row +
                              window.first_column * task.input_strides.column + c;
        for (int64_t x = window.first_column; x < window.last_column; ++x) {
          const Ints value = Isa::load_bytes(from);
          result = task.maximum ? Isa::max_ints(result, value) : Isa::add_ints(result, value);
          from += task.input_strides.column;
        }
      }
      result = Isa::add_ints(result, Isa::broadcast_int(-zeros));
      Vector shift = Isa::broadcast(to.offset);
      if (task.shift != nullptr) {
        shift = Isa::fused(Isa::load(task.shift + c), Isa::broadcast(to.factor), shift);
      }
      const Vector value = Isa::fused(Isa::to_floats(result), factor, shift);
      if (task.output_is_float) {
        Isa::store(static_cast<float*>(task.output) + out + c,
                   task.activation == Activation::kRelu ? Isa::relu(value) : value);
      } else {
        Isa::store_bytes(static_cast<uint8_t*>(task.output) + out + c,
                         Isa::to_bytes(Isa::at_least(value, least)));
      }
    }
  }
}

template <class Isa>
void load_into_bytes(const LoadTask& task) noexcept {
  const ToBytes& to = task.to_bytes;
  for (int64_t row = task.first; row < task.last; ++row) {
    const float* in = task.input + row * task.row_stride;
    uint8_t* out = static_cast<uint8_t*>(task.output) + row * task.output_strides.row;
    for (int64_t c = 0; c < task.pixel_channels; ++c) {
      for (int64_t x = 0; x < task.width; ++x) {
        const float value = c < task.channels ? in[c * task.channel_stride + x * task.column_stride] : 0.0f;
        float y = fmaf(value, to.factor, to.offset);
        y = y > to.least ? y : to.least;
        out[x * task.output_strides.column + c] =
            y < 255.0f ? static_cast<uint8_t>(nearbyintf(y)) : static_cast<uint8_t>(255);
      }
    }
  }
}

template <class Isa>
constexpr ElementKernels byte_kernels() {
  return {convolve_bytes<Isa>,  nullptr, scale_bytes<Isa>, pool_bytes<Isa>,
          load_into_bytes<Isa>, nullptr, nullptr,          nullptr};
}
