// Between the first and the second of the stages from a plan to a program of our kernels (cpu/program.h), for
// int8: which units compute with bytes, what the bytes of each value mean, and where values change from
// float32 to bytes and back. Knows what the kernels of bytes can do, but nothing of where anything lies.
//
// Weights are symmetric int8 with a scale for each output channel, activations uint8 with a scale and a zero
// for each value. A scale of weights has so few bits that 127 times it is exact in float32: weights that were
// rounded to such multiples and are rounded once more stay what they are, so that a model that was saved and
// loaded computes the same bits.
#pragma once

#include "inference/cpu/fuse.h"

#include <map>
#include <string>
#include <vector>

namespace senet::inference {

/// What a program of bytes is made of, beside a plan.
struct QuantizationRecord {
  /// What the bytes of a value mean, by its name (value_names).
  std::map<std::string, Quantization> values;
  /// Paths of modules whose convolutions stay float32, with all below them.
  std::vector<std::string> keep;
  /// Whether the convolutions that read the image stay float32.
  bool keep_first = true;
  /// What is added to the bias of a convolution of bytes, by the name of the value that it gives: as much as
  /// the rounding of its weights takes from the mean of each output channel.
  std::map<std::string, std::vector<double>> corrections = {};
  /// Of each step of bytes, by its name: how far what it gives is off where what it takes is not (StepInfo).
  std::map<std::string, double> errors = {};
  /// The same of the whole program; less than 0 if nobody knows.
  double error = -1;
};

/// How each value is called that may be bytes: after the layer that gives it, with a number where there are
/// several of one name; "input". Those of other values are empty.
std::vector<std::string> value_names(const Fused& fused);

/// The units that compute with bytes. Throws ERR_SENET_ARG_RANGE for a name of `keep` that no convolution
/// has.
std::vector<bool> find_byte_units(const Plan& plan, const Fused& fused, const std::vector<std::string>& keep,
                                  bool keep_first);

/// The scale of each output channel of a convolution's weight: float64, on the CPU.
at::Tensor weight_scales(const at::Tensor& weight);
/// As int8, of [out, in / groups, height, width]; `scales` as above.
at::Tensor to_int8(const at::Tensor& weight, const at::Tensor& scales);

/// Rounds the weights of the nodes that the units compute to what int8 can say. `fused` is of `plan`.
void round_weights(const Fused& fused, const std::vector<bool>& byte_units, Plan& plan);
/// Adds the record's corrections to their biases. Throws ERR_SENET_CALIBRATION for one of another width.
void correct_biases(const QuantizationRecord& record, const Fused& fused, const std::vector<bool>& byte_units,
                    Plan& plan);
/// The means of a value's channels, and its last height and width.
struct ChannelMeans {
  std::vector<double> channels;
  graph::Size2 size{};
};

/// What rounding the weights of a convolution takes from the mean of each output channel (Nagel et al.,
/// "Data-Free Quantization", ICCV 2019, section 4.2), as if each channel of the input had its mean everywhere
/// but in the padding; in four digits.
std::vector<double> lost_means(const Node& convolution, const ChannelMeans& input);

/// Makes values bytes, and adds units that convert others. A value that the record lacks stays float32.
void quantize_values(const QuantizationRecord& record, std::vector<bool> byte_units, Fused& fused);

/// Whether a unit runs with the kernels of bytes, once its values are what they are to be.
bool is_of_bytes(const Fused& fused, const Unit& unit);

}  // namespace senet::inference
