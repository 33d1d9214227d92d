// The loops over memory of fused training (fused_training.h): of one image, pixels x channels, float32.
// Compiled for several vector widths, of which the loader takes what the processor has.
#pragma once

#include <cstdint>

namespace senet::graph {

/// One image, pixels x channels. Sums of x - shift and of its square, per channel.
void sum_image(const float* x, int64_t pixels, int64_t channels, const float* shift, double* sums,
               double* squares);

/// y = scale * x + shift (+ residual), then ReLU if `relu`.
void apply_image(const float* x, int64_t pixels, int64_t channels, const float* scale, const float* shift,
                 const float* residual, bool relu, float* y);

/// g is dy where y > 0 (everywhere without `y`). Sums of g and of g * (x - shift), per channel.
void sum_gradients(const float* dy, const float* y, const float* x, int64_t pixels, int64_t channels,
                   const float* shift, double* sums, double* products);

/// dx = a * g + b * (x - center) + d, and the residual's gradient g if `dr`.
void apply_gradients(const float* dy, const float* y, const float* x, int64_t pixels, int64_t channels,
                     const float* a, const float* b, const float* d, const float* center, float* dx,
                     float* dr);

}  // namespace senet::graph
