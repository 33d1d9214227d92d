// How operators run: whether they record gradients, and whether in mixed precision. Thread-local in LibTorch
// and not inherited, so it is captured at the call and set where the work runs.
#pragma once

#include <ATen/autocast_mode.h>
#include <ATen/core/grad_mode.h>

#include <optional>

namespace senet::addon {

struct Mode {
  bool gradients;
  /// Convolutions and matrix products compute in it, bfloat16 or float16, what needs the range in float32
  /// (torch.autocast); none: everything in the dtype of its tensors.
  std::optional<at::ScalarType> autocast;
};

/// Sets the mode of this thread for as long as it lives.
class ModeScope {
 public:
  explicit ModeScope(Mode mode) : gradients_(mode.gradients), autocast_(mode.autocast.has_value()) {
    if (autocast_) {
      for (const auto device : {at::kCPU, at::kCUDA}) {
        at::autocast::set_autocast_dtype(device, *mode.autocast);
        at::autocast::set_autocast_enabled(device, true);
      }
    }
  }
  ~ModeScope() {
    if (autocast_) {
      for (const auto device : {at::kCPU, at::kCUDA}) {
        at::autocast::set_autocast_enabled(device, false);
      }
      // The weights that were converted: the optimiser's next step changes what they were made from.
      at::autocast::clear_cache();
    }
  }
  ModeScope(const ModeScope&) = delete;
  ModeScope& operator=(const ModeScope&) = delete;

 private:
  c10::AutoGradMode gradients_;
  bool autocast_;
};

}  // namespace senet::addon
