// Training steps of a residual block in two passes over memory instead of about twenty: BatchNorm with its
// ReLU, and BatchNorm with the Squeeze-and-Excitation (or ECA), the residual sum and the ReLU that follow it.
// The same functions as the layers one after the other, forward and backward, for float32 channels-last
// activations on the CPU.
//
// Which forwards are rewritten, nn/run.h says: all with float32 images on the CPU that have a part in
// training mode, whatever their layout. A node that finds an input of another kind when it is computed, such
// as PyTorch's default layout, computes the layers that it stands for, one after the other (operations.cpp):
// a ported script which never asked for channels-last rounds as PyTorch does. Evaluation, other dtypes and
// devices, and autocast are not rewritten, and a BatchNorm by itself asks the same when it is computed.
//
// Why it is the same: BatchNorm is y = p x + q per channel once its statistics are known, and SE's squeeze of
// it is p mean(x) + q, so one pass that sums x and its square per image gives the statistics and the squeeze.
// Backward, all reductions that BatchNorm, SE and ReLU need are linear in sum(g) and sum(g x) per image,
// where g is the gradient where the ReLU let through: one pass sums them, a second writes the gradient of x.
#pragma once

#include "graph/graph.h"
#include "graph/operations.h"

namespace senet::graph {

/// Rewrites a traced forward for a training step: BatchNorm with the ReLU that follows it, and BatchNorm,
/// Squeeze-and-Excitation, residual sum and ReLU become one node each. What stands there decides; whether
/// their input is of the kind above, the node sees when it is computed.
void fuse_training(Graph& graph);

/// Whether the fused functions take this input of a BatchNorm.
bool can_fuse_batch_norm(const at::Tensor& input, const BatchNorm& norm);

/// relu(norm(input)), or norm(input) without `relu`.
at::Tensor fused_batch_norm(const at::Tensor& input, const BatchNorm& norm, bool relu);

/// Whether fused_recalibration() takes these: a residual like the input.
bool can_fuse_recalibration(const at::Tensor& input, const Recalibration& whole, const at::Tensor& residual);

at::Tensor fused_recalibration(const at::Tensor& input, const Recalibration& whole,
                               const at::Tensor& residual);

}  // namespace senet::graph
