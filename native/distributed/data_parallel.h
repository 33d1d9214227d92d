// Gradients of one network that several processes train, each on its own images: c10d::Reducer, the engine of
// PyTorch's DistributedDataParallel. It puts the gradients into buckets in the order in which backward has
// them ready, averages each over the group as soon as it is full, and lets backward go on meanwhile.
#pragma once

#include "distributed/process_group.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace senet::distributed {

struct DataParallelOptions {
  std::vector<std::string> names;      // of the parameters
  std::vector<at::Tensor> parameters;  // those that require gradients
  std::vector<at::Tensor> state;       // all parameters and buffers, which begin as rank 0 has them
  int64_t bucket_bytes;
  bool find_unused_parameters;
};

class DataParallel {
 public:
  virtual ~DataParallel() = default;
  /// Before a forward that records gradients; blocks once, after the first backward, while the buckets are
  /// laid out anew.
  virtual void begin_forward() = 0;
  /// Blocks until the tensors are as rank 0 has them.
  virtual void broadcast(const std::vector<at::Tensor>& buffers) = 0;
  /// After it: the next backward averages the gradients. `outputs`: of the forward, to find which parameters
  /// it used where that was asked for.
  virtual void end_forward(const std::vector<at::Tensor>& outputs) = 0;
  /// Backward is the network's own again.
  virtual void detach() = 0;
};

/// Blocks until the parameters were compared with the other processes' and the state is as rank 0 has it.
/// Throws ERR_SENET_DISTRIBUTED if they differ in number or shape.
std::shared_ptr<DataParallel> make_data_parallel(const std::shared_ptr<ProcessGroup>& group,
                                                 DataParallelOptions options);

}  // namespace senet::distributed
