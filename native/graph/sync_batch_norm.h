// BatchNorm in training whose batch lies on several processes: torch.nn.SyncBatchNorm.
#pragma once

#include "graph/collective.h"
#include "graph/operations.h"

namespace senet::graph {

/// Normalises by the mean and variance of all processes' images, which may be more on some than on others,
/// and adds them to the running statistics. Blocks until every process has come, forward and backward. As in
/// PyTorch, the gradients of weight and bias are of this process's images alone: whoever averages the others'
/// averages them.
at::Tensor sync_batch_norm(const at::Tensor& input, const BatchNorm& norm, double momentum,
                           const std::shared_ptr<Collective>& collective);

}  // namespace senet::graph
