// What a compiled model computes, for runtimes of others: the nodes of its plan with the very tensors that a
// file is to hold, and, of int8, where values are rounded to bytes. Copies everything: the module may change
// afterwards. Knows no file format.
#pragma once

#include "inference/cpu/quantize.h"
#include "inference/plan.h"

#include <optional>
#include <string>
#include <vector>

namespace senet::inference {

struct PortableNode {
  /// On the CPU, contiguous: weights (of SE's layers too) in the dtype that was asked for, all else float32.
  /// A convolution's `affine` is folded, and so is its `batch_norm` unless it was to be kept. An affine has
  /// its scale as `weight`, undefined where it only shifts, and its shift as `bias`, or a `batch_norm`. A
  /// convolution of int8 has an int8 weight and an int32 bias, each with a scale for each output channel.
  Node node;
  std::vector<std::optional<Quantization>> rounds;  // of each input: the bytes that it is rounded to first
  at::Tensor weight_scale = {};                     // [out], float32; undefined but of int8
  at::Tensor bias_scale = {};
};

struct PortableValue {
  PlanValue shape;
  std::optional<Quantization> bytes = {};  // that it is rounded to, for whoever reads it
};

struct PortableModel {
  std::vector<PortableNode> nodes;
  std::vector<PortableValue> values;  // by ValueId
  ValueId input;
  ValueId output;
  nn::InputSize input_size;
};

struct PortableOptions {
  at::ScalarType weights = at::kFloat;  // or kHalf
  bool keep_batch_norm = false;         // not of int8
  /// Of int8: the weights of what computes with bytes are then int8.
  std::optional<QuantizationRecord> quantization = {};
};

/// Of a traced forward of one input and one output. Throws ERR_SENET_COMPILE as make_plan(), ERR_SENET_EXPORT
/// for a weight that float16 cannot hold, and of int8 ERR_SENET_ARG_RANGE and ERR_SENET_CALIBRATION as
/// Calibration.
PortableModel make_portable(const graph::Graph& graph, nn::InputSize input_size,
                            const PortableOptions& options);

}  // namespace senet::inference
