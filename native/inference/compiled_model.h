// An inference-only copy of a module: `model.compile()`.
//
// A Plan (plan.h) says what it computes, a Program (program.h) how: our own kernels where the processor has
// them (cpu/program.h), LibTorch's operators elsewhere (aten/program.h).
#pragma once

#include "inference/backend.h"
#include "inference/plan.h"
#include "inference/program.h"

#include <memory>
#include <string>
#include <vector>

namespace senet::inference {

class CompiledModel {
 public:
  /// Copies, folds and packs the weights of `module` as they are now, for the device that they are on;
  /// afterwards the two share nothing. `dtype`, of weights and activations, is float32, bfloat16 or float16.
  /// `allow_tf32`: on CUDA, float32 convolutions may round their factors to TensorFloat-32 (10 bits).
  /// Throws ERR_SENET_DTYPE for another dtype, or one that this device does not compute with;
  /// ERR_SENET_COMPILE for a module that takes no image.
  static std::shared_ptr<const CompiledModel> compile(nn::Module& module, at::ScalarType dtype,
                                                      bool allow_tf32 = false);

  /// As above, of a traced forward of the class `name`.
  static std::shared_ptr<const CompiledModel> compile(const graph::Graph& graph, std::string name,
                                                      nn::InputSize input_size, at::ScalarType dtype,
                                                      bool allow_tf32);

  /// N x channels x H x W, float32, on the model's device, of any strides, to float32.
  /// Throws ERR_SENET_SHAPE, ERR_SENET_DTYPE or ERR_SENET_DEVICE. Any number of threads may call it at once.
  at::Tensor forward(const at::Tensor& input) const;
  /// As forward, from the host's memory to a result there, wherever the model is. Returns at once where a
  /// device computes alone, and computes here elsewhere.
  void answer(const HostBatch& batch, const Afterwards& afterwards) const;
  /// The errors of answer() that need no computation.
  void check_batch(const HostBatch& batch) const;
  /// Batches that answer() lets a device compute at once; 0: it computes on the calling thread.
  int lanes() const;

  /// As forward, and the seconds of each step of explain().
  at::Tensor profile(const at::Tensor& input, StepSeconds* seconds) const;

  /// The errors of forward that need no computation; reads sizes only.
  void check_input(const at::Tensor& input) const;

  /// The steps for images of one size. Throws ERR_SENET_SHAPE for a size that the model does not take.
  std::vector<StepInfo> explain(graph::Size2 size) const;

  const std::string name;  // of the module's class
  const at::ScalarType dtype;
  const at::Device device;
  const int64_t in_channels;
  const graph::Size2 usual_size;

  int64_t weight_bytes() const;
  const char* backend() const;
  /// Why no faster back end took it; empty if none is.
  const std::string backend_reason;

 private:
  CompiledModel(std::string name, const Target& target, const Plan& plan);
  void check_size(graph::Size2 size) const;
  at::Tensor answer_here(const HostBatch& batch) const;

  const bool only_usual_size_;
  const std::unique_ptr<const Program> program_;
};

}  // namespace senet::inference
