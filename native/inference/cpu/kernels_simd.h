// The kernels of kernels.h, once for all instruction sets: templates over a struct `Isa` that wraps one
// vector type and one element type. Included by kernels_<set>.cpp only, in an anonymous namespace of each,
// see kernels.h for why.
//
// An Isa has: Element; Vector (of floats); Doubles (as many bytes; the compiler's own arithmetic serves it);
// kWidth (floats of a Vector); kGroup (elements that one multiply_add takes from the window: 1, or 2 for
// bfloat16); block_pixels(vectors) and kRowPixels; zero, broadcast(float), load(float*), store(float*),
// load_elements, store_elements, to_element(float), add, subtract, multiply, max, relu, multiply_add(weights,
// window, sum), broadcast_group(Element*), load_groups(Element*) (kWidth of them), Lanes (as many integers),
// load_lanes(int32_t*), advance(Lanes, int), shuffle(Vector, Lanes), and low(Vector) and high(Vector): the
// halves as Doubles; kMaxVectors is for the table of kernels.

// Of what keeps a block's sums in registers only if it becomes part of its caller.
#define SENET_INLINE inline __attribute__((always_inline))

template <class Isa>
inline const typename Isa::Element* element_at(const void* base, int64_t offset) {
  return static_cast<const typename Isa::Element*>(base) + offset;
}

// Sums over the pixels of an image. float32 loses with each value that it adds to one sum, so that only a few
// are added up in it, from zero, before they go to float64: not enough for the error to grow with the image,
// and enough that the conversion costs nothing beside what is done for each of them.
constexpr int64_t kFloatSumPixels = 16;

template <class Isa>
inline void add_to_sums(double* sums, typename Isa::Vector values) {
  using Doubles = typename Isa::Doubles;
  Doubles low;
  Doubles high;
  __builtin_memcpy(&low, sums, sizeof(Doubles));
  __builtin_memcpy(&high, sums + Isa::kWidth / 2, sizeof(Doubles));
  low += Isa::low(values);
  high += Isa::high(values);
  __builtin_memcpy(sums, &low, sizeof(Doubles));
  __builtin_memcpy(sums + Isa::kWidth / 2, &high, sizeof(Doubles));
}

// Sums of products lie in registers, and float32 loses with each product that it adds to one sum: after some
// they are carried away, to be added when the others are known.
template <class Isa, int kRows, int kVectors>
struct Carried {
  using Vector = typename Isa::Vector;

  // Adds the sums, and makes them zero.
  void take(Vector (&sums)[kRows][kVectors]) {
    const bool is_first = is_empty;
    is_empty = false;
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        values[r][v] = is_first ? sums[r][v] : Isa::add(values[r][v], sums[r][v]);
        sums[r][v] = Isa::zero();
      }
    }
  }
  // Adds to the sums what they were.
  void give(Vector (&sums)[kRows][kVectors]) const {
    if (is_empty) {
      return;
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        sums[r][v] = Isa::add(sums[r][v], values[r][v]);
      }
    }
  }

  bool is_empty = true;
  Vector values[kRows][kVectors];
};

// Where a block's pixels begin that follow each other in the order of rows.
template <class Isa, int kPixels>
struct AnyPixels {
  using Element = typename Isa::Element;

  SENET_INLINE AnyPixels(const ConvTask& task, int64_t row, int64_t column) {
#pragma GCC unroll 16
    for (int p = 0; p < kPixels; ++p) {
      windows[p] =
          element_at<Isa>(task.input, row * task.input_strides.row + column * task.input_strides.column);
      outputs[p] = row * task.output_strides.row + column * task.output_strides.column;
      residuals[p] = row * task.residual_strides.row + column * task.residual_strides.column;
      if (++column == task.width) {
        column = 0;
        ++row;
      }
    }
  }
  SENET_INLINE const Element* window(int p) const {
    return windows[p];
  }
  SENET_INLINE int64_t output(int p) const {
    return outputs[p];
  }
  SENET_INLINE int64_t residual(int p) const {
    return residuals[p];
  }

  const Element* windows[kPixels];
  int64_t outputs[kPixels];
  int64_t residuals[kPixels];
};

// The same of neighbours in a row.
template <class Isa>
struct RowPixels {
  using Element = typename Isa::Element;

