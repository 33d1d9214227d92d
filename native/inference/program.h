// A plan made ready to run on one device: what the programs of all back ends have in common.
#pragma once

#include "graph/convolution.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <exception>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace senet::inference {

/// A step of a program, for people.
struct StepInfo {
  std::string name;  // path of the module that it computes, or of the first of several; "input", "output"
  std::string operation;  // "convolution", "scale", ...
  std::vector<std::string> fused =
      {};  // what else is computed in the same pass: "relu", "sums of layer1.0.se", ...
  std::vector<int64_t> input = {};  // channels, height, width
  std::vector<int64_t> output = {};
  int64_t weight_bytes = 0;
  int64_t activation_bytes = 0;  // read and written, for one image
  int64_t multiply_adds = 0;     // for one image
  std::string kernel = {};       // what computes it, where there is a choice and it was made

  /// Of bytes: what those of the output mean (scale * (byte - zero)), and how far it was off on the images
  /// for calibration, relative, if its inputs are not: the square root of the errors' squares over the
  /// values'.
  struct Meaning {
    float scale;
    int32_t zero;
    std::optional<double> error;
  };
  std::optional<Meaning> quantization = {};
};

/// Seconds spent in each step of one run, in the order of the steps; with several threads, their mean.
using StepSeconds = std::vector<double>;

/// Images in the host's memory.
struct HostBatch {
  /// N x channels x height x width on the CPU, of any strides: uint8, of which the network takes (x / 255 -
  /// mean) / deviation for each of its channels, or float32 as it takes them. One channel is repeated for
  /// all.
  at::Tensor images;
  std::vector<float> mean = {}, deviation = {};
};

/// How a batch that is on its way comes to its end.
struct Afterwards {
  /// Called once, on any thread: the result on the CPU, or what went wrong. Whoever started it keeps the
  /// program until then.
  std::function<void(at::Tensor, std::exception_ptr)> done;
  /// Runs something soon on a thread that may compute. May throw: then it never will.
  std::function<void(std::function<void()>)> post;
};

class Program {
 public:
  virtual ~Program() = default;

  /// Starts a batch that needs no thread while the device computes; false: this program has no such way, or
  /// not for this batch. Throws nothing.
  virtual bool start(const HostBatch&, const Afterwards&) const {
    return false;
  }
  /// So many of these compute at once; 0: none.
  virtual int lanes() const {
    return 0;
  }

  /// `input` is float32, N x channels x height x width with N at least 1, of any strides. May be called by
  /// several threads at once; uses as many threads as LibTorch is set to on the calling one. `seconds` may be
  /// null.
  virtual at::Tensor run(const at::Tensor& input, StepSeconds* seconds) const = 0;

  /// The steps for images of one size.
  virtual std::vector<StepInfo> explain(graph::Size2 size) const = 0;

  /// Memory that the packed weights take.
  virtual int64_t weight_bytes() const = 0;

  /// What the steps run on: a set of kernels (cpu/kernel_sets.h), "onednn", "libtorch", "cuda", "cuda-fused".
  virtual const char* backend() const = 0;
};

}  // namespace senet::inference
