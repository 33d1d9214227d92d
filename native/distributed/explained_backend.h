// What c10d sees of a carrier (gloo, NCCL): every collective goes through the line.
#pragma once

#include "distributed/line.h"

#include <torch/csrc/distributed/c10d/Backend.hpp>

#include <memory>
#include <utility>
#include <vector>

namespace senet::distributed {

class ExplainedBackend : public c10d::Backend {
 public:
  ExplainedBackend(const c10::intrusive_ptr<c10d::Backend>& carrier, std::shared_ptr<Line> line)
      : Backend(carrier->getRank(), carrier->getSize()), carrier_(carrier), line_(std::move(line)) {}

  /// For what is announced.
  const c10::intrusive_ptr<c10d::Backend>& carrier() const {
    return carrier_;
  }
  const std::string getBackendName() const override {
    return carrier_->getBackendName();
  }

  c10::intrusive_ptr<c10d::Work> broadcast(std::vector<at::Tensor>& tensors,
                                           const c10d::BroadcastOptions& options) override {
    return line_->submit(
        [carrier = carrier_, tensors, options]() mutable { return carrier->broadcast(tensors, options); });
  }
  c10::intrusive_ptr<c10d::Work> allreduce(std::vector<at::Tensor>& tensors,
                                           const c10d::AllreduceOptions& options) override {
    return line_->submit(
        [carrier = carrier_, tensors, options]() mutable { return carrier->allreduce(tensors, options); });
  }
  c10::intrusive_ptr<c10d::Work> allgather(std::vector<std::vector<at::Tensor>>& outputs,
                                           std::vector<at::Tensor>& inputs,
                                           const c10d::AllgatherOptions& options) override {
    return line_->submit([carrier = carrier_, outputs, inputs, options]() mutable {
      return carrier->allgather(outputs, inputs, options);
    });
  }

 private:
  const c10::intrusive_ptr<c10d::Backend> carrier_;
  const std::shared_ptr<Line> line_;
};

}  // namespace senet::distributed