  SENET_INLINE RowPixels(const ConvTask& task, int64_t row, int64_t column)
      : windows(
            element_at<Isa>(task.input, row * task.input_strides.row + column * task.input_strides.column)),
        outputs(row * task.output_strides.row + column * task.output_strides.column),
        residuals(row * task.residual_strides.row + column * task.residual_strides.column),
        columns{task.input_strides.column, task.output_strides.column, task.residual_strides.column} {}
  SENET_INLINE const Element* window(int p) const {
    return windows + p * columns[0];
  }
  SENET_INLINE int64_t output(int p) const {
    return outputs + p * columns[1];
  }
  SENET_INLINE int64_t residual(int p) const {
    return residuals + p * columns[2];
  }

  const Element* windows;
  int64_t outputs;
  int64_t residuals;
  int64_t columns[3];
};

// What the end of a block will read and write comes into the cache while the products are computed.
template <class Isa, int kPixels, int kVectors, class Pixels>
SENET_INLINE void prefetch_block(const ConvTask& task, const Pixels& pixels) {
  using Element = typename Isa::Element;
  if (task.residual != nullptr) {
#pragma GCC unroll 16
    for (int p = 0; p < kPixels; ++p) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        __builtin_prefetch(element_at<Isa>(task.residual, pixels.residual(p) + v * Isa::kWidth));
      }
    }
  }
  if (task.output != nullptr && task.prefetch_output) {
#pragma GCC unroll 16
    for (int p = 0; p < kPixels; ++p) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        __builtin_prefetch(static_cast<const char*>(task.output) +
                               (pixels.output(p) + v * Isa::kWidth) * static_cast<int64_t>(sizeof(Element)),
                           1);
      }
    }
  }
}

template <class Isa, int kPixels, int kVectors>
SENET_INLINE void begin_block(const ConvTask& task, typename Isa::Vector (&sums)[kPixels][kVectors]) {
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    const typename Isa::Vector bias = Isa::load(task.bias + v * Isa::kWidth);
#pragma GCC unroll 16
    for (int p = 0; p < kPixels; ++p) {
      sums[p][v] = bias;
    }
  }
}

// From the sums of a block's products to its outputs.
template <class Isa, int kPixels, int kVectors, class Pixels>
SENET_INLINE void finish_block(const ConvTask& task, const Pixels& pixels,
                               typename Isa::Vector (&sums)[kPixels][kVectors]) {
  using Element = typename Isa::Element;
  using Vector = typename Isa::Vector;
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    const int64_t at = v * Isa::kWidth;
    if (task.scale != nullptr) {
      const Vector scale = Isa::load(task.scale + at);
#pragma GCC unroll 16
      for (int p = 0; p < kPixels; ++p) {
        sums[p][v] = Isa::multiply(sums[p][v], scale);
      }
    }
    if (task.residual != nullptr) {
#pragma GCC unroll 16
      for (int p = 0; p < kPixels; ++p) {
        sums[p][v] =
            Isa::add(sums[p][v], Isa::load_elements(element_at<Isa>(task.residual, pixels.residual(p) + at)));
      }
    }
    if (task.activation == Activation::kRelu) {
#pragma GCC unroll 16
      for (int p = 0; p < kPixels; ++p) {
        sums[p][v] = Isa::relu(sums[p][v]);
      }
    } else if (task.activation == Activation::kSigmoid) {
      for (int p = 0; p < kPixels; ++p) {
        float values[Isa::kWidth];
        Isa::store(values, sums[p][v]);
        for (float& value : values) {
          value = 1.0f / (1.0f + expf(-value));
        }
        sums[p][v] = Isa::load(values);
      }
    }
    if (task.sums != nullptr) {
      static_assert(kPixels <= kFloatSumPixels);
      Vector total = sums[0][v];
#pragma GCC unroll 16
      for (int p = 1; p < kPixels; ++p) {
        total = Isa::add(total, sums[p][v]);
      }
      add_to_sums<Isa>(task.sums + at, total);
    }
    if (task.output != nullptr) {
      if (task.output_is_float) {
#pragma GCC unroll 16
        for (int p = 0; p < kPixels; ++p) {
          Isa::store(static_cast<float*>(task.output) + pixels.output(p) + at, sums[p][v]);
        }
      } else if (task.output_is_byte) {
        const Vector factor = Isa::broadcast(task.to_bytes.factor);
        const Vector offset = Isa::broadcast(task.to_bytes.offset);
        const Vector least = Isa::broadcast(task.to_bytes.least);
#pragma GCC unroll 16
        for (int p = 0; p < kPixels; ++p) {
          const Vector y = Isa::add(Isa::multiply(sums[p][v], factor), offset);
          Isa::store_bytes(static_cast<uint8_t*>(task.output) + pixels.output(p) + at,
                           Isa::to_bytes(Isa::at_least(y, least)));
        }
      } else {
#pragma GCC unroll 16
        for (int p = 0; p < kPixels; ++p) {
          Isa::store_elements(static_cast<Element*>(task.output) + pixels.output(p) + at, sums[p][v]);
        }
      }
    }
  }
}

