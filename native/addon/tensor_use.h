// Which tensors queued and running jobs use, so that JavaScript does not touch their gradients meanwhile:
// backward writes them on another thread; nor put other memory in the place of theirs, which would free what
// a job reads. Process-wide; a tensor belongs to one environment, so none sees another's jobs.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace senet::addon {

/// The leaf tensors whose gradients `root.backward()` adds to.
std::vector<at::Tensor> leaves_of(const at::Tensor& root);

/// Keeps the tensors and marks a part of them as in use for as long as it lives, which is as long as a job's
/// work.
class TensorUse {
 public:
  enum class Part { kGradient, kNumbers };

  explicit TensorUse(std::vector<at::Tensor> tensors, Part part = Part::kGradient);
  ~TensorUse();
  TensorUse(const TensorUse&) = delete;
  TensorUse& operator=(const TensorUse&) = delete;

  const std::vector<at::Tensor>& tensors() const {
    return tensors_;
  }

 private:
  std::vector<at::Tensor> tensors_;
  Part part_;
};

/// Throws ERR_SENET_BUSY if a job that uses the tensor's gradient is queued or running.
void check_gradient_idle(const at::Tensor& tensor);
void check_gradients_idle(const std::vector<at::Tensor>& tensors);
/// The same of the tensors' numbers, as an operator reads them.
void check_numbers_idle(const std::vector<at::Tensor>& tensors);

}  // namespace senet::addon
