#include "nn/init.h"

#include "core/error.h"
#include "nn/layers.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>
#include <sys/mman.h>

#include <cmath>

namespace senet::nn {
namespace {

// Below this size a tensor is cleared faster than a mapping is made.
constexpr size_t kLazyZerosBytes = 64 * 1024;

at::Tensor lazy_zeros(at::IntArrayRef sizes) {
  size_t bytes = sizeof(float);
  for (const int64_t size : sizes) {
    bytes *= static_cast<size_t>(size);  // registry.cpp bounds every size
  }
  if (bytes < kLazyZerosBytes) {
    return at::zeros(sizes, at::kFloat);
  }
  // Anonymous pages are zero and are backed at first touch. calloc would do the same, but only while it maps
  // too.
  void* pages = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) {
    throw Error("ERR_SENET_OUT_OF_MEMORY",
                "cannot allocate " + std::to_string(bytes) + " bytes for a parameter");
  }
  return at::from_blob(
      pages, sizes, [bytes](void* data) { munmap(data, bytes); }, at::TensorOptions(at::kFloat));
}

double fan_of(const at::Tensor& weight, Fan fan) {
  int64_t size = weight.size(fan == Fan::kIn ? 1 : 0);
  for (int64_t dimension = 2; dimension < weight.dim(); ++dimension) {
    size *= weight.size(dimension);
  }
  return static_cast<double>(size);
}

// In the order of operations of torch.nn.init.kaiming_uniform_, so that the bound has the same bits.
void kaiming_uniform(const at::Tensor& weight, double a) {
  const double gain = std::sqrt(2.0 / (1.0 + std::pow(a, 2)));
  const double bound = std::sqrt(3.0) * (gain / std::sqrt(fan_of(weight, Fan::kIn)));
  weight.uniform_(-bound, bound);
}

}  // namespace

at::Tensor new_parameter(at::IntArrayRef sizes) {
  return SkipInitScope::active() ? lazy_zeros(sizes) : at::empty(sizes, at::kFloat);
}

void init_default_weight(const at::Tensor& weight) {
  if (SkipInitScope::active()) {
    return;
  }
  const at::NoGradGuard no_grad;
  kaiming_uniform(weight, std::sqrt(5.0));
}

void init_default_bias(const at::Tensor& bias, const at::Tensor& weight) {
  if (SkipInitScope::active()) {
    return;
  }
  const at::NoGradGuard no_grad;
  const double bound = 1.0 / std::sqrt(fan_of(weight, Fan::kIn));
  bias.uniform_(-bound, bound);
}

// Both loops of the originals also set BatchNorm to 1 and 0, which a new BatchNorm2d already is.

void init_kaiming_normal(const torch::nn::Module& root, Fan fan) {
  if (SkipInitScope::active()) {
    return;
  }
  const at::NoGradGuard no_grad;
  for (const auto& module : root.modules(/*include_self=*/false)) {
    if (const auto* conv = dynamic_cast<const Conv2d*>(module.get())) {
      conv->weight.normal_(0, std::sqrt(2.0) / std::sqrt(fan_of(conv->weight, fan)));
    }
  }
}

void init_kaiming_uniform(const torch::nn::Module& root) {
  if (SkipInitScope::active()) {
    return;
  }
  const at::NoGradGuard no_grad;
  for (const auto& module : root.modules(/*include_self=*/false)) {
    if (const auto* conv = dynamic_cast<const Conv2d*>(module.get())) {
      kaiming_uniform(conv->weight, 0);
      if (conv->bias.defined()) {
        conv->bias.zero_();
      }
    }
  }
}

void init_inception(const torch::nn::Module& root) {
  if (SkipInitScope::active()) {
    return;
  }
  const at::NoGradGuard no_grad;
  // PARITY: trunc_normal_(std, a = -2, b = 2) cuts at 20 standard deviations or more: it never rejects a
  // draw.
  for (const auto& module : root.modules(/*include_self=*/false)) {
    if (const auto* conv = dynamic_cast<const Conv2d*>(module.get())) {
      conv->weight.normal_(0, kInceptionStandardDeviation);
    } else if (const auto* linear = dynamic_cast<const Linear*>(module.get())) {
      linear->weight.normal_(0, linear->inception_standard_deviation);
    }
  }
}

}  // namespace senet::nn
