#include "graph/fused_training.h"

#include "graph/training_kernels.h"

#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/conv1d.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

namespace senet::graph {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

// As the kernels read memory: channels last, and no negation that is only noted.
at::Tensor plain(const at::Tensor& tensor) {
  return tensor.resolve_neg().contiguous(at::MemoryFormat::ChannelsLast);
}

struct Extent {
  int64_t images;
  int64_t channels;
  int64_t pixels;  // of an image

  explicit Extent(const at::Tensor& x)
      : images(x.size(0)), channels(x.size(1)), pixels(x.size(2) * x.size(3)) {}
  int64_t image() const {
    return channels * pixels;
  }
  int64_t per_channel() const {
    return images * pixels;
  }
};

template <class Body>
void for_each_image(const Extent& extent, const Body& body) {
  at::parallel_for(0, extent.images, 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      body(n);
    }
  });
}

// Of one BatchNorm in training mode.
struct Statistics {
  std::vector<double> image_sums;  // images x channels: of x - shift
  std::vector<float> shift;        // close to the mean, so that squares of what is left lose nothing
  std::vector<double> mean;
  std::vector<double> inverse_deviation;
};

// Of some pixels, evenly spread; 0 where it is not finite.
std::vector<float> sample_mean(const float* data, int64_t pixels, size_t channels) {
  const int64_t samples = std::min<int64_t>(pixels, 32);
  std::vector<float> mean(channels, 0.0f);
  for (int64_t i = 0; i < samples; ++i) {
    const float* const pixel = data + i * pixels / samples * static_cast<int64_t>(channels);
    for (size_t c = 0; c < channels; ++c) {
      mean[c] += pixel[c] / static_cast<float>(samples);
    }
  }
  for (float& value : mean) {
    value = std::isfinite(value) ? value : 0.0f;
  }
  return mean;
}

std::shared_ptr<Statistics> measure(const at::Tensor& x, double eps, std::vector<double>* variance) {
  const Extent extent(x);
  const auto channels = static_cast<size_t>(extent.channels);
  auto result = std::make_shared<Statistics>();
  const float* data = x.const_data_ptr<float>();
  result->shift = sample_mean(data, extent.images * extent.pixels, channels);
  result->image_sums.assign(static_cast<size_t>(extent.images) * channels, 0.0);
  std::vector<double> squares(result->image_sums.size(), 0.0);
  for_each_image(extent, [&](int64_t n) {
    sum_image(data + n * extent.image(), extent.pixels, extent.channels, result->shift.data(),
              result->image_sums.data() + n * extent.channels, squares.data() + n * extent.channels);
  });
  const auto count = static_cast<double>(extent.per_channel());
  for (size_t c = 0; c < channels; ++c) {
    double sum = 0;
    double square = 0;
    for (size_t n = 0; n < static_cast<size_t>(extent.images); ++n) {
      sum += result->image_sums[n * channels + c];
      square += squares[n * channels + c];
    }
    const double offset = sum / count;
    result->mean.push_back(offset + result->shift[c]);
    variance->push_back(std::max(square / count - offset * offset, 0.0));
    result->inverse_deviation.push_back(1.0 / std::sqrt(variance->back() + eps));
    if (std::isnan(square)) {
      variance->back() = square;  // max() would have hidden it
      result->inverse_deviation.back() = square;
    }
  }
  return result;
}

// As at::batch_norm does with kUsualMomentum.
void update_running_statistics(const BatchNorm& bn, const Statistics& statistics,
                               const std::vector<double>& variance, double count) {
  const at::NoGradGuard no_grad;
  bn.num_batches_tracked.add_(1);
  auto* mean = bn.running_mean.mutable_data_ptr<float>();
  auto* var = bn.running_var.mutable_data_ptr<float>();
  for (size_t c = 0; c < variance.size(); ++c) {
    mean[c] = static_cast<float>(kUsualMomentum * statistics.mean[c] + (1 - kUsualMomentum) * mean[c]);
    var[c] = static_cast<float>(kUsualMomentum * variance[c] * count / (count - 1) +
                                (1 - kUsualMomentum) * var[c]);
  }
}

at::Tensor as_matrix(std::vector<float>& values, int64_t rows) {
  return at::from_blob(values.data(), {rows, static_cast<int64_t>(values.size()) / rows}, at::kFloat);
}

// What both functions keep for their backward beside tensors.
struct Kept : torch::CustomClassHolder {
  std::shared_ptr<Statistics> statistics;
};

