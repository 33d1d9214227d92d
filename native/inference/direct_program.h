// A compiled program of our own kernels (kernels.h), for x86 processors with AVX2 or better.
//
// How it works, from the graph to the numbers:
//  1. Lowering (direct_lowering.cpp) turns nodes into steps over buffers, once, and packs the weights. The fusions:
//     - Bias, ReLU, the excitation's scale and the residual sum happen to the sums of a convolution while they are in
//       registers. The squeeze is summed there, too: no step reads an activation only to average it.
//     - In a bottleneck, SE's mean of the last 1 x 1 convolution, mean(W3 x + b3), is W3 mean(x) + b3. So the excitation
//       is known before that convolution runs (from the mean of its input, with W1 W3 folded into one matrix), and its
//       output is scaled, added to the residual and cut off at zero in the same pass.
//     - An average pool before a 1 x 1 convolution runs after it, on fewer channels: both are linear.
//     - 1 x 1 convolutions of one input are one step (Inception's branches), and what is concatenated is written in place.
//  2. Layout (for each size of image, cached) gives every buffer its place. Buffers whose lives do not meet share memory.
//  3. A run splits the images over the threads. In the first part of the program, where activations outweigh weights,
//     every thread takes whole images, one after the other, so that an image's activations stay in its core's cache and
//     nobody waits. In the second part, where weights outweigh activations, all threads work on all images together, step
//     by step. Images that are left over, and a batch smaller than the threads, go through the first part together.
//
// To add a fusion: find the nodes in Lowering (each pattern is one method there), and give the step that has the values
// in registers the rest to do; the kernels' epilogue takes scale, residual, activation and sums in that order.
#pragma once

#include "inference/graph.h"
#include "inference/kernels.h"
#include "inference/program.h"

#include <memory>

namespace senet::inference {

/// `element` is float32 or bfloat16, and `kernels` must have kernels for it.
std::unique_ptr<Program> make_direct_program(const Graph& graph, const Kernels& kernels, at::ScalarType element);

}  // namespace senet::inference
