// The processes of a group and what they do together: LibTorch's c10d (TCPStore, ProcessGroupGloo) and NCCL,
// under one interface that names no type of it, so that a LibTorch without c10d builds too (absent.cpp).
//
// Who fails says so to the others through the store, and who is gone is missed there (watch.h): whatever
// waits for a peer ends with an error that names the rank.
#pragma once

#include "graph/collective.h"

#include <ATen/core/Tensor.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace senet::distributed {

/// What carries the tensors: gloo over TCP, or NCCL those of GPUs (one for each process) and gloo the
/// processor's.
enum class Carrier { kGloo, kNccl };

/// Where the processes meet, and which of them this one is.
struct Rendezvous {
  Carrier carrier;
  std::string host;
  uint16_t port;
  int rank;
  int size;
  /// Whether rank 0 has the store that all connect to; else somebody has it who is no rank (torchrun's
  /// agent).
  bool rank_0_hosts_store;
  /// For connecting, and for each collective.
  std::chrono::milliseconds timeout;
};

enum class Reduction { kSum, kAverage, kProduct, kMinimum, kMaximum };
/// As JavaScript names them, in this order.
inline constexpr const char* kReductionNames[] = {"sum", "avg", "product", "min", "max"};

/// Set to have connect() end early.
using Stop = std::shared_ptr<const std::atomic<bool>>;

/// Called once, on any thread, with what went wrong or null.
using Done = std::function<void(std::exception_ptr)>;

/// Of LibTorch's c10d. Collectives begin in the order of their calls, which must be that of every other
/// process; none of them blocks but those of graph::Collective.
class ProcessGroup : public graph::Collective {
 public:
  virtual int rank() const = 0;

  /// In place. Throws ERR_SENET_DTYPE for a dtype that is not reduced.
  virtual void all_reduce(const at::Tensor& tensor, Reduction reduction, Done done) = 0;
  /// In place: the values of rank `root`, of tensors of one dtype.
  virtual void broadcast(const std::vector<at::Tensor>& tensors, int root, Done done) = 0;
  virtual void all_gather(const at::Tensor& tensor,
                          std::function<void(std::vector<at::Tensor>, std::exception_ptr)> done) = 0;
  virtual void barrier(Done done) = 0;

  /// Tells the others that this process has failed: their collectives end with this reason ("ERR_SENET_FILE:
  /// ..."). Blocks for at most two seconds.
  virtual void fail(const std::string& reason) = 0;
  /// Ends the connections: whatever waits here fails with `code`, and so does what is called later. Harmless
  /// when repeated.
  virtual void close(const char* code, const std::string& why) = 0;
};

/// Why this cannot carry tensors here: no c10d, no CUDA, no NCCL; empty if it can.
std::string absence(Carrier carrier);

/// Blocks until all processes are there. Throws ERR_SENET_DISTRIBUTED (naming those that did not come), or
/// ERR_SENET_ABORTED once `stopped` is set.
std::shared_ptr<ProcessGroup> connect(const Rendezvous& rendezvous, const Stop& stopped);

}  // namespace senet::distributed