// BatchNorm, with the ReLU that follows it if `relu`.
class FusedBatchNorm : public torch::autograd::Function<FusedBatchNorm> {
 public:
  static Variable forward(AutogradContext* context, const Variable& x, const Variable& weight,
                          const Variable& bias, c10::intrusive_ptr<Kept> kept, bool relu) {
    const Extent extent(x);
    const Statistics& statistics = *kept->statistics;
    const auto channels = static_cast<size_t>(extent.channels);
    std::vector<float> scale(channels);
    std::vector<float> shift(channels);
    const float* w = weight.const_data_ptr<float>();
    const float* b = bias.const_data_ptr<float>();
    for (size_t c = 0; c < channels; ++c) {
      const double factor = w[c] * statistics.inverse_deviation[c];
      scale[c] = static_cast<float>(factor);
      shift[c] = static_cast<float>(b[c] - statistics.mean[c] * factor);
    }
    at::Tensor y = at::empty_like(x);
    const float* from = x.const_data_ptr<float>();
    float* to = y.mutable_data_ptr<float>();
    for_each_image(extent, [&](int64_t n) {
      apply_image(from + n * extent.image(), extent.pixels, extent.channels, scale.data(), shift.data(),
                  nullptr, relu, to + n * extent.image());
    });
    context->save_for_backward({x, weight, relu ? y : Variable()});
    context->saved_data["kept"] = c10::IValue::make_capsule(std::move(kept));
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor& x = saved[0];
    const at::Tensor& y = saved[2];
    const Extent extent(x);
    const auto kept = c10::static_intrusive_pointer_cast<Kept>(context->saved_data["kept"].toCapsule());
    const Statistics& statistics = *kept->statistics;
    const at::Tensor dy = plain(gradients[0]);
    const auto channels = static_cast<size_t>(extent.channels);
    std::vector<double> sums(static_cast<size_t>(extent.images) * channels, 0.0);
    std::vector<double> products(sums.size(), 0.0);
    const float* dy_data = dy.const_data_ptr<float>();
    const float* x_data = x.const_data_ptr<float>();
    const float* y_data = y.defined() ? y.const_data_ptr<float>() : nullptr;
    const auto y_image = [&](int64_t n) { return y_data == nullptr ? nullptr : y_data + n * extent.image(); };
    for_each_image(extent, [&](int64_t n) {
      sum_gradients(dy_data + n * extent.image(), y_image(n), x_data + n * extent.image(), extent.pixels,
                    extent.channels, statistics.shift.data(), sums.data() + n * extent.channels,
                    products.data() + n * extent.channels);
    });
    at::Tensor dweight = at::empty_like(saved[1]);
    at::Tensor dbias = at::empty_like(saved[1]);
    std::vector<float> a(channels);
    std::vector<float> b(channels);
    std::vector<float> d(channels);
    std::vector<float> center(channels);
    const auto count = static_cast<double>(extent.per_channel());
    const float* w = saved[1].const_data_ptr<float>();
    for (size_t c = 0; c < channels; ++c) {
      double sum = 0;
      double product = 0;
      for (size_t n = 0; n < static_cast<size_t>(extent.images); ++n) {
        sum += sums[n * channels + c];
        product += products[n * channels + c];
      }
      const double inverse = statistics.inverse_deviation[c];
      const double centred = product - (statistics.mean[c] - statistics.shift[c]) * sum;  // of g (x - mean)
      dweight.mutable_data_ptr<float>()[c] = static_cast<float>(centred * inverse);
      dbias.mutable_data_ptr<float>()[c] = static_cast<float>(sum);
      a[c] = static_cast<float>(w[c] * inverse);
      b[c] = static_cast<float>(-w[c] * inverse * inverse * inverse * centred / count);
      d[c] = static_cast<float>(-w[c] * inverse * sum / count);
      center[c] = static_cast<float>(statistics.mean[c]);
    }
    at::Tensor dx = at::empty_like(x);
    float* dx_data = dx.mutable_data_ptr<float>();
    for_each_image(extent, [&](int64_t n) {
      apply_gradients(dy_data + n * extent.image(), y_image(n), x_data + n * extent.image(), extent.pixels,
                      extent.channels, a.data(), b.data(), d.data(), center.data(),
                      dx_data + n * extent.image(), nullptr);
    });
    return {dx, dweight, dbias, Variable(), Variable()};
  }
};

// The factors of the channels, N x C, from their means, N x C: sigmoid(excite(relu(squeeze(means)))), whose
// biases may be undefined, or sigmoid(convolve(means)) along the channels.
struct Gate {
  at::Tensor squeeze;
  at::Tensor squeeze_bias;
  at::Tensor excite;
  at::Tensor excite_bias;
  at::Tensor channel_kernel;  // [k], in place of the four

