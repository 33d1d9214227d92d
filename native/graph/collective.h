// The processes that train a network together, as far as a forward has to know of them: statistics of a batch
// that lies on several of them. distributed/ implements it.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

namespace senet::graph {

/// Every process calls the same functions in the same order, with tensors of one shape. They block the
/// calling thread until all have; throw ERR_SENET_RANK_LOST or ERR_SENET_DISTRIBUTED where one of them does
/// not come.
class Collective {
 public:
  virtual ~Collective() = default;
  virtual int size() const = 0;
  /// The tensor of each process, in the order of their ranks.
  virtual std::vector<at::Tensor> gather(const at::Tensor& tensor) = 0;
  /// The sum over all processes.
  virtual at::Tensor sum(const at::Tensor& tensor) = 0;
};

/// Of this process; null outside of a group.
std::shared_ptr<Collective> collective();
void set_collective(std::shared_ptr<Collective> collective);

}  // namespace senet::graph
