// As torch/nn/parallel/distributed.py: which buckets, in which order what is called.
#ifdef SENET_HAS_C10D

#include "distributed/data_parallel.h"

#include "core/error.h"
#include "distributed/c10d_group.h"
#include "distributed/reducer.h"

#include <torch/csrc/distributed/c10d/comm.hpp>

#include <algorithm>
#include <limits>
#include <utility>

namespace senet::distributed {
namespace {

// `broadcast_bucket_size`.
constexpr size_t kBroadcastBytes = size_t{250} * 1024 * 1024;

class C10dDataParallel : public DataParallel {
 public:
  C10dDataParallel(const std::shared_ptr<ProcessGroup>& group, const DataParallelOptions& options)
      : owner_(group), group_(c10d_group(*group)) {
    verify(options);
    broadcast(options.state);
    std::vector<size_t> limits{static_cast<size_t>(std::numeric_limits<int64_t>::max())};
    if (options.find_unused_parameters) {
      limits = {static_cast<size_t>(std::min<int64_t>(options.bucket_bytes, c10d::kDefaultFirstBucketBytes)),
                static_cast<size_t>(options.bucket_bytes)};
    }
    Buckets buckets = std::get<0>(c10d::compute_bucket_assignment_by_size(
        options.parameters, limits, std::vector<bool>(options.parameters.size(), false)));
    // Backward has the gradients of the last layers first.
    std::reverse(buckets.begin(), buckets.end());
    reducer_ = make_reducer(options, std::move(buckets), group_);
  }

  void begin_forward() override {
    reducer_->prepare_for_forward();
    reducer_->rebuild_buckets();
  }

  void broadcast(const std::vector<at::Tensor>& buffers) override {
    if (buffers.empty()) {
      return;
    }
    const at::NoGradGuard no_grad;
    std::vector<at::Tensor> plain;
    for (const at::Tensor& buffer : buffers) {
      plain.push_back(buffer.detach());
    }
    c10d::broadcast_coalesced(group_, plain, kBroadcastBytes, /*rank=*/0);
  }

  void end_forward(const std::vector<at::Tensor>& outputs) override {
    reducer_->prepare_for_backward(outputs);
  }

  void detach() override {
    reducer_->remove_autograd_hooks();
  }

 private:
  void verify(const DataParallelOptions& options) {
    try {
      c10d::verify_params_across_processes(group_, options.parameters, std::nullopt);
    } catch (const c10::Error& error) {
      const std::string text = error.what_without_backtrace();
      throw Error("ERR_SENET_DISTRIBUTED",
                  "the processes have different networks: " + text.substr(0, text.find('\n')));
    }
  }

  const std::shared_ptr<ProcessGroup> owner_;
  const Group group_;
  std::unique_ptr<c10d::Reducer> reducer_;
};

}  // namespace

std::shared_ptr<DataParallel> make_data_parallel(const std::shared_ptr<ProcessGroup>& group,
                                                 DataParallelOptions options) {
  return std::make_shared<C10dDataParallel>(group, options);
}

}  // namespace senet::distributed

#endif
