// An inference-only copy of a module: `model.compile()`.
//
// A Plan (plan.h) says what it computes, a Program (program.h) how; which program, backend.h chooses.
#pragma once

#include "inference/backend.h"
#include "inference/plan.h"
#include "inference/program.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace senet::inference {

struct QuantizationRecord;
using Tensors = std::vector<std::pair<std::string, at::Tensor>>;

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

  /// What a Calibration made: `tensors` are the module's own, under their names.
  static std::shared_ptr<const CompiledModel> of_bytes(std::string name, const Plan& plan,
                                                       std::unique_ptr<const Program> program,
                                                       QuantizationRecord record, Tensors tensors);
  /// Throws ERR_SENET_DTYPE unless the plan's tensors are where int8 can be computed.
  static void check_processor(const Plan& plan);

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
  static void check_input(const at::Tensor& input, const std::string& name, at::Device device,
                          int64_t in_channels, nn::InputSize size);

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

  /// Of a model of bytes, else null: what the bytes mean, and the tensors of the module that it was made of.
  const QuantizationRecord* quantization() const {
    return quantization_.get();
  }
  const Tensors& tensors() const {
    return tensors_;
  }

 private:
  CompiledModel(std::string name, const Target& target, const Plan& plan,
                std::unique_ptr<const Program> program,
                std::shared_ptr<const QuantizationRecord> quantization = nullptr, Tensors tensors = {});
  static void check_size(graph::Size2 size, nn::InputSize expected);
  at::Tensor answer_here(const HostBatch& batch) const;

  const bool only_usual_size_;
  const std::unique_ptr<const Program> program_;
  const std::shared_ptr<const QuantizationRecord> quantization_;
  const Tensors tensors_;
};

}  // namespace senet::inference