// One block of the output: kPixels x (kVectors vectors of channels), all of which stay in registers while the
// window is walked once. Each step loads kVectors vectors of weights and one broadcast per pixel for kPixels
// * kVectors multiply-adds, which keeps the two multipliers fed from the two load ports.
template <class Isa, int kVectors>
struct WindowBlock {
  template <int kPixels>
  static void run(const ConvTask& task, int64_t row, int64_t column) {
    using Element = typename Isa::Element;
    using Vector = typename Isa::Vector;
    const AnyPixels<Isa, kPixels> pixels(task, row, column);
    prefetch_block<Isa, kPixels, kVectors>(task, pixels);
    Vector sums[kPixels][kVectors];
    begin_block<Isa>(task, sums);
    const float* weights = static_cast<const float*>(task.weights);  // of groups of elements, 32 bits each
    Carried<Isa, kPixels, kVectors> carried;
    int64_t room = task.carry_after;
    for (int64_t tap = 0; tap < task.tap_count; ++tap) {
      const Element* x[kPixels];
#pragma GCC unroll 16
      for (int p = 0; p < kPixels; ++p) {
        x[p] = pixels.window(p) + task.taps[tap];
      }
      for (int64_t first = 0; first < task.tap_length;) {
        if (room == 0) {
          carried.take(sums);
          room = task.carry_after;
        }
        const int64_t rest = (task.tap_length - first) / Isa::kGroup;
        const int64_t steps = rest < room ? rest : room;
        room -= steps;
        const int64_t last = first + steps * Isa::kGroup;
        for (int64_t k = first; k < last; k += Isa::kGroup) {
          Vector w[kVectors];
#pragma GCC unroll 4
          for (int v = 0; v < kVectors; ++v) {
            w[v] = Isa::load(weights + v * Isa::kWidth);
          }
          weights += kVectors * Isa::kWidth;
#pragma GCC unroll 16
          for (int p = 0; p < kPixels; ++p) {
            const Vector element = Isa::broadcast_group(x[p] + k);
#pragma GCC unroll 4
            for (int v = 0; v < kVectors; ++v) {
              sums[p][v] = Isa::multiply_add(w[v], element, sums[p][v]);
            }
          }
        }
        first = last;
      }
    }
    carried.give(sums);
    finish_block<Isa>(task, pixels, sums);
  }
};

