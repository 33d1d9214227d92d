#include "graph/fused_training.h"

#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

// The loops below for the vector widths of this processor: the compiler makes a copy for each and the loader
// picks. Not under the address sanitizer, which is not ready when the loader asks.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define SENET_VECTOR_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define SENET_VECTOR_CLONES
#endif

namespace senet::graph {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

constexpr double kMomentum = 0.1;
// Pixels that are summed in float before the sum goes to a double.
constexpr int64_t kBlock = 128;
constexpr int64_t kWidth = 16;
typedef float Vector __attribute__((vector_size(kWidth * sizeof(float)), aligned(4), may_alias));

inline const Vector& at(const float* from) {
  return *reinterpret_cast<const Vector*>(from);
}

inline Vector& at(float* to) {
  return *reinterpret_cast<Vector*>(to);
}

// One image, pixels x channels. Sums of x - shift and of its square, per channel.
SENET_VECTOR_CLONES void sum_image(const float* x, int64_t pixels, int64_t channels, const float* shift,
                                   double* sums, double* squares) {
  for (int64_t begin = 0; begin < pixels; begin += kBlock) {
    const int64_t end = begin + kBlock < pixels ? begin + kBlock : pixels;
    int64_t c = 0;
    for (; c + kWidth <= channels; c += kWidth) {
      Vector sum = {};
      Vector square = {};
      const Vector k = at(shift + c);
      for (int64_t p = begin; p < end; ++p) {
        const Vector d = at(x + p * channels + c) - k;
        sum += d;
        square += d * d;
      }
      for (int64_t i = 0; i < kWidth; ++i) {
        sums[c + i] += static_cast<double>(sum[i]);
        squares[c + i] += static_cast<double>(square[i]);
      }
    }
    for (; c < channels; ++c) {
      for (int64_t p = begin; p < end; ++p) {
        const float d = x[p * channels + c] - shift[c];
        sums[c] += d;
        squares[c] += static_cast<double>(d * d);
      }
    }
  }
}

// y = scale * x + shift (+ residual), then ReLU if `relu`.
SENET_VECTOR_CLONES void apply_image(const float* x, int64_t pixels, int64_t channels, const float* scale,
                                     const float* shift, const float* residual, bool relu, float* y) {
  const Vector zero = {};
  for (int64_t begin = 0; begin < pixels; begin += kBlock) {
    const int64_t end = begin + kBlock < pixels ? begin + kBlock : pixels;
    int64_t c = 0;
    for (; c + kWidth <= channels; c += kWidth) {
      const Vector a = at(scale + c);
      const Vector b = at(shift + c);
      for (int64_t p = begin; p < end; ++p) {
        Vector v = at(x + p * channels + c) * a + b;
        if (residual != nullptr) {
          v += at(residual + p * channels + c);
        }
        if (relu) {
          v = v < zero ? zero : v;  // NaN stays
        }
        at(y + p * channels + c) = v;
      }
    }
    for (; c < channels; ++c) {
      for (int64_t p = begin; p < end; ++p) {
        float v = x[p * channels + c] * scale[c] + shift[c];
        if (residual != nullptr) {
          v += residual[p * channels + c];
        }
        y[p * channels + c] = relu && v < 0 ? 0 : v;
      }
    }
  }
}

// g is dy where y > 0 (everywhere without `y`). Sums of g and of g * (x - shift), per channel.
SENET_VECTOR_CLONES void sum_gradients(const float* dy, const float* y, const float* x, int64_t pixels,
                                       int64_t channels, const float* shift, double* sums, double* products) {
  const Vector zero = {};
  for (int64_t begin = 0; begin < pixels; begin += kBlock) {
    const int64_t end = begin + kBlock < pixels ? begin + kBlock : pixels;
    int64_t c = 0;
    for (; c + kWidth <= channels; c += kWidth) {
      Vector sum = {};
      Vector product = {};
      const Vector k = at(shift + c);
      for (int64_t p = begin; p < end; ++p) {
        const int64_t i = p * channels + c;
        Vector g = at(dy + i);
        if (y != nullptr) {
          g = at(y + i) <= zero ? zero : g;
        }
        sum += g;
        product += g * (at(x + i) - k);
      }
      for (int64_t i = 0; i < kWidth; ++i) {
        sums[c + i] += static_cast<double>(sum[i]);
        products[c + i] += static_cast<double>(product[i]);
      }
    }
    for (; c < channels; ++c) {
      for (int64_t p = begin; p < end; ++p) {
        const int64_t i = p * channels + c;
        const float g = y != nullptr && y[i] <= 0 ? 0 : dy[i];
        sums[c] += g;
        products[c] += static_cast<double>(g * (x[i] - shift[c]));
      }
    }
  }
}

// dx = a * g + b * (x - center) + d, and the residual's gradient g if `dr`.
SENET_VECTOR_CLONES void apply_gradients(const float* dy, const float* y, const float* x, int64_t pixels,
                                         int64_t channels, const float* a, const float* b, const float* d,
                                         const float* center, float* dx, float* dr) {
  const Vector zero = {};
  for (int64_t begin = 0; begin < pixels; begin += kBlock) {
    const int64_t end = begin + kBlock < pixels ? begin + kBlock : pixels;
    int64_t c = 0;
    for (; c + kWidth <= channels; c += kWidth) {
      const Vector va = at(a + c);
      const Vector vb = at(b + c);
      const Vector vd = at(d + c);
      const Vector k = at(center + c);
      for (int64_t p = begin; p < end; ++p) {
        const int64_t i = p * channels + c;
        Vector g = at(dy + i);
        if (y != nullptr) {
          g = at(y + i) <= zero ? zero : g;
        }
        at(dx + i) = va * g + vb * (at(x + i) - k) + vd;
        if (dr != nullptr) {
          at(dr + i) = g;
        }
      }
    }
    for (; c < channels; ++c) {
      for (int64_t p = begin; p < end; ++p) {
        const int64_t i = p * channels + c;
        const float g = y != nullptr && y[i] <= 0 ? 0 : dy[i];
        dx[i] = a[c] * g + b[c] * (x[i] - center[c]) + d[c];
        if (dr != nullptr) {
          dr[i] = g;
        }
      }
    }
  }
}

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

// As at::batch_norm does with momentum 0.1.
void update_running_statistics(const BatchNorm& bn, const Statistics& statistics,
                               const std::vector<double>& variance, double count) {
  const at::NoGradGuard no_grad;
  bn.num_batches_tracked.add_(1);
  auto* mean = bn.running_mean.mutable_data_ptr<float>();
  auto* var = bn.running_var.mutable_data_ptr<float>();
  for (size_t c = 0; c < variance.size(); ++c) {
    mean[c] = static_cast<float>(kMomentum * statistics.mean[c] + (1 - kMomentum) * mean[c]);
    var[c] = static_cast<float>(kMomentum * variance[c] * count / (count - 1) + (1 - kMomentum) * var[c]);
  }
}

at::Tensor as_matrix(std::vector<float>& values, int64_t rows) {
  return at::from_blob(values.data(), {rows, static_cast<int64_t>(values.size()) / rows}, at::kFloat);
}

// What both functions keep for their backward beside tensors.
struct Kept : torch::CustomClassHolder {
  std::shared_ptr<Statistics> statistics;
};

class BatchNormReLU : public torch::autograd::Function<BatchNormReLU> {
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

class FusedRecalibration : public torch::autograd::Function<FusedRecalibration> {
 public:
  static Variable forward(AutogradContext* context, const Variable& x, const Variable& weight,
                          const Variable& bias, const Variable& squeeze, const Variable& excite,
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
    const at::Tensor hidden = at::mm(means, squeeze.t()).relu_();
    const at::Tensor factors = at::mm(hidden, excite.t()).sigmoid_();
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
    context->save_for_backward({x, weight, bias, squeeze, excite, y, means, hidden, factors});
    context->saved_data["kept"] = c10::IValue::make_capsule(std::move(kept));
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor& x = saved[0];
    const at::Tensor& squeeze = saved[3];
    const at::Tensor& excite = saved[4];
    const at::Tensor& means = saved[6];
    const at::Tensor& hidden = saved[7];
    const at::Tensor& factors = saved[8];
    const Extent extent(x);
    const auto kept = c10::static_intrusive_pointer_cast<Kept>(context->saved_data["kept"].toCapsule());
    const Statistics& statistics = *kept->statistics;
    const auto channels = static_cast<size_t>(extent.channels);
    const auto images = static_cast<size_t>(extent.images);
    const at::Tensor dy = plain(gradients[0]);
    const float* dy_data = dy.const_data_ptr<float>();
    const float* x_data = x.const_data_ptr<float>();
    const float* y_data = saved[5].const_data_ptr<float>();
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
    const at::Tensor dexcite = at::mm(dexcited.t(), hidden);
    const at::Tensor dhidden = at::mm(dexcited, excite).mul_(hidden > 0);
    const at::Tensor dsqueeze = at::mm(dhidden.t(), means);
    const at::Tensor dmeans = at::mm(dhidden, squeeze);
    const float* s = factors.const_data_ptr<float>();
    const float* dm = dmeans.const_data_ptr<float>();
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
    return {dx, dweight, dbias, dsqueeze, dexcite, dresidual, Variable()};
  }
};

c10::intrusive_ptr<Kept> prepare(const at::Tensor& x, const BatchNorm& norm) {
  const at::NoGradGuard no_grad;
  std::vector<double> variance;
  auto kept = c10::make_intrusive<Kept>();
  kept->statistics = measure(x, norm.eps, &variance);
  update_running_statistics(norm, *kept->statistics, variance, static_cast<double>(Extent(x).per_channel()));
  return kept;
}

// relu(se(norm(x)) + residual), if it stands there and nobody else reads what is between.
struct Tail {
  std::vector<const Node*> nodes;  // in their order, from the norm to the ReLU
  Excitation excitation;
  ValueId input;
  ValueId residual;
};

template <class Kind>
const Node* producer_of(const Uses& uses, ValueId value) {
  const Node* const node = uses.producer(value);
  return node != nullptr && std::holds_alternative<Kind>(node->operation) ? node : nullptr;
}

std::optional<Tail> find_tail(const Graph& graph, const Uses& uses, size_t relu) {
  const Node* const last = &graph.nodes[relu];
  const Node* const sum = producer_of<Add>(uses, last->inputs.front());
  // Right after each other, so that nothing happens to the residual in between.
  if (relu == 0 || sum != &graph.nodes[relu - 1] || uses.only_reader(sum->output) != last) {
    return std::nullopt;
  }
  const Node* const scale = producer_of<Scale>(uses, sum->inputs[0]);
  if (scale == nullptr || uses.only_reader(scale->output) != sum) {
    return std::nullopt;
  }
  std::optional<Excitation> found = find_excitation(uses, *scale);
  if (!found || uses.readers(found->input).size() != 2 || uses.is_output(found->input)) {
    return std::nullopt;
  }
  const Node* const norm = producer_of<BatchNorm>(uses, found->input);
  if (norm == nullptr || uses.only_reader(norm->inputs.front()) != norm) {
    return std::nullopt;
  }
  std::vector<const Node*> nodes = {norm};
  nodes.insert(nodes.end(), found->inner.begin(), found->inner.end());
  nodes.insert(nodes.end(), {scale, sum, last});
  return Tail{std::move(nodes), *std::move(found), norm->inputs.front(), sum->inputs[1]};
}

Recalibration make_recalibration(const Graph& graph, const Tail& tail) {
  auto apart = std::make_shared<Graph>();
  apart->shapes = graph.shapes;
  apart->inputs = {tail.input, tail.residual};
  apart->outputs = {tail.nodes.back()->output};
  for (const Node* node : tail.nodes) {
    apart->nodes.push_back(*node);
  }
  return {std::get<BatchNorm>(tail.nodes.front()->operation), tail.excitation.squeeze, tail.excitation.excite,
          std::move(apart)};
}

}  // namespace

void fuse_training(Graph& graph) {
  const Uses uses(graph);
  std::set<const Node*> gone;
  std::vector<Node> fused;
  const auto replace = [&](const Node& last, Operation operation, std::vector<ValueId> inputs) {
    fused.push_back({std::move(operation), last.name, last.owner, std::move(inputs), last.output});
  };
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& node = graph.nodes[i];
    const auto* relu = std::get_if<Relu>(&node.operation);
    if (relu == nullptr) {
      continue;
    }
    if (const std::optional<Tail> tail = find_tail(graph, uses, i)) {
      gone.insert(tail->nodes.begin(), tail->nodes.end());
      replace(node, make_recalibration(graph, *tail), {tail->input, tail->residual});
      continue;
    }
    const Node* const norm = producer_of<BatchNorm>(uses, node.inputs.front());
    if (norm != nullptr && norm == &graph.nodes[i - 1] && uses.only_reader(norm->output) == &node) {
      gone.insert({norm, &node});
      replace(node, BatchNormRelu{std::get<BatchNorm>(norm->operation), relu->in_place}, norm->inputs);
    }
  }
  // Each in the place of its last node.
  std::vector<Node> nodes;
  auto next = fused.begin();
  for (const Node& node : graph.nodes) {
    if (next != fused.end() && next->output == node.output) {
      nodes.push_back(std::move(*next++));
    } else if (gone.count(&node) == 0) {
      nodes.push_back(node);
    }
  }
  graph.nodes = std::move(nodes);
}