  struct Gradients {
    at::Tensor means;
    at::Tensor squeeze;
    at::Tensor squeeze_bias;
    at::Tensor excite;
    at::Tensor excite_bias;
    at::Tensor channel_kernel;
  };

  // What the ReLU lets through; undefined with a kernel.
  at::Tensor hidden(const at::Tensor& means) const {
    return channel_kernel.defined() ? at::Tensor() : multiply(means, squeeze, squeeze_bias).relu_();
  }

  at::Tensor factors(const at::Tensor& means, const at::Tensor& hidden) const {
    if (channel_kernel.defined()) {
      return at::conv1d(means.unsqueeze(1), kernel(), {}, 1, padding()).squeeze(1).sigmoid_();
    }
    return multiply(hidden, excite, excite_bias).sigmoid_();
  }

  /// @param excited the gradient of what the sigmoid is given
  Gradients backward(const at::Tensor& excited, const at::Tensor& means, const at::Tensor& hidden) const {
    Gradients d;
    if (channel_kernel.defined()) {
      at::Tensor dmeans;
      at::Tensor dkernel;
      std::tie(dmeans, dkernel, std::ignore) =
          at::convolution_backward(excited.unsqueeze(1), means.unsqueeze(1), kernel(), c10::nullopt, {1},
                                   {padding()}, {1}, false, {0}, 1, {true, true, false});
      d.means = dmeans.squeeze(1).contiguous();
      d.channel_kernel = dkernel.flatten();
      return d;
    }
    d.excite = at::mm(excited.t(), hidden);
    if (excite_bias.defined()) {
      d.excite_bias = excited.sum(0);
    }
    const at::Tensor dhidden = at::mm(excited, excite).mul_(hidden > 0);
    d.squeeze = at::mm(dhidden.t(), means);
    if (squeeze_bias.defined()) {
      d.squeeze_bias = dhidden.sum(0);
    }
    d.means = at::mm(dhidden, squeeze);
    return d;
  }

 private:
  static at::Tensor multiply(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
    return bias.defined() ? at::addmm(bias, x, weight.t()) : at::mm(x, weight.t());
  }
  at::Tensor kernel() const {
    return channel_kernel.view({1, 1, -1});
  }
  int64_t padding() const {
    return channel_kernel.numel() / 2;
  }
};

// What apply() takes where there may be none: an undefined tensor it does not.
using Optional = std::optional<Variable>;

Optional optional(const at::Tensor& tensor) {
  return tensor.defined() ? Optional(tensor) : std::nullopt;
}