// One block of the output where the panel is one vector with the outputs of one group or of several. Each of
// these needs other channels of the input: a vector of the input is shuffled so that every lane has channel k
// of its group. That takes one of the units that the products need, so a vector serves all taps of a row that
// lie under it: the block is kPixels neighbours of a row, and kTaps are the window's columns.
template <class Isa, int kTaps, bool kIsOneGroup>
struct GroupBlock {
  template <int kPixels>
  static void run(const ConvTask& task, int64_t row, int64_t column) {
    using Element = typename Isa::Element;
    using Vector = typename Isa::Vector;
    using Pixels = std::conditional_t<kTaps == 1, AnyPixels<Isa, kPixels>, RowPixels<Isa>>;
    const Pixels pixels(task, row, column);
    prefetch_block<Isa, kPixels, 1>(task, pixels);
    Vector sums[kPixels][1];
    begin_block<Isa>(task, sums);
    typename Isa::Lanes first_lanes{};
    if constexpr (!kIsOneGroup) {
      first_lanes = Isa::load_lanes(task.lanes);
    }
    const float* weights = static_cast<const float*>(task.weights);  // of groups of elements, 32 bits each
    const int64_t steps = task.tap_length / Isa::kGroup;
    Carried<Isa, kPixels, 1> carried;
    int64_t room = task.carry_after;
    for (int64_t tap = 0; tap < task.tap_count; tap += kTaps) {
      for (int64_t k = 0; k < steps; ++k) {
        if (room < kTaps) {
          carried.take(sums);
          room = task.carry_after;
        }
        room -= kTaps;
        Vector w[kTaps];
#pragma GCC unroll 4
        for (int t = 0; t < kTaps; ++t) {
          w[t] = Isa::load(weights + (t * steps + k) * Isa::kWidth);
        }
        typename Isa::Lanes lanes{};
        if constexpr (!kIsOneGroup) {
          lanes = Isa::advance(first_lanes, static_cast<int32_t>(k));
        }
#pragma GCC unroll 20
        for (int i = 0; i < kPixels + kTaps - 1; ++i) {
          const Element* const x = pixels.window(i) + task.taps[tap];
          Vector element;
          if constexpr (kIsOneGroup) {
            element = Isa::broadcast_group(x + k * Isa::kGroup);
          } else {
            element = Isa::shuffle(Isa::load_groups(x), lanes);
          }
#pragma GCC unroll 4
          for (int t = 0; t < kTaps; ++t) {
            const int p = i - t;
            if (p >= 0 && p < kPixels) {
              sums[p][0] = Isa::multiply_add(w[t], element, sums[p][0]);
            }
          }
        }
      }
      weights += kTaps * steps * Isa::kWidth;
    }
    carried.give(sums);
    finish_block<Isa>(task, pixels, sums);
  }
};

// Runs the block of `pixels` pixels; kPixels counts down to it at compile time.
template <class Block, int kPixels>
void run_block(const ConvTask& task, int64_t pixels, int64_t row, int64_t column) {
  if constexpr (kPixels > 1) {
    if (pixels < kPixels) {
      run_block<Block, kPixels - 1>(task, pixels, row, column);
      return;
    }
  }
  Block::template run<kPixels>(task, row, column);
}

// Pixels [first, last) in blocks of nearly equal size: a short one at the end would leave the multipliers
// idle.
template <class Block, int kMost>
void run_blocks(const ConvTask& task, int64_t first, int64_t last) {
  const int64_t count = last - first;
  const int64_t blocks = (count + kMost - 1) / kMost;
  int64_t pixel = first;
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t end = first + count * (block + 1) / blocks;
    run_block<Block, kMost>(task, end - pixel, pixel / task.width, pixel % task.width);
    pixel = end;
  }
}

template <class Isa, int kVectors = Isa::kMaxVectors>
void convolve(const ConvTask& task) noexcept {
  if constexpr (kVectors > 1) {
    if (task.vectors < kVectors) {
      convolve<Isa, kVectors - 1>(task);
      return;
    }
  }
  run_blocks<WindowBlock<Isa, kVectors>, Isa::block_pixels(kVectors)>(task, task.first, task.last);
}

// A row's pixels at a time.
template <class Block, int kMost>
void run_rows(const ConvTask& task) {
  for (int64_t pixel = task.first; pixel < task.last;) {
    const int64_t row_end = (pixel / task.width + 1) * task.width;
    const int64_t end = row_end < task.last ? row_end : task.last;
    run_blocks<Block, kMost>(task, pixel, end);
    pixel = end;
  }
}

template <class Isa>
void convolve_groups(const ConvTask& task) noexcept {
  if (task.taps_abreast != kTapsAbreast) {
    run_blocks<GroupBlock<Isa, 1, false>, Isa::block_pixels(1)>(task, task.first, task.last);
  } else if (task.lanes != nullptr) {
    run_rows<GroupBlock<Isa, kTapsAbreast, false>, Isa::kRowPixels>(task);
  } else {
    run_rows<GroupBlock<Isa, kTapsAbreast, true>, Isa::kRowPixels>(task);
  }
}

