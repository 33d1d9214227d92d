#include "addon/tensor_use.h"

#include "core/error.h"

#include <torch/csrc/autograd/functions/accumulate_grad.h>

#include <mutex>
#include <unordered_map>
#include <unordered_set>

namespace senet::addon {
namespace {

std::mutex mutex;

using Counts = std::unordered_map<const at::TensorImpl*, int>;

// Leaked: jobs may end after statics are destroyed.
Counts& uses(TensorUse::Part part) {
  static auto* gradients = new Counts();
  static auto* numbers = new Counts();
  return part == TensorUse::Part::kGradient ? *gradients : *numbers;
}

}  // namespace

std::vector<at::Tensor> leaves_of(const at::Tensor& root) {
  if (root.grad_fn() == nullptr) {
    return {root};
  }
  std::vector<at::Tensor> leaves;
  std::unordered_set<const torch::autograd::Node*> seen{root.grad_fn().get()};
  std::vector<torch::autograd::Node*> waiting{root.grad_fn().get()};
  while (!waiting.empty()) {
    torch::autograd::Node* node = waiting.back();
    waiting.pop_back();
    if (auto* accumulation = dynamic_cast<torch::autograd::AccumulateGrad*>(node)) {
      leaves.push_back(accumulation->variable);
    }
    for (const torch::autograd::Edge& edge : node->next_edges()) {
      if (edge.function != nullptr && seen.insert(edge.function.get()).second) {
        waiting.push_back(edge.function.get());
      }
    }
  }
  return leaves;
}

TensorUse::TensorUse(std::vector<at::Tensor> tensors, Part part) : tensors_(std::move(tensors)), part_(part) {
  const std::lock_guard lock(mutex);
  for (const at::Tensor& tensor : tensors_) {
    ++uses(part_)[tensor.unsafeGetTensorImpl()];
  }
}

TensorUse::~TensorUse() {
  const std::lock_guard lock(mutex);
  Counts& counts = uses(part_);
  for (const at::Tensor& tensor : tensors_) {
    const auto found = counts.find(tensor.unsafeGetTensorImpl());
    if (--found->second == 0) {
      counts.erase(found);
    }
  }
}

void check_gradient_idle(const at::Tensor& tensor) {
  const std::lock_guard lock(mutex);
  const Counts& counts = uses(TensorUse::Part::kGradient);
  // A tensor that is no leaf has a gradient only if it was told to keep it; whose backward writes it is not
  // recorded.
  const bool busy = tensor.is_leaf() ? counts.count(tensor.unsafeGetTensorImpl()) != 0
                                     : tensor.retains_grad() && !counts.empty();
  if (busy) {
    throw Error(
        "ERR_SENET_BUSY",
        "a job that uses this gradient (backward, an optimiser's step, clipping) is queued or running; await "
        "it first");
  }
}

void check_gradients_idle(const std::vector<at::Tensor>& tensors) {
  for (const at::Tensor& tensor : tensors) {
    check_gradient_idle(tensor);
  }
}

void check_numbers_idle(const std::vector<at::Tensor>& tensors) {
  const std::lock_guard lock(mutex);
  const Counts& counts = uses(TensorUse::Part::kNumbers);
  for (const at::Tensor& tensor : tensors) {
    if (counts.count(tensor.unsafeGetTensorImpl()) != 0) {
      throw Error(
          "ERR_SENET_BUSY",
          "a job that uses a tensor of this module (a loss, an operator) is queued or running; await it "
          "first");
    }
  }
}

}  // namespace senet::addon
