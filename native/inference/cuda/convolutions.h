// Convolutions by cuDNN's graph interface (cuDNN's "backend" functions): one kernel computes a convolution
// with its bias, and what follows it where cuDNN has a plan for that: the factors of a
// Squeeze-and-Excitation, a residual and a ReLU. Knows no LibTorch.
#pragma once

#include "runtime/cuda_driver.h"

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace senet::inference::cuda {

using namespace runtime::cuda;

enum class Type { kHalf, kBFloat16, kFloat };
inline int64_t bytes_of(Type type) {
  return type == Type::kFloat ? 4 : 2;
}

/// y = relu?((convolution(x, w) + bias?) * factors? + residual?), all channels-last:
/// x [n, height, width, in_channels], w [out_channels, kernel height, kernel width, in_channels / groups],
/// bias [out_channels], factors [n, out_channels], y and residual [n, out height, out width, out_channels].
struct Convolution {
  Type type;                // of all of them
  bool allow_tf32 = false;  // of float32: whether products may be rounded to TensorFloat-32
  int64_t n, height, width, in_channels, out_channels, groups = 1;
  std::array<int64_t, 2> kernel, stride = {1, 1}, padding = {0, 0}, dilation = {1, 1};
  int64_t out_height, out_width;
  bool has_bias = true, has_factors = false, has_residual = false, relu = false;

  /// "f16 n1 56x56x64 -> 56x56x256 k1x1 s1x1 p0x0 d1x1 g1 bias factors residual relu": the same text, the
  /// same work.
  std::string key() const;
};

struct ConvolutionArguments {
  const void* x;
  const void* weight;
  const void* bias = nullptr;
  const void* factors = nullptr;
  const void* residual = nullptr;
  void* y;
  void* workspace = nullptr;  // of at least workspace_bytes(), aligned to 256
};

/// An engine of cuDNN with its settings, ready to run.
class ConvolutionPlan {
 public:
  virtual ~ConvolutionPlan() = default;
  virtual int64_t workspace_bytes() const = 0;
  /// Which engine of cuDNN it is, with each knob and its value: "engine 41 2=5 13=1".
  virtual const std::string& name() const = 0;
  /// What find_plans() makes the same plan from again, in a millisecond: with its code, if that was compiled.
  /// Good for the same cuDNN and device. Empty if cuDNN cannot write it.
  virtual std::string serialise() const = 0;
  /// Enqueues it; may be captured. One thread at a time. Throws ERR_SENET_CUDA.
  virtual void run(CudnnHandle handle, const ConvolutionArguments& arguments) const = 0;
};

/// The plans that cuDNN has for this, those first that it takes for the fastest; at most `limit`. None: cuDNN
/// cannot fuse this, and the caller asks for less at once. Left out are plans whose sums may differ from run
/// to run, and those less exact than `type` and `allow_tf32` say. With factors a plan is compiled, which
/// takes up to a second or more, so several threads may look for plans at once, each with its own handle.
///
/// `remembered`: what serialise() answered; if cuDNN takes it, that plan alone is returned. It holds code
/// that the device will run, so it must come from where no one else writes.
///
/// `device`: cuDNN's description of a device in JSON (since cuDNN 9.8), to plan for one that is not there;
/// then without a handle.
std::vector<std::unique_ptr<ConvolutionPlan>> find_plans(const Driver& driver, CudnnHandle handle,
                                                         const Convolution& convolution, size_t limit,
                                                         const std::string& remembered = "",
                                                         const std::string& device = "");

}  // namespace senet::inference::cuda
