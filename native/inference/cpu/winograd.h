// Convolutions of 3 x 3 windows and stride 1 by Winograd's minimal filtering F(2 x 2, 3 x 3) (Lavin and Gray,
// "Fast Algorithms for Convolutional Neural Networks", CVPR 2016): 16 products for 4 outputs instead of 36,
// float32.
//
// The output is cut into tiles of 2 x 2 pixels. A tile's 4 x 4 window of the input becomes 16 coefficients
// per channel (sums and differences of its pixels), the weights have become 16 when they were packed (in
// float64), and for each of the 16 the products over the channels are a matrix product for all tiles. Sums
// and differences of the 16 products are the 4 outputs. Only additions happen to activations, so little is
// lost: the error stays within two or three times that of the direct way.
//
// Tiles are worked on in chunks whose coefficients and products stay in a core's second-level cache. An odd
// last row or column has a tile of which half is thrown away.
#pragma once

#include "inference/cpu/packing.h"
#include "inference/cpu/steps.h"

namespace senet::inference {

/// What ConvolutionStep does where its algorithm is kWinograd.
void run_winograd(const ConvolutionStep& step, const Work& work) noexcept;
int64_t winograd_scratch_bytes(const ConvolutionStep& step, const Layout& layout);

/// Whether it pays: enough channels on both sides that the products outweigh the sums, and not so many that
/// reading sixteen instead of nine weights for each pair outweighs the products saved.
bool suits_winograd(const ElementKernels& kernels, graph::Size2 window, graph::Size2 stride,
                    int64_t in_channels, int64_t out_channels);

}  // namespace senet::inference
