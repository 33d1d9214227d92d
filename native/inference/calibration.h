// From a module to its compiled copy of int8: a snapshot of the weights, what the values of its forward look
// like on images, and the bytes that follow from that. Runs on processors alone.
#pragma once

#include "inference/compiled_model.h"
#include "inference/cpu/quantize.h"
#include "inference/histogram.h"

#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace senet::inference {

class ObservableProgram;

/// The numbers of a value that were seen, added up.
struct ChannelSums {
  std::vector<double> channels;
  int64_t pixels = 0;
  graph::Size2 size{};  // of the last one
};

/// How the range of a value's bytes follows from the numbers that were seen.
enum class RangeMethod {
  kMinMax,      // all of them
  kPercentile,  // but for the smallest and the largest
  kMse,         // the range of the least mean squared error
};

struct CalibrationOptions {
  RangeMethod method = RangeMethod::kMinMax;
  double percentile = 99.99;  // of kPercentile
  std::vector<std::string> keep = {};
  bool keep_first = true;
  // What the outputs may be off (QuantizationRecord::error): as many of the layers that are off the most stay
  // float32 as it takes. Infinity: none.
  double error_budget = std::numeric_limits<double>::infinity();
};

class Calibration {
 public:
  /// Copies the weights as they are now. Throws ERR_SENET_DTYPE on another device than the processor, and
  /// where that has no kernels; ERR_SENET_COMPILE as CompiledModel::compile.
  static std::shared_ptr<Calibration> begin(nn::Module& module);
  static std::shared_ptr<Calibration> begin(const graph::Graph& graph, std::string name,
                                            nn::InputSize input_size);
  ~Calibration();

  /// Runs the images in float32. Throws as CompiledModel::forward, and ERR_SENET_CALIBRATION for numbers that
  /// are not finite. One thread at a time: others wait.
  void observe(const at::Tensor& images);

  /// The compiled copy. Throws ERR_SENET_CALIBRATION if nothing was observed, ERR_SENET_ARG_RANGE for `keep`.
  std::shared_ptr<const CompiledModel> finish(const CalibrationOptions& options);
  /// As that, of what an earlier calibration gave.
  std::shared_ptr<const CompiledModel> restore(QuantizationRecord record);

  void check_input(const at::Tensor& input) const;

 private:
  Calibration(Plan plan, std::string name, Tensors tensors);
  struct Attempt {
    Plan plan;
    QuantizationRecord record;
    std::unique_ptr<const ObservableProgram> program;
  };
  /// A program of bytes with corrected biases, and how far it is off.
  Attempt attempt(QuantizationRecord record) const;
  void correct(QuantizationRecord& record) const;
  /// Of the first attempts of `from` with more and more of its layers kept, the one with the fewest that is
  /// within the budget.
  Attempt keep_within(double budget, Attempt from) const;
  void measure(const ObservableProgram& bytes, QuantizationRecord& record) const;
  Tensors rounded(const Plan& plan) const;
  Quantization choose(const Histogram& histogram, const CalibrationOptions& options) const;

  Plan plan_;
  const std::string name_;
  const Tensors tensors_;  // the module's, copied: what a saved model has beside the weights that are rounded
  Fused fused_;            // of plan_
  std::mutex mutex_;
  std::unique_ptr<const ObservableProgram> program_;  // null until it is needed
  std::vector<Histogram> histograms_;                 // of the values of fused_
  std::vector<ChannelSums> sums_;                     // as many
  int64_t images_ = 0;
  std::vector<at::Tensor> samples_;  // some of the images, for what is measured at the end
};

}  // namespace senet::inference
