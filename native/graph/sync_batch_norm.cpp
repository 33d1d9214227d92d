// The arithmetic of torch/nn/modules/_functions.py and of the CUDA kernels that it calls (batch_norm_stats,
// batch_norm_gather_stats_with_counts, batch_norm_elemt, batch_norm_backward_reduce,
// batch_norm_backward_elemt), which LibTorch has for CUDA alone, written with operators for every device.
#include "graph/sync_batch_norm.h"

#include <ATen/OpMathType.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/var_mean.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

#include <array>
#include <utility>

namespace senet::graph {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

constexpr std::array<int64_t, 3> kAllButChannels{0, 2, 3};

at::Tensor sum_per_channel(const at::Tensor& tensor) {
  return tensor.sum(kAllButChannels);
}

at::Tensor over_images(const at::Tensor& channels) {
  return channels.view({1, -1, 1, 1});
}

// What backward needs that is no tensor.
struct BatchOfAll : torch::CustomClassHolder {
  BatchOfAll(double count, std::shared_ptr<Collective> collective)
      : count(count), collective(std::move(collective)) {}
  const double count;
  const std::shared_ptr<Collective> collective;
};

struct SyncBatchNorm : torch::autograd::Function<SyncBatchNorm> {
  static Variable forward(AutogradContext* context, const Variable& input, const Variable& weight,
                          const Variable& bias, const at::Tensor& running_mean, const at::Tensor& running_var,
                          double eps, double momentum, const std::shared_ptr<Collective>& collective) {
    // Half precision is summed in float32, as in the kernels.
    const auto dtype = at::toOpMathType(input.scalar_type());
    const at::Tensor x = input.to(dtype);
    const auto [own_var, own_mean] = at::var_mean(x, kAllButChannels, /*correction=*/0);
    const at::Tensor own_invstd = own_var.add(eps).rsqrt();
    const at::Tensor own_count = at::full({1}, x.numel() / x.size(1), own_mean.options());
    const auto all = collective->gather(at::cat({own_mean, own_invstd, own_count}));

    const int64_t channels = x.size(1);
    at::Tensor mean;
    at::Tensor squares;  // sum of squared distances from the mean
    double count = 0;
    for (const at::Tensor& one : all) {
      const at::Tensor other_mean = one.slice(0, 0, channels);
      const at::Tensor other_var = one.slice(0, channels, 2 * channels).reciprocal().square().sub(eps);
      const double other = one.select(0, 2 * channels).item<double>();
      if (!mean.defined()) {
        mean = other_mean;
        squares = other_var * other;
        count = other;
        continue;
      }
      const double both = count + other;
      squares = squares + other_var * other + (mean - other_mean).square() * (count * other / both);
      mean = mean * (count / both) + other_mean * (other / both);
      count = both;
    }
    const at::Tensor invstd = (squares / count).add(eps).rsqrt();
    {
      at::Tensor kept_mean = running_mean;
      at::Tensor kept_var = running_var;
      kept_mean.mul_(1 - momentum).add_(mean.to(kept_mean.scalar_type()), momentum);
      kept_var.mul_(1 - momentum).add_((squares / (count - 1)).to(kept_var.scalar_type()), momentum);
    }
    context->save_for_backward({input, weight, mean, invstd});
    context->saved_data["kept"] =
        c10::IValue::make_capsule(c10::make_intrusive<BatchOfAll>(count, collective));
    const at::Tensor scale = weight.to(dtype) * invstd;
    return ((x - over_images(mean)) * over_images(scale) + over_images(bias.to(dtype)))
        .to(input.scalar_type());
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor& weight = saved[1];
    const at::Tensor& mean = saved[2];
    const at::Tensor& invstd = saved[3];
    const at::Tensor dy = gradients[0].to(mean.scalar_type());
    const at::Tensor distance = saved[0].to(mean.scalar_type()) - over_images(mean);
    const at::Tensor own_dy = sum_per_channel(dy);
    const at::Tensor own_products = sum_per_channel(dy * distance);
    at::Tensor grad_input;
    if (context->needs_input_grad(0)) {
      const auto kept =
          c10::static_intrusive_pointer_cast<BatchOfAll>(context->saved_data["kept"].toCapsule());
      const at::Tensor sums = kept->collective->sum(at::cat({own_dy, own_products})) / kept->count;
      const int64_t channels = mean.size(0);
      const at::Tensor mean_dy = sums.slice(0, 0, channels);
      const at::Tensor factor = sums.slice(0, channels) * invstd * invstd;
      grad_input = ((dy - over_images(mean_dy) - distance * over_images(factor)) *
                    over_images(weight.to(mean.scalar_type()) * invstd))
                       .to(saved[0].scalar_type());
    }
    return {grad_input,
            (own_products * invstd).to(weight.scalar_type()),
            own_dy.to(weight.scalar_type()),
            {},
            {},
            {},
            {},
            {}};
  }
};

}  // namespace

at::Tensor sync_batch_norm(const at::Tensor& input, const BatchNorm& norm, double momentum,
                           const std::shared_ptr<Collective>& collective) {
  return SyncBatchNorm::apply(input, norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.eps,
                              momentum, collective);
}

}  // namespace senet::graph