// The next kPixels pixels from `row` and `column` on, which move behind them.
template <class Isa, int kPixels>
void scale_block(const ScaleTask& task, int64_t& row, int64_t& column) {
  using Element = typename Isa::Element;
  using Vector = typename Isa::Vector;
  int64_t in[kPixels];
  int64_t out[kPixels];
  int64_t other[kPixels];
  for (int p = 0; p < kPixels; ++p) {
    in[p] = row * task.input_strides.row + column * task.input_strides.column;
    out[p] = row * task.output_strides.row + column * task.output_strides.column;
    other[p] = row * task.residual_strides.row + column * task.residual_strides.column;
    if (++column == task.width) {
      column = 0;
      ++row;
    }
  }
  for (int64_t c = 0; c < task.channels; c += Isa::kWidth) {
    Vector total = Isa::zero();
#pragma GCC unroll 8
    for (int p = 0; p < kPixels; ++p) {
      Vector x = Isa::load_elements(element_at<Isa>(task.input, in[p] + c));
      if (task.scale != nullptr) {
        x = Isa::multiply(x, Isa::load(task.scale + c));
      }
      if (task.shift != nullptr) {
        x = Isa::add(x, Isa::load(task.shift + c));
      }
      if (task.residual != nullptr) {
        x = Isa::add(x, Isa::load_elements(element_at<Isa>(task.residual, other[p] + c)));
      }
      if (task.activation == Activation::kRelu) {
        x = Isa::relu(x);
      }
      total = Isa::add(total, x);
      if (task.output != nullptr) {
        Isa::store_elements(static_cast<Element*>(task.output) + out[p] + c, x);
      }
    }
    if (task.sums != nullptr) {
      add_to_sums<Isa>(task.sums + c, total);
    }
  }
}

template <class Isa>
void scale(const ScaleTask& task) noexcept {
  constexpr int kPixels = 8;
  static_assert(kPixels <= kFloatSumPixels);
  int64_t row = task.first / task.width;
  int64_t column = task.first % task.width;
  int64_t pixel = task.first;
  // Without sums memory is read and written in its order.
  for (; task.sums != nullptr && pixel + kPixels <= task.last; pixel += kPixels) {
    scale_block<Isa, kPixels>(task, row, column);
  }
  for (; pixel < task.last; ++pixel) {
    scale_block<Isa, 1>(task, row, column);
  }
}

// The part of an output pixel's window that lies in the image, and what a mean divides by.
struct PoolWindow {
  PoolWindow(const PoolTask& task, int64_t row, int64_t column) {
    const int64_t top = row * task.stride - task.padding;
    const int64_t left = column * task.stride - task.padding;
    first_row = top > 0 ? top : 0;
    first_column = left > 0 ? left : 0;
    last_row = top + task.kernel < task.input_height ? top + task.kernel : task.input_height;
    last_column = left + task.kernel < task.input_width ? left + task.kernel : task.input_width;
    // As at::avg_pool2d counts: with ceil mode a window may reach beyond the padding.
    const auto extent = [&](int64_t begin, int64_t size) {
      const int64_t end = size + task.padding;
      return (begin + task.kernel < end ? begin + task.kernel : end) - begin;
    };
    count = task.count_include_pad ? extent(top, task.input_height) * extent(left, task.input_width)
                                   : height() * width();
  }
  int64_t height() const {
    return last_row - first_row;
  }
  int64_t width() const {
    return last_column - first_column;
  }

  int64_t first_row;
  int64_t first_column;
  int64_t last_row;
  int64_t last_column;
  int64_t count;
};

