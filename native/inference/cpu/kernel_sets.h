// The instruction sets that the kernels of compiled models are compiled for (kernels.h), by name: which there
// are, which of them this processor can run, and which is the best for a type of elements.
#pragma once

#include "inference/cpu/kernels.h"

#include <cstdint>
#include <string>
#include <string_view>

namespace senet::inference {

/// The kernels of one instruction set.
struct Kernels {
  const char* name;
  bool (*processor_has)();  // its instructions
  int32_t vector_channels;  // floats of a vector
  int32_t max_vectors;      // of a panel
  const ElementKernels* float32;
  const ElementKernels* bfloat16;  // null where the processor multiplies none
  const ElementKernels* bytes;     // activations uint8, weights int8; null where another set has better ones
  void (*multiply_add)(const ProductTask&) noexcept;

  const ElementKernels* of(Element element) const {
    return element == Element::kFloat ? float32 : element == Element::kBfloat16 ? bfloat16 : bytes;
  }
};

/// The set of this name, whether this processor can run it or not; null where there is no such name, or the
/// compiler had no such instructions.
const Kernels* find_kernels(std::string_view name);

/// The set of this name that this processor can run; null if there is none.
const Kernels* processor_kernels(std::string_view name);

/// The best for these elements that this processor can run; null if there is none: compiled models then use
/// LibTorch's operators.
const Kernels* best_kernels(Element element);

/// The names of all sets, the best first: "amx_int8, amx_bf16, ...".
std::string kernels_names();

}  // namespace senet::inference