class FusedRecalibration : public torch::autograd::Function<FusedRecalibration> {
 public:
  static Variable forward(AutogradContext* context, const Variable& x, const Variable& weight,
                          const Variable& bias, const Optional& squeeze, const Optional& squeeze_bias,
                          const Optional& excite, const Optional& excite_bias, const Optional& channel_kernel,
                          const Variable& residual, c10::intrusive_ptr<Kept> kept) {
    const Extent extent(x);
    const Statistics& statistics = *kept->statistics;
    const auto channels = static_cast<size_t>(extent.channels);
    const auto images = static_cast<size_t>(extent.images);
    const float* w = weight.const_data_ptr<float>();
    const float* b = bias.const_data_ptr<float>();
    std::vector<float> squeezed(images * channels);
    for (size_t n = 0; n < images; ++n) {
      for (size_t c = 0; c < channels; ++c) {
        const double mean = statistics.image_sums[n * channels + c] / static_cast<double>(extent.pixels) +
                            statistics.shift[c];
        squeezed[n * channels + c] =
            static_cast<float>(w[c] * statistics.inverse_deviation[c] * (mean - statistics.mean[c]) + b[c]);
      }
    }
    const at::Tensor means = as_matrix(squeezed, extent.images).clone();
    const Gate gate{squeeze.value_or(Variable()), squeeze_bias.value_or(Variable()),
                    excite.value_or(Variable()), excite_bias.value_or(Variable()),
                    channel_kernel.value_or(Variable())};
    const at::Tensor hidden = gate.hidden(means);
    const at::Tensor factors = gate.factors(means, hidden).contiguous();
    const float* s = factors.const_data_ptr<float>();
    std::vector<float> scale(images * channels);
    std::vector<float> shift(images * channels);
    for (size_t n = 0; n < images; ++n) {
      for (size_t c = 0; c < channels; ++c) {
        const size_t i = n * channels + c;
        const double factor = w[c] * statistics.inverse_deviation[c];
        scale[i] = static_cast<float>(s[i] * factor);
        shift[i] = static_cast<float>(s[i] * (b[c] - statistics.mean[c] * factor));
      }
    }
    at::Tensor y = at::empty_like(x);
    const float* from = x.const_data_ptr<float>();
    const float* other = residual.const_data_ptr<float>();
    float* to = y.mutable_data_ptr<float>();
    for_each_image(extent, [&](int64_t n) {
      apply_image(from + n * extent.image(), extent.pixels, extent.channels,
                  scale.data() + n * extent.channels, shift.data() + n * extent.channels,
                  other + n * extent.image(), /*relu=*/true, to + n * extent.image());
    });
    context->save_for_backward({x, weight, bias, y, means, hidden, factors, gate.squeeze, gate.squeeze_bias,
                                gate.excite, gate.excite_bias, gate.channel_kernel});
    context->saved_data["kept"] = c10::IValue::make_capsule(std::move(kept));
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor& x = saved[0];
    const at::Tensor& means = saved[4];
    const at::Tensor& hidden = saved[5];
    const at::Tensor& factors = saved[6];
    const Gate gate{saved[7], saved[8], saved[9], saved[10], saved[11]};
    const Extent extent(x);
    const auto kept = c10::static_intrusive_pointer_cast<Kept>(context->saved_data["kept"].toCapsule());
    const Statistics& statistics = *kept->statistics;
    const auto channels = static_cast<size_t>(extent.channels);
    const auto images = static_cast<size_t>(extent.images);
    const at::Tensor dy = plain(gradients[0]);
    const float* dy_data = dy.const_data_ptr<float>();
    const float* x_data = x.const_data_ptr<float>();
    const float* y_data = saved[3].const_data_ptr<float>();
    std::vector<double> sums(images * channels, 0.0);
    std::vector<double> products(images * channels, 0.0);
    for_each_image(extent, [&](int64_t n) {
      sum_gradients(dy_data + n * extent.image(), y_data + n * extent.image(), x_data + n * extent.image(),
                    extent.pixels, extent.channels, statistics.shift.data(),
                    sums.data() + n * extent.channels, products.data() + n * extent.channels);
    });
    const float* w = saved[1].const_data_ptr<float>();
    const float* b = saved[2].const_data_ptr<float>();
    // Through the excitation: ds is the sum of g times what it scaled, which is bn(x).
    std::vector<float> dfactors(images * channels);
    for (size_t n = 0; n < images; ++n) {
      for (size_t c = 0; c < channels; ++c) {
        const size_t i = n * channels + c;
        const double centred = products[i] - (statistics.mean[c] - statistics.shift[c]) * sums[i];
        dfactors[i] = static_cast<float>(w[c] * statistics.inverse_deviation[c] * centred + b[c] * sums[i]);
      }
    }
    const at::Tensor dexcited = as_matrix(dfactors, extent.images) * factors * (1 - factors);
    const Gate::Gradients through = gate.backward(dexcited, means, hidden);
    const float* s = factors.const_data_ptr<float>();
    const float* dm = through.means.const_data_ptr<float>();
    // Through BatchNorm: z = bn(x) has the gradient s g + dm / pixels.
    const auto count = static_cast<double>(extent.per_channel());
    const auto pixels = static_cast<double>(extent.pixels);
    at::Tensor dweight = at::empty_like(saved[1]);
    at::Tensor dbias = at::empty_like(saved[1]);
    std::vector<float> a(images * channels);
    std::vector<float> d(images * channels);
    std::vector<float> slope(channels);
    std::vector<float> center(channels);
    for (size_t c = 0; c < channels; ++c) {
      const double inverse = statistics.inverse_deviation[c];
      const double offset = statistics.mean[c] - statistics.shift[c];
      double sum = 0;
      double centred = 0;
      for (size_t n = 0; n < images; ++n) {
        const size_t i = n * channels + c;
        sum += s[i] * sums[i] + dm[i];
        centred += s[i] * (products[i] - offset * sums[i]) +
                   dm[i] / pixels * (statistics.image_sums[i] - pixels * offset);
      }
      dweight.mutable_data_ptr<float>()[c] = static_cast<float>(centred * inverse);
      dbias.mutable_data_ptr<float>()[c] = static_cast<float>(sum);
      const double factor = w[c] * inverse;
      slope[c] = static_cast<float>(-factor * inverse * inverse * centred / count);
      center[c] = static_cast<float>(statistics.mean[c]);
      for (size_t n = 0; n < images; ++n) {
        const size_t i = n * channels + c;
        a[i] = static_cast<float>(factor * s[i]);
        d[i] = static_cast<float>(factor * (dm[i] / pixels - sum / count));
      }
    }
    at::Tensor dx = at::empty_like(x);
    at::Tensor dresidual = at::empty_like(x);
    float* dx_data = dx.mutable_data_ptr<float>();
    float* dr_data = dresidual.mutable_data_ptr<float>();
    for_each_image(extent, [&](int64_t n) {
      apply_gradients(dy_data + n * extent.image(), y_data + n * extent.image(), x_data + n * extent.image(),
                      extent.pixels, extent.channels, a.data() + n * extent.channels, slope.data(),
                      d.data() + n * extent.channels, center.data(), dx_data + n * extent.image(),
                      dr_data + n * extent.image());
    });
    return {dx,
            dweight,
            dbias,
            through.squeeze,
            through.squeeze_bias,
            through.excite,
            through.excite_bias,
            through.channel_kernel,
            dresidual,
            Variable()};
  }
};