template <class Isa>
void pool(const PoolTask& task) noexcept {
  using Element = typename Isa::Element;
  using Vector = typename Isa::Vector;
  for (int64_t pixel = task.first; pixel < task.last; ++pixel) {
    const int64_t row = pixel / task.width;
    const int64_t column = pixel % task.width;
    const PoolWindow window(task, row, column);
    const float factor = 1.0f / static_cast<float>(window.count);
    Element* out = static_cast<Element*>(task.output) + row * task.output_strides.row +
                   column * task.output_strides.column;
    for (int64_t c = 0; c < task.channels; c += Isa::kWidth) {
      const auto at = [&](int64_t y, int64_t x) {
        return Isa::load_elements(
            element_at<Isa>(task.input, y * task.input_strides.row + x * task.input_strides.column + c));
      };
      const auto merge = [&](Vector left, Vector right) {
        return task.maximum ? Isa::max(left, right) : Isa::add(left, right);
      };
      const auto row_of_window = [&](int64_t y) {
        Vector result = at(y, window.first_column);
        for (int64_t x = window.first_column + 1; x < window.last_column; ++x) {
          result = merge(result, at(y, x));
        }
        return result;
      };
      // Row by row: the error of a sum then grows with the sides of a window, not with its area.
      Vector result = row_of_window(window.first_row);
      for (int64_t y = window.first_row + 1; y < window.last_row; ++y) {
        result = merge(result, row_of_window(y));
      }
      if (!task.maximum) {
        result = Isa::multiply(result, Isa::broadcast(factor));
      }
      if (task.shift != nullptr) {
        result = Isa::add(result, Isa::load(task.shift + c));
      }
      if (task.activation == Activation::kRelu) {
        result = Isa::relu(result);
      }
      Isa::store_elements(out + c, result);
    }
  }
}

template <class Isa>
void load(const LoadTask& task) noexcept {
  using Element = typename Isa::Element;
  for (int64_t row = task.first; row < task.last; ++row) {
    const float* in = task.input + row * task.row_stride;
    Element* out = static_cast<Element*>(task.output) + row * task.output_strides.row;
    for (int64_t c = 0; c < task.pixel_channels; ++c) {
      Element* to = out + c;
      if (c >= task.channels) {
        for (int64_t x = 0; x < task.width; ++x) {
          to[x * task.output_strides.column] = Element();
        }
        continue;
      }
      const float* from = in + c * task.channel_stride;
      for (int64_t x = 0; x < task.width; ++x) {
        to[x * task.output_strides.column] = Isa::to_element(from[x * task.column_stride]);
      }
    }
  }
}

// d0 - d2, d1 + d2, d2 - d1, d1 - d3.
template <class Isa>
inline void winograd_input_line(typename Isa::Vector& d0, typename Isa::Vector& d1, typename Isa::Vector& d2,
                                typename Isa::Vector& d3) {
  const typename Isa::Vector first = Isa::subtract(d0, d2);
  const typename Isa::Vector last = Isa::subtract(d1, d3);
  const typename Isa::Vector sum = Isa::add(d1, d2);
  d2 = Isa::subtract(d2, d1);
  d0 = first;
  d1 = sum;
  d3 = last;
}

template <class Isa>
void winograd_input(const WinogradInputTask& task) noexcept {
  using Vector = typename Isa::Vector;
  int64_t row = task.first / task.width;
  int64_t column = task.first % task.width;
  for (int64_t tile = task.first; tile < task.last; ++tile) {
    const float* pixels[4][4];
    for (int64_t y = 0; y < 4; ++y) {
      const int64_t from_row = 2 * row + y < task.rows ? 2 * row + y : task.rows - 1;
      for (int64_t x = 0; x < 4; ++x) {
        const int64_t from_column = 2 * column + x < task.columns ? 2 * column + x : task.columns - 1;
        pixels[y][x] =
            task.input + from_row * task.input_strides.row + from_column * task.input_strides.column;
      }
    }
    float* const tile_to = task.coefficients + (tile - task.first) * kChannelBlock;
    for (int64_t c = 0; c < task.channels; c += Isa::kWidth) {
      float* const to = tile_to + c / kChannelBlock * task.block + c % kChannelBlock;
      Vector d[4][4];
#pragma GCC unroll 4
      for (int y = 0; y < 4; ++y) {
#pragma GCC unroll 4
        for (int x = 0; x < 4; ++x) {
          d[y][x] = Isa::load(pixels[y][x] + c);
        }
        winograd_input_line<Isa>(d[y][0], d[y][1], d[y][2], d[y][3]);
      }
#pragma GCC unroll 4
      for (int x = 0; x < 4; ++x) {
        winograd_input_line<Isa>(d[0][x], d[1][x], d[2][x], d[3][x]);
#pragma GCC unroll 4
        for (int y = 0; y < 4; ++y) {
          Isa::store(to + (4 * y + x) * task.plane, d[y][x]);
        }
      }
    }
    if (++column == task.width) {
      column = 0;
      ++row;
    }
  }
}

