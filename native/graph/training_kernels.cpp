#include "graph/training_kernels.h"

// The loops below for the vector widths of this processor: the compiler makes a copy for each and the loader
// picks. Not under the address sanitizer, which is not ready when the loader asks.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define SENET_VECTOR_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define SENET_VECTOR_CLONES
#endif

namespace senet::graph {
namespace {

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

}  // namespace

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

}  // namespace senet::graph
