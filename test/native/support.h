// What the tests of kernels and programs share: which kernels there are to test, images in the kernels'
// layout in the middle of memory that must not change, and comparisons.
#pragma once

#include "inference/cpu/kernel_sets.h"

#include <ATen/core/Tensor.h>
#include <c10/util/Logging.h>

// LibTorch's ends the process; doctest's says what failed and goes on, and is counted.
#undef CHECK
#include <doctest/doctest.h>

#include <cstdint>
#include <functional>
#include <random>
#include <sstream>
#include <string>
#include <vector>

namespace senet::test {

template <class... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream stream;
  (stream << ... << parts);
  return stream.str();
}

/// A test case for a row of a table, as TEST_CASE is for a function.
void add_test(const std::string& name, std::function<void()> body);

/// One element type of one instruction set.
struct Variant {
  std::string name;  // "avx2 float32"
  const inference::Kernels* kernels;
  const inference::ElementKernels* element;
  bool is_float;

  at::ScalarType dtype() const {
    return is_float ? at::kFloat : at::kBFloat16;
  }
};

/// Runs a convolution's tasks as a step does: by the matrix unit, if the kernels have one that the layer
/// suits (plan_tiles). Its output has `height` rows.
class ConvolutionRunner {
 public:
  ConvolutionRunner(const inference::ElementKernels& kernels, const inference::ConvTask& layer,
                    int64_t height, int64_t element_bytes);
  ConvolutionRunner(const ConvolutionRunner&) = delete;
  ConvolutionRunner& operator=(const ConvolutionRunner&) = delete;
  ~ConvolutionRunner();

  void run(inference::ConvTask task) const;

 private:
  const inference::ElementKernels& kernels_;
  const inference::TileRuns runs_;
};

/// Runs `test` with each variant that this processor can run, in a subcase of its name, and reports the
/// others as skipped.
/// The set of kernels of this name; null, and a line that says why, where it cannot run here.
const inference::Kernels* runnable_kernels(const std::string& name);

void for_each_variant(const std::function<void(const Variant&)>& test);

/// Numbers for the shapes and options of a test: the same at each run.
class Random {
 public:
  explicit Random(uint32_t seed) : generator_(seed) {}
  /// From `first` to `last`.
  int64_t between(int64_t first, int64_t last) {
    return std::uniform_int_distribution<int64_t>(first, last)(generator_);
  }
  bool chance(double probability = 0.5) {
    return std::bernoulli_distribution(probability)(generator_);
  }
  template <class T>
  T of(const std::vector<T>& choices) {
    return choices[static_cast<size_t>(between(0, static_cast<int64_t>(choices.size()) - 1))];
  }
  /// float64, uniform in (-1, 1), rounded to the variant's elements.
  at::Tensor tensor(at::IntArrayRef shape, at::ScalarType rounded_to);

 private:
  std::mt19937 generator_;
};

/// Runs `test` for cases 0, 1, ... with numbers of their own, drawn from seeds `first_seed`, `first_seed` +
/// 1,
/// ... A failure prints its seed; SENET_FUZZ_SEED runs the case of that seed alone.
void for_each_drawn(uint32_t first_seed, int count, const std::function<void(Random&, int)>& test);

/// Channels as the kernels take them.
int64_t padded(int64_t channels);
/// Packs [out, in, height, width] (float64) panel after panel.
void pack_panels(const at::Tensor& weight, int64_t pixel, const Variant& variant,
                 const std::vector<int32_t>& panel_vectors, uint8_t* to);
/// A float64 tensor with zeros appended along a dimension.
at::Tensor with_zeros(const at::Tensor& tensor, int64_t dimension, int64_t size);

/// An image in the kernels' layout, somewhere within wider rows, wider pixels and a border.
class Picture {
 public:
  struct Shape {
    int64_t channels;  // of the image
    int64_t height;
    int64_t width;
    int64_t pixel = 0;        // elements from one pixel to the next; 0: as many as channels
    int64_t channel = 0;      // the image's first, in the pixel
    int64_t border_rows = 0;  // above and below
    int64_t border_columns = 0;
    int64_t extra_columns = 0;  // more at each row's end
  };

  /// All of the memory holds `filling`.
  Picture(const Shape& shape, at::ScalarType dtype, double filling);

  /// The image, channels x height x width.
  at::Tensor view() const;
  /// The image with so much of its border.
  at::Tensor view(int64_t rows, int64_t columns) const;
  /// Pixel (-rows, -columns), channel `channel` of the image.
  void* at(int64_t rows = 0, int64_t columns = 0, int64_t channel = 0) const;
  inference::Strides strides() const;
  /// Throws if anything but the image's channels [first, last) is other than in `before`.
  void expect_changed_only(const Picture& before, int64_t first, int64_t last,
                           const std::string& where) const;
  Picture clone() const;

 private:
  Shape shape_;
  at::Tensor memory_;  // rows x columns x pixel
};

/// What `work` throws as an Error, or nothing.
std::string refusal(const std::function<void()>& work);

/// The bytes are the same.
bool same_bytes(const at::Tensor& left, const at::Tensor& right);

/// Each element is within `allowed` (float64, broadcast) of `expected` (float64). NaN must meet NaN, and an
/// infinity itself.
void expect_near(const at::Tensor& actual, const at::Tensor& expected, const at::Tensor& allowed,
                 const std::string& where);

/// Wherever `expected` is NaN, so is `actual`.
void expect_nan_where(const at::Tensor& expected, const at::Tensor& actual, const std::string& where);

/// 2 to the power of -24: half the distance of neighbouring float32 numbers, relative.
inline constexpr double kFloatError = 1.0 / (1 << 24);
/// Half the distance of neighbouring bfloat16 numbers, relative.
inline constexpr double kBfloat16Error = 1.0 / (1 << 8);

/// What a sum of `count` products in float32 may be off, relative to the sum of their magnitudes. Worst cases
/// are larger; a product that is missing or wrong is, too.
double sum_error(int64_t count);

/// What the sums over the pixels of [channels, height, width] may be off. The kernels add up a few of them in
/// float32 and those sums in float64, so that errors do not add up; they even out where there are many.
at::Tensor pixel_sum_error(const at::Tensor& pixels);

/// |actual - expected| / |expected|, L2, is at most `allowed`.
void expect_relative(const at::Tensor& actual, const at::Tensor& expected, double allowed,
                     const std::string& where);

}  // namespace senet::test