// kTiles tiles by kVectors vectors of channels, as convolve_block does it; the tiles' channels lie at fixed
// distances.
template <class Isa, int kTiles, int kVectors>
void winograd_product_block(const WinogradProductTask& task, int64_t tile) {
  using Vector = typename Isa::Vector;
  Vector sums[kTiles][kVectors];
#pragma GCC unroll 16
  for (int t = 0; t < kTiles; ++t) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      sums[t][v] = Isa::zero();
    }
  }
  const float* weights = task.weights;
  const float* x = task.coefficients + tile * kChannelBlock;
  Carried<Isa, kTiles, kVectors> carried;
  for (int64_t block = 0; block < task.blocks; ++block, x += task.block) {
    if (block > 0 && block * kChannelBlock % kCarryAfter == 0) {
      carried.take(sums);
    }
    for (int64_t k = 0; k < kChannelBlock; ++k) {
      Vector w[kVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        w[v] = Isa::load(weights + v * Isa::kWidth);
      }
      weights += kVectors * Isa::kWidth;
#pragma GCC unroll 16
      for (int t = 0; t < kTiles; ++t) {
        const Vector element = Isa::broadcast(x[t * kChannelBlock + k]);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
          sums[t][v] = Isa::multiply_add(w[v], element, sums[t][v]);
        }
      }
    }
  }
  carried.give(sums);
  float* to = task.products + tile * task.pitch;
#pragma GCC unroll 16
  for (int t = 0; t < kTiles; ++t, to += task.pitch) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      Isa::store(to + v * Isa::kWidth, sums[t][v]);
    }
  }
}

template <class Isa, int kTiles, int kVectors>
void winograd_product_tiles(const WinogradProductTask& task, int64_t tile, int64_t tiles) {
  if constexpr (kTiles > 1) {
    if (tiles < kTiles) {
      winograd_product_tiles<Isa, kTiles - 1, kVectors>(task, tile, tiles);
      return;
    }
  }
  winograd_product_block<Isa, kTiles, kVectors>(task, tile);
}

template <class Isa, int kVectors = Isa::kMaxVectors>
void winograd_products(const WinogradProductTask& task) noexcept {
  if constexpr (kVectors > 1) {
    if (task.vectors < kVectors) {
      winograd_products<Isa, kVectors - 1>(task);
      return;
    }
  }
  constexpr int64_t kMost = Isa::block_pixels(kVectors);
  const int64_t blocks = (task.tiles + kMost - 1) / kMost;
  int64_t tile = 0;
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t end = task.tiles * (block + 1) / blocks;
    winograd_product_tiles<Isa, kMost, kVectors>(task, tile, end - tile);
    tile = end;
  }
}

// The next kTiles tiles from `row` and `column` on, which move behind them; `from` are the products of the
// first.
template <class Isa, int kTiles>
void winograd_output_block(const WinogradOutputTask& task, const float* from, int64_t& row, int64_t& column) {
  using Vector = typename Isa::Vector;
  int64_t pixels[kTiles];
  int64_t rows[kTiles];
  int64_t columns[kTiles];
  for (int t = 0; t < kTiles; ++t) {
    rows[t] = 2 * row + 2 <= task.output_height ? 2 : 1;
    columns[t] = 2 * column + 2 <= task.output_width ? 2 : 1;
    pixels[t] = 2 * row * task.output_strides.row + 2 * column * task.output_strides.column;
    if (++column == task.width) {
      column = 0;
      ++row;
    }
  }
  for (int64_t c = 0; c < task.channels; c += Isa::kWidth) {
    const Vector bias = Isa::load(task.bias + c);
    Vector total = Isa::zero();
    for (int t = 0; t < kTiles; ++t) {
      const float* const products = from + t * task.pitch + c;
      // m0 + m1 + m2 and m1 - m2 - m3, of the columns and then of the rows.
      Vector halves[2][4];
#pragma GCC unroll 4
      for (int x = 0; x < 4; ++x) {
        const Vector m1 = Isa::load(products + (4 + x) * task.plane);
        const Vector m2 = Isa::load(products + (8 + x) * task.plane);
        halves[0][x] = Isa::add(Isa::load(products + x * task.plane), Isa::add(m1, m2));
        halves[1][x] = Isa::subtract(Isa::subtract(m1, m2), Isa::load(products + (12 + x) * task.plane));
      }
#pragma GCC unroll 2
      for (int y = 0; y < 2; ++y) {
        const Vector* h = halves[y];
        Vector results[2] = {Isa::add(h[0], Isa::add(h[1], h[2])),
                             Isa::subtract(Isa::subtract(h[1], h[2]), h[3])};
#pragma GCC unroll 2
        for (int x = 0; x < 2; ++x) {
          if (y >= rows[t] || x >= columns[t]) {
            continue;
          }
          Vector result = Isa::add(results[x], bias);
          if (task.activation == Activation::kRelu) {
            result = Isa::relu(result);
          }
          total = Isa::add(total, result);
          if (task.output != nullptr) {
            Isa::store(
                task.output + pixels[t] + y * task.output_strides.row + x * task.output_strides.column + c,
                result);
          }
        }
      }
    }
    if (task.sums != nullptr) {
      add_to_sums<Isa>(task.sums + c, total);
    }
  }
}

