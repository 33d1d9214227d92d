// The first of the three stages from a plan to a program of our kernels (cpu/program.h): which nodes are
// computed together. Gives a list of units, each the work of one step, in the order in which they run. Knows
// what the kernels can do in one pass, but not which kernels there are, where anything lies or what a weight
// is.
#pragma once

#include "inference/cpu/kernels.h"
#include "inference/plan.h"

#include <string>
#include <vector>

namespace senet::inference {

/// What units hand on to each other: the plan's values, with their ids, then those that no node has.
struct UnitValue {
  enum class Precision {
    kElement,  // the program's: float32 or bfloat16
    kFloat,    // float32
    kSums,     // float64, one pixel of partial sums for each thread
    kByte,     // uint8, of `quantization`
  };

  std::string name;  // "%3" of the plan, "mean of layer1.0.se"
  int64_t channels;
  ValueId size_of = kNoValue;  // of the plan, whose height and width it has; kNoValue: 1 x 1
  Precision precision = Precision::kElement;
  bool is_vector = false;          // N x channels, else N x channels x height x width
  Quantization quantization = {};  // of bytes, and of the sums of bytes
  ValueId same_as = kNoValue;      // of a value that was converted: which
};

/// Some of a convolution's output channels: where their weights come from and where they go.
struct Part {
  enum class Weights {
    kNode,     // of a convolution or a linear layer
    kSqueeze,  // of an excitation's first layer
    kExcite,   // of its second
  };

  const Node* node;  // of the plan, as all nodes here
  ValueId output;
  Activation activation = Activation::kNone;
  bool has_bias = true;  // else the unit behind it adds it
  Weights weights = Weights::kNode;
  const Node* through =
      nullptr;  // of kSqueeze: a 1 x 1 convolution between its input and the layer, folded in
};

/// The work of one step: what it computes, and what it takes over from other nodes while it has the values in
/// registers.
struct Unit {
  enum class Kind {
    kLoad,
    kConvolution,  // or a linear layer: parts of one input and one window
    kScale,        // of each channel; without an output only its sums are wanted
    kPool,
    kMean,         // sums to their mean
    kChannelGate,  // sigmoid of a convolution along the channels of a vector
    kConcatenate,  // nothing, where its parts can be written in place
    kOperator,     // what the kernels do not have
    kStore,
  };

  Kind kind;
  std::string name;             // path of the module, or of the first of several
  std::vector<ValueId> inputs;  // one, but of kConcatenate and kOperator
  ValueId output = kNoValue;    // of a convolution, its parts'
  const Node* node = nullptr;   // whose attributes it has; may be null
  std::vector<Part> parts = {};
  graph::Window window = {{1, 1}};  // of convolutions and pools
  ValueId of = kNoValue;            // of a mean: whose pixels were summed

  const Node* bias = nullptr;                 // of a pool: the convolution before it whose bias it adds
  ValueId scale = kNoValue;                   // per channel
  ValueId residual = kNoValue;                // is added
  Activation activation = Activation::kNone;  // of a convolution, each part's
  ValueId sums = kNoValue;                    // over the pixels, of the output
  bool stores = true;                         // else nobody reads the output
};

struct Fused {
  std::vector<Unit> units;
  std::vector<UnitValue> values;

  const UnitValue& value(ValueId id) const {
    return values[static_cast<size_t>(id)];
  }
};

/// The plan must outlive what this gives.
Fused fuse_plan(const Plan& plan);

/// The values that a unit reads, each as often as it does, and those that it writes.
std::vector<ValueId> reads_of(const Unit& unit);
std::vector<ValueId> writes_of(const Unit& unit);

/// What is computed in a unit's pass besides what its kind and name say: "scale layer1.0.se", "residual",
/// "relu".
std::vector<std::string> extras_of(const Fused& fused, const Unit& unit);

/// A line for each unit: "convolution conv1 3 x 3 stride 2 x 2 padding 1 x 1: %0 -> %1; relu".
std::string to_string(const Fused& fused);

}  // namespace senet::inference
