// What a CUDA program does, step by step, for images of any number and size: made from a plan by lower.h,
// made ready for one shape by sequence.h. Knows no LibTorch; weights are pointers into memory of the device.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace senet::inference::cuda {

/// Index of Steps::values.
using Id = int32_t;
inline constexpr Id kNone = -1;

/// What steps hand on to each other.
struct Value {
  enum class Kind {
    kElements,  // channels-last, of the program's type
    kParts,     // float32: the parts of the means of an image's channels
  };

  std::string name;
  int64_t channels = 0;
  int64_t pitch = 0;   // elements from pixel to pixel, at least `channels`; what lies between is 0
  Id size_of = kNone;  // the plan's value whose height and width it has; kNone: 1 x 1
  Kind kind = Kind::kElements;
};

using Pair = std::array<int64_t, 2>;  // height and width

struct Step {
  enum class Kind {
    kConvolution,  // with its bias; then * factors, + residual, ReLU where they are given
    kPointwise,    // (x * scale + shift) * factors + residual, ReLU, each where it is given
    kMean,         // to parts
    kExcite,       // parts to factors; without weights, parts to means
    kPool,
    kConcatenate,
    kOperator,  // LibTorch's, by the host; nothing of it can be captured
  };

  Kind kind;
  std::string name;  // path of the module
  std::vector<Id> inputs;
  Id output = kNone;
  Id factors = kNone;
  Id residual = kNone;
  bool relu = false;
  size_t node = 0;  // of the plan: of an operator, and of a convolution that no kernel serves

  Pair kernel = {1, 1}, stride = {1, 1}, padding = {0, 0}, dilation = {1, 1};
  int64_t groups = 1;
  const void* weight = nullptr;  // of a convolution: [out, height, width, in / groups]
  const void* bias = nullptr;    // [out]
  const float* scale = nullptr;  // of a pointwise step: [channels]; may be null
  const float* shift = nullptr;  // likewise; of a convolution, its bias in float32

  bool is_max = false;  // of a pool
  bool count_include_pad = true;

  int64_t hidden = 0;  // of an excitation: kernels.h says what these are
  const void* w1 = nullptr;
  const float* b1 = nullptr;
  const void* w2 = nullptr;
  const float* b2 = nullptr;
  const float* channel_kernel = nullptr;
  int64_t kernel_size = 0;

  int64_t weight_bytes = 0;
};

struct Steps {
  std::vector<Value> values;  // those of the plan first, with their ids
  std::vector<Step> steps;
  Id input = kNone;
  Id output = kNone;

  const Value& value(Id id) const {
    return values[static_cast<size_t>(id)];
  }
};

/// "convolution", "global_average_pool".
const char* operation_name(const Step& step);

/// What is computed in a step besides: "factors of layer1.0.se", "residual", "relu".
std::vector<std::string> extras_of(const Steps& steps, const Step& step);

/// A line for each step: "convolution layer1.0.conv3: %4 -> %6; factors of layer1.0.se, residual, relu".
std::string to_string(const Steps& steps);

}  // namespace senet::inference::cuda