template <class Isa>
void winograd_output(const WinogradOutputTask& task) noexcept {
  constexpr int kTiles = 4;
  static_assert(4 * kTiles <= kFloatSumPixels);
  int64_t row = task.first / task.width;
  int64_t column = task.first % task.width;
  const float* from = task.products;
  int64_t tile = task.first;
  for (; task.sums != nullptr && tile + kTiles <= task.last; tile += kTiles, from += kTiles * task.pitch) {
    winograd_output_block<Isa, kTiles>(task, from, row, column);
  }
  for (; tile < task.last; ++tile, from += task.pitch) {
    winograd_output_block<Isa, 1>(task, from, row, column);
  }
}

// A block of kRows x (kVectors vectors) of float64 sums, which stay in registers.
template <class Isa, int kRows, int kVectors>
void multiply_add_block(const ProductTask& task, int64_t row, int64_t column) {
  using Doubles = typename Isa::Doubles;
  constexpr int64_t kWidth = sizeof(Doubles) / sizeof(double);
  Doubles sums[kRows][kVectors] = {};
  for (int64_t k = 0; k < task.inner; ++k) {
    const double* const right = task.right + k * task.columns + column;
    Doubles factors[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      __builtin_memcpy(&factors[v], right + v * kWidth, sizeof(Doubles));
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const double left = task.left[(row + r) * task.inner + k];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        sums[r][v] += left * factors[v];
      }
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      double* const to = task.sums + (row + r) * task.sums_pitch + column + v * kWidth;
      Doubles sum;
      __builtin_memcpy(&sum, to, sizeof(Doubles));
      sum += sums[r][v];
      __builtin_memcpy(to, &sum, sizeof(Doubles));
    }
  }
}

template <class Isa>
void multiply_add(const ProductTask& task) noexcept {
  constexpr int kRows = 4;
  constexpr int kVectors = 2;
  constexpr int64_t kColumns =
      kVectors * static_cast<int64_t>(sizeof(typename Isa::Doubles) / sizeof(double));
  for (int64_t row = 0; row < task.rows; row += kRows) {
    for (int64_t column = 0; column < task.columns; column += kColumns) {
      if (row + kRows <= task.rows && column + kColumns <= task.columns) {
        multiply_add_block<Isa, kRows, kVectors>(task, row, column);
        continue;
      }
      for (int64_t r = row; r < task.rows && r < row + kRows; ++r) {
        for (int64_t c = column; c < task.columns && c < column + kColumns; ++c) {
          double sum = 0;
          for (int64_t k = 0; k < task.inner; ++k) {
            sum += task.left[r * task.inner + k] * task.right[k * task.columns + c];
          }
          task.sums[r * task.sums_pitch + c] += sum;
        }
      }
    }
  }
}

template <class Isa>
constexpr ElementKernels element_kernels() {
  return {convolve<Isa>, convolve_groups<Isa>, scale<Isa>, pool<Isa>, load<Isa>, nullptr, nullptr, nullptr};
}

// Of an Isa whose elements are floats.
template <class Isa>
constexpr ElementKernels float_kernels() {
  ElementKernels kernels = element_kernels<Isa>();
  kernels.winograd_input = winograd_input<Isa>;
  kernels.winograd_products = winograd_products<Isa>;
  kernels.winograd_output = winograd_output<Isa>;
  return kernels;
}