bool can_fuse_training(const at::Tensor& input, const BatchNorm& norm) {
  const auto is_plain = [&input](const at::Tensor& tensor) {
    return tensor.is_cpu() && tensor.scalar_type() == at::kFloat && tensor.is_contiguous() &&
           !tensor.is_neg() && tensor.sizes() == at::IntArrayRef{input.size(1)};
  };
  // Where both layouts are the same (maps of one pixel), the tensor counts as PyTorch's default.
  const bool channels_last = input.dim() == 4 &&
                             input.suggest_memory_format() == at::MemoryFormat::ChannelsLast &&
                             input.is_contiguous(at::MemoryFormat::ChannelsLast);
  return norm.training && norm.momentum == kMomentum && input.is_cpu() && input.scalar_type() == at::kFloat &&
         channels_last && !input.is_neg() && input.numel() > input.size(1) &&
         !at::autocast::is_autocast_enabled(at::kCPU) && is_plain(norm.weight) && is_plain(norm.bias) &&
         is_plain(norm.running_mean) && is_plain(norm.running_var);
}

bool can_fuse_recalibration(const at::Tensor& input, const Recalibration& whole, const at::Tensor& residual) {
  const auto& [norm, squeeze, excite, apart] = whole;
  if (squeeze.bias.defined() || excite.bias.defined() || residual.sizes() != input.sizes() ||
      residual.scalar_type() != input.scalar_type() || residual.device() != input.device() ||
      !can_fuse_training(input, norm)) {
    return false;
  }
  const auto is_matrix = [](const at::Tensor& weight, int64_t rows, int64_t columns) {
    return weight.is_cpu() && weight.scalar_type() == at::kFloat &&
           weight.sizes() == at::IntArrayRef{rows, columns};
  };
  const int64_t channels = input.size(1);
  const int64_t hidden = squeeze.weight.size(0);
  return is_matrix(squeeze.weight, hidden, channels) && is_matrix(excite.weight, channels, hidden);
}

at::Tensor fused_batch_norm(const at::Tensor& input, const BatchNorm& norm, bool relu) {
  return BatchNormReLU::apply(input, norm.weight, norm.bias, prepare(input, norm), relu);
}

at::Tensor fused_recalibration(const at::Tensor& input, const Recalibration& whole,
                               const at::Tensor& residual) {
  return FusedRecalibration::apply(input, whole.norm.weight, whole.norm.bias, whole.squeeze.weight,
                                   whole.excite.weight, plain(residual), prepare(input, whole.norm));
}

}  // namespace senet::graph
