// se_resnet50 as steps of a CUDA program, by hand, with weights that are drawn, in the forms whose times are
// compared.
#pragma once

#include "host.h"

#include <cmath>

namespace senet::runner {

/// By the names that the runner prints.
enum class Form {
  kV0,  // each operator by itself, but for the bias of a convolution
  kV1,  // bias and ReLU in the convolutions; squeeze, excitation, and one pass of scale, residual and ReLU
  kV5,  // the excitation before the last convolution, whose kernel scales, adds and rectifies
};

class Network {
 public:
  Network(const Device& device, Form form, int64_t side) : device_(device), form_(form) {
    Id x = value("image", 3, 8, {side, side});
    steps.input = x;
    x = convolution("conv1", x, 64, 7, 2, true);
    x = pool(x);
    const int64_t blocks[] = {3, 4, 6, 3};
    for (int stage = 0; stage < 4; ++stage) {
      for (int64_t block = 0; block < blocks[stage]; ++block) {
        const std::string name = "layer" + std::to_string(stage + 1) + '.' + std::to_string(block);
        x = bottleneck(name, x, 64 << stage, stage > 0 && block == 0 ? 2 : 1, block == 0);
      }
    }
    const Id mean = value("mean", 2048, 2048, {1, 1});
    excite("head", x, 0, mean);
    steps.output = convolution("fc", mean, 1000, 1, 1, false);
  }

  Steps steps;
  std::vector<Pair> sizes;  // of each value
  std::vector<std::shared_ptr<void>> weights;

 private:
  Id value(const std::string& name, int64_t channels, int64_t pitch, Pair size,
           Value::Kind kind = Value::Kind::kElements) {
    const Id id = static_cast<Id>(steps.values.size());
    steps.values.push_back({name, channels, pitch, id, kind});
    sizes.push_back(size);
    return id;
  }
  Id like(const std::string& name, Id x) {
    return value(name, steps.value(x).channels, steps.value(x).pitch, sizes[static_cast<size_t>(x)]);
  }

  template <class T>
  const T* keep(const std::vector<T>& values) {
    weights.push_back(device_.upload(values));
    return static_cast<const T*>(weights.back().get());
  }

  Step make_convolution(const std::string& name, Id x, int64_t channels, int64_t kernel, int64_t stride,
                        bool relu, Id y) {
    const int64_t in = steps.value(x).pitch;
    Step step{Step::Kind::kConvolution, name, {x}, y};
    step.kernel = {kernel, kernel};
    step.stride = {stride, stride};
    step.padding = {kernel / 2, kernel / 2};
    step.relu = relu;
    const double scale = std::sqrt(3.0 / static_cast<double>(in * kernel * kernel));
    step.weight = keep(numbers_.halves(static_cast<size_t>(channels * kernel * kernel * in), scale));
    const std::vector<float> bias = numbers_.floats(static_cast<size_t>(channels), 0.1);
    step.shift = keep(bias);
    step.bias = keep(std::vector<Half>(bias.begin(), bias.end()));
    return step;
  }
  Id result_of(const std::string& name, Id x, int64_t channels, int64_t stride) {
    const Pair size = sizes[static_cast<size_t>(x)];
    return value(name, channels, channels,
                 {(size[0] + stride - 1) / stride, (size[1] + stride - 1) / stride});
  }

  Id convolution(const std::string& name, Id x, int64_t channels, int64_t kernel, int64_t stride, bool relu) {
    const Id y = result_of(name, x, channels, stride);
    const bool apart = form_ == Form::kV0 && relu;
    steps.steps.push_back(make_convolution(name, x, channels, kernel, stride, relu && !apart, y));
    return apart ? pointwise(name + ".relu", y, kNone, kNone, true) : y;
  }

  Id pointwise(const std::string& name, Id x, Id factors, Id residual, bool relu) {
    Step step{Step::Kind::kPointwise, name, {x}, like(name, x)};
    step.factors = factors;
    step.residual = residual;
    step.relu = relu;
    steps.steps.push_back(step);
    return step.output;
  }

  Id pool(Id x) {
    Step step{Step::Kind::kPool, "maxpool", {x}, result_of("maxpool", x, steps.value(x).channels, 2)};
    step.kernel = {3, 3};
    step.stride = {2, 2};
    step.padding = {1, 1};
    step.is_max = true;
    steps.steps.push_back(step);
    return step.output;
  }

  // The mean of x, and what an excitation of `hidden` makes of it; without hidden the mean itself.
  void excite(const std::string& name, Id x, int64_t hidden, Id to) {
    const int64_t in = steps.value(x).channels;
    const int64_t channels = steps.value(to).channels;
    const Id parts = value("means of " + name, in, in, {1, 1}, Value::Kind::kParts);
    steps.steps.push_back({Step::Kind::kMean, name, {x}, parts});
    Step step{Step::Kind::kExcite, name, {parts}, to};
    if (hidden > 0) {
      step.hidden = hidden;
      step.w1 = keep(numbers_.halves(static_cast<size_t>(hidden * in), 0.1));
      step.b1 = keep(numbers_.floats(static_cast<size_t>(hidden), 0.1));
      step.w2 = keep(numbers_.halves(static_cast<size_t>(channels * hidden), 0.1));
      step.b2 = keep(numbers_.floats(static_cast<size_t>(channels), 0.1));
    }
    steps.steps.push_back(step);
  }

  Id bottleneck(const std::string& name, Id x, int64_t planes, int64_t stride, bool has_downsample) {
    const int64_t channels = 4 * planes;
    const Id residual = has_downsample ? convolution(name + ".downsample", x, channels, 1, stride, false) : x;
    Id y = convolution(name + ".conv1", x, planes, 1, 1, true);
    y = convolution(name + ".conv2", y, planes, 3, stride, true);
    const Id factors = value("factors of " + name, channels, channels, {1, 1});
    if (form_ == Form::kV5) {
      excite(name + ".se", y, channels / 16, factors);
      Step step = make_convolution(name + ".conv3", y, channels, 1, 1, true, result_of(name, y, channels, 1));
      step.factors = factors;
      step.residual = residual;
      steps.steps.push_back(step);
      return step.output;
    }
    y = convolution(name + ".conv3", y, channels, 1, 1, false);
    excite(name + ".se", y, channels / 16, factors);
    if (form_ == Form::kV1) {
      return pointwise(name + ".out", y, factors, residual, true);
    }
    y = pointwise(name + ".scale", y, factors, kNone, false);
    y = pointwise(name + ".add", y, kNone, residual, false);
    return pointwise(name + ".relu", y, kNone, kNone, true);
  }

  const Device& device_;
  const Form form_;
  Numbers numbers_;
};

}  // namespace senet::runner
