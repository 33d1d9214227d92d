// Collectives of one GPU per process, on NCCL's C interface: what c10d's ProcessGroupNCCL does for the
// reducer of gradients and for the functions of this library. It never ran on two GPUs: what is known of it
// comes from tests with a stand-in of NCCL and of the device.
//
// A collective runs on a stream of its own beside LibTorch's, from when what it needs is computed; a thread
// asks whether it is done, and completes its work then. So a work that is complete needs no device to be
// waited for, and a rank that has gone is found out although NCCL does not say it.
#pragma once

#include "distributed/future_work.h"
#include "distributed/nccl.h"
#include "runtime/cuda_driver.h"

#include <ATen/core/Tensor.h>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace senet::distributed {

class NcclBackend : public c10d::Backend {
 public:
  struct Setup {
    const Nccl& nccl;
    const runtime::cuda::Driver& driver;
    c10::intrusive_ptr<c10d::Store> store;  // where rank 0 leaves what the others need to find it
    int rank;
    int size;
    std::chrono::milliseconds timeout;  // for each collective, and for connecting
    /// Told true when a collective takes long, false when none does any more: whether all ranks are alive
    /// should be looked after meanwhile. On any thread.
    std::function<void(bool)> look_after;
  };

  explicit NcclBackend(Setup setup);
  ~NcclBackend() override;

  const std::string getBackendName() const override {
    return "nccl";
  }

  // One dense tensor each, of the device that the first collective was of. Throw ERR_SENET_DTYPE (what NCCL
  // does not reduce) and ERR_SENET_DISTRIBUTED (no such tensor); whatever goes wrong later fails the work,
  // and all that follow: the others may have begun what this rank has not. The first blocks until all ranks
  // have called one.
  c10::intrusive_ptr<c10d::Work> broadcast(std::vector<at::Tensor>& tensors,
                                           const c10d::BroadcastOptions& options) override;
  c10::intrusive_ptr<c10d::Work> allreduce(std::vector<at::Tensor>& tensors,
                                           const c10d::AllreduceOptions& options) override;
  c10::intrusive_ptr<c10d::Work> allgather(std::vector<std::vector<at::Tensor>>& outputs,
                                           std::vector<at::Tensor>& inputs,
                                           const c10d::AllgatherOptions& options) override;

  /// How a communicator ends: whatever runs is aborted; or, if nothing runs, it is taken leave of properly;
  /// or nothing at all is done about it.
  enum class Ending { kAbort, kOrderly, kLeave };

  /// Whatever waits for another process fails with `why`, and so does what begins later. Does not block; the
  /// first ending counts.
  void close(const std::string& why, Ending ending);
  /// Waits until that is done.
  void join();

 private:
  using Clock = std::chrono::steady_clock;
  using Launch = std::function<int(Communicator, runtime::cuda::Stream)>;
  struct Pending {
    runtime::cuda::Event event;
    std::vector<at::Tensor> kept;
    std::function<void()> finish;  // before it is complete
    std::vector<at::Tensor> results;
    FutureWork::Future future;
    Clock::time_point since;
  };

  c10::intrusive_ptr<c10d::Work> enqueue(std::vector<at::Tensor> kept, std::vector<at::Tensor> results,
                                         const Launch& launch, std::function<void()> finish = nullptr);
  void connect(int device);
  NcclId agree_on_id();
  void settle(Communicator communicator, int status, const char* what);
  void check_open();
  std::string text_of(Communicator communicator, int status) const;
  void run();
  bool serve(const Pending& first);
  void check_progress(const Pending& first);
  void fail_all(const std::exception_ptr& failure, Ending ending = Ending::kAbort);
  void release();
  bool take_leave();

  const Setup setup_;

  // Around the communicator and the order of what is launched.
  std::mutex launch_mutex_;
  Communicator communicator_ = nullptr;
  runtime::cuda::Stream stream_ = nullptr;
  int device_ = -1;

  std::atomic<bool> is_closed_ = false;

  std::mutex mutex_;  // around the rest
  std::condition_variable wake_;
  std::deque<Pending> pending_;
  std::exception_ptr failure_;  // of everything from now on
  Ending ending_ = Ending::kAbort;
  Clock::time_point checked_{};
  bool looks_after_ = false;
  std::thread thread_;
};

}  // namespace senet::distributed
