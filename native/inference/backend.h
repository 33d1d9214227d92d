// What compiled programs run on: one row a back end, tried in order. A folder of native/inference is a back
// end; what it has no kernel for, it leaves to LibTorch's operators inside its own program.
#pragma once

#include "inference/plan.h"
#include "inference/program.h"

#include <memory>
#include <string>

namespace senet::inference {

/// What a program is made for.
struct Target {
  at::Device device = at::kCPU;
  at::ScalarType dtype = at::kFloat;
  bool allow_tf32 = false;  // of float32 convolutions on CUDA
};

struct Backend {
  /// Whether it makes programs for this device and dtype, on this processor and in this environment.
  bool (*serves)(const Target& target);
  /// Why it does not serve a target of a device that it is for, or not as fast as the device could; empty if
  /// it does, or is for other devices.
  std::string (*why_not)(const Target& target);
  /// What programs for a target that it serves run on: Program::backend(). Throws as make().
  const char* (*kernels)(const Target& target);
  /// Packs what the plan's tensors hold; afterwards the program and the plan share nothing. Throws
  /// ERR_SENET_DTYPE if the device does not compute with the dtype.
  std::unique_ptr<const Program> (*make)(const Plan& plan, const Target& target);
};

/// The first that serves this target.
const Backend& find_backend(const Target& target);

/// What a compiled model of this target runs on, in int8 too: Program::backend(). Throws ERR_SENET_DTYPE
/// where none would be made.
const char* kernels_name(const Target& target);

/// Why none of those before it serve: "missing: libnvrtc.so.13". Empty if the first for this kind of device
/// does.
std::string why_no_faster_backend(const Target& target);

}  // namespace senet::inference
