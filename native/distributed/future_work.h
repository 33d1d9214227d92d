// A c10d work that is its future, and nothing else: what c10d waits for in either way.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <torch/csrc/distributed/c10d/Work.hpp>

#include <chrono>
#include <exception>
#include <utility>
#include <vector>

namespace senet::distributed {

class FutureWork : public c10d::Work {
 public:
  using Future = c10::intrusive_ptr<c10::ivalue::Future>;

  /// A future that gives tensors.
  FutureWork()
      : future_(c10::make_intrusive<c10::ivalue::Future>(c10::ListType::create(c10::TensorType::get()))) {}

  bool isCompleted() override {
    return future_->completed();
  }
  bool isSuccess() const override {
    return future_->completed() && !future_->hasError();
  }
  std::exception_ptr exception() const override {
    return future_->hasError() ? future_->exception_ptr() : nullptr;
  }
  std::vector<at::Tensor> result() override {
    return future_->value().toTensorVector();
  }
  bool wait(std::chrono::milliseconds) override {
    future_->wait();
    if (future_->hasError()) {
      std::rethrow_exception(future_->exception_ptr());
    }
    return true;
  }
  void synchronize() override {}
  void abort() override {}
  Future getFuture() override {
    return future_;
  }

 private:
  const Future future_;
};

}  // namespace senet::distributed