// The batch's statistics, which go into the running ones too.
c10::intrusive_ptr<Kept> measure_and_track(const at::Tensor& x, const BatchNorm& norm) {
  const at::NoGradGuard no_grad;
  std::vector<double> variance;
  auto kept = c10::make_intrusive<Kept>();
  kept->statistics = measure(x, norm.eps, &variance);
  update_running_statistics(norm, *kept->statistics, variance, static_cast<double>(Extent(x).per_channel()));
  return kept;
}

}  // namespace

bool can_fuse_batch_norm(const at::Tensor& input, const BatchNorm& norm) {
  const auto is_plain = [&input](const at::Tensor& tensor) {
    return tensor.is_cpu() && tensor.scalar_type() == at::kFloat && tensor.is_contiguous() &&
           !tensor.is_neg() && tensor.sizes() == at::IntArrayRef{input.size(1)};
  };
  // Where both layouts are the same (maps of one pixel), the tensor counts as PyTorch's default.
  const bool channels_last = input.dim() == 4 &&
                             input.suggest_memory_format() == at::MemoryFormat::ChannelsLast &&
                             input.is_contiguous(at::MemoryFormat::ChannelsLast);
  return norm.training && !norm.sync && norm.momentum == kUsualMomentum && input.is_cpu() &&
         input.scalar_type() == at::kFloat && channels_last && !input.is_neg() &&
         input.numel() > input.size(1) && !at::autocast::is_autocast_enabled(at::kCPU) &&
         is_plain(norm.weight) && is_plain(norm.bias) && is_plain(norm.running_mean) &&
         is_plain(norm.running_var);
}

bool can_fuse_recalibration(const at::Tensor& input, const Recalibration& whole, const at::Tensor& residual) {
  const auto& [norm, squeeze, excite, channel_kernel, apart] = whole;
  if (residual.sizes() != input.sizes() || residual.scalar_type() != input.scalar_type() ||
      residual.device() != input.device() || !can_fuse_batch_norm(input, norm)) {
    return false;
  }
  const auto is_plain = [](const at::Tensor& weight, at::IntArrayRef sizes) {
    return weight.is_cpu() && weight.scalar_type() == at::kFloat && weight.sizes() == sizes;
  };
  if (channel_kernel.defined()) {
    return is_plain(channel_kernel, {channel_kernel.numel()});
  }
  const auto is_linear = [&](const Linear& linear, int64_t rows, int64_t columns) {
    return is_plain(linear.weight, {rows, columns}) &&
           (!linear.bias.defined() || is_plain(linear.bias, {rows}));
  };
  const int64_t channels = input.size(1);
  const int64_t hidden = squeeze.weight.size(0);
  return is_linear(squeeze, hidden, channels) && is_linear(excite, channels, hidden);
}

at::Tensor fused_batch_norm(const at::Tensor& input, const BatchNorm& norm, bool relu) {
  return FusedBatchNorm::apply(input, norm.weight, norm.bias, measure_and_track(input, norm), relu);
}

at::Tensor fused_recalibration(const at::Tensor& input, const Recalibration& whole,
                               const at::Tensor& residual) {
  return FusedRecalibration::apply(input, whole.norm.weight, whole.norm.bias, optional(whole.squeeze.weight),
                                   optional(whole.squeeze.bias), optional(whole.excite.weight),
                                   optional(whole.excite.bias), optional(whole.channel_kernel),
                                   plain(residual), measure_and_track(input, whole.norm));
}

}  // namespace senet::graph
