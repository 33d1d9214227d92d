// Training steps of a residual block in two passes over memory instead of about twenty: BatchNorm with its
// ReLU, and BatchNorm with the Squeeze-and-Excitation, the residual sum and the ReLU that follow it. The same
// functions as the layers one after the other, forward and backward, for float32 channels-last activations on
// the CPU; everything else goes through the layers: evaluation, other dtypes and devices, autocast, and
// PyTorch's default layout, so that a ported script which never asked for channels-last rounds as PyTorch
// does.
//
// Why it is the same: BatchNorm is y = p x + q per channel once its statistics are known, and SE's squeeze of
// it is p mean(x) + q, so one pass that sums x and its square per image gives the statistics and the squeeze.
// Backward, all reductions that BatchNorm, SE and ReLU need are linear in sum(g) and sum(g x) per image,
// where g is the gradient where the ReLU let through: one pass sums them, a second writes the gradient of x.
#pragma once

#include "nn/se_layer.h"

namespace senet::nn {

/// Whether fused_batch_norm() takes this input of `bn`, in its present mode.
bool can_fuse_training(const at::Tensor& input, const BatchNorm2d& bn);

/// relu(bn(input)), or bn(input) without `relu`.
at::Tensor fused_batch_norm(const at::Tensor& input, BatchNorm2d& bn, bool relu);

/// Whether fused_recalibration() takes these, as they are now: an SELayer as made, a residual like the
/// input.
bool can_fuse_recalibration(const at::Tensor& input, const BatchNorm2d& bn, const SELayer& se,
                            const at::Tensor& residual);

/// relu(se(bn(input)) + residual).
at::Tensor fused_recalibration(const at::Tensor& input, BatchNorm2d& bn, SELayer& se,
                               const at::Tensor& residual);

}  // namespace senet::nn
