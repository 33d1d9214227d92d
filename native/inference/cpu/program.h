// Compiled programs of our own kernels (kernels.h), for x86 processors with AVX2 or better; of int8, for any.
//
// From the plan to the numbers there are five stages, of which the first three happen once (four for int8:
// quantize.h, between the first two, says which values are bytes). Each of these gives a plain value that can
// be printed (print.cpp) and is tested alone (test/native/lowering_test.cpp).
//
// 1. Fuse (fuse.h): which nodes become one unit of work, and what that takes over from others.
//
// 2. Place (place.h): in which buffer each value lies.
//
// 3. Pack (pack.h): units become steps (steps.h) with the kernels of this processor and packed weights.
//
// For example the last convolution of an SE bottleneck, as these three print it (the rest is in the test):
//
//   fuse   convolution conv3 1 x 1: %2, scale se, %5 -> %4; scale se, residual, relu
//   place  2: %4, %5; 64 channels, float32
//          3: %2; 16 channels, float32
//          7: scale se; 64 channels, 1 x 1, float32
//   pack   convolution conv3: 3, 7, 2 -> 2 (2 panels); scale se, residual, relu; 4352 bytes
//
// The unit took over the scaling by the excitation, the sum with the residual %5 and the ReLU; its result %4
// is written over the residual, in buffer 2; and its 64 output channels are two panels of packed weights.
//
// 4. Layout (here; for each size of image, kept) gives every buffer its place. Buffers whose lives do not
// meet share memory, so that a small image's activations fit a core's cache.
//
// 5. A run splits the images over the threads. In the first part of a program, where activations outweigh
// weights, every thread takes whole images, one after the other: an image's activations stay in its core's
// cache, and nobody waits. In the second part, where weights outweigh activations, all threads work on all
// images together, step by step. Images that are left over, and a batch smaller than the threads, go through
// the first part together, too.
//
// What is fused, and why it is the same function:
//
// - Bias, scale, residual sum, ReLU and the sums of a squeeze happen to a convolution's results while they
// are in registers. No step reads an activation only to average it or to add to it. Sums over pixels go to
// float64 after a few of them, and those of many products begin anew (kCarryAfter), so that errors grow
// neither with images nor with channels.
//
// - In a bottleneck the mean that SE takes of the last (1 x 1) convolution, mean(W3 x + b3), is
// W3 mean(x) + b3. So the excitation is computed before that convolution runs, from the mean of its input and
// with W1 W3 folded into one matrix, and the convolution scales its own output.
//
// - Convolutions of 3 x 3 windows and stride 1 take sixteen products for four outputs instead of thirty-six,
// in float32: cpu/winograd.h. The products are fewer, the additions more; the error stays within a factor of
// three of an ordinary forward's, which test/parity checks for every model and for random networks.
//
// - The sum with the residual is written where the residual was, if nobody else reads that.
//
// - An average pool in front of a 1 x 1 convolution runs behind it, on fewer channels: both are linear, and
// the zeros of the padding stay zeros without the bias.
//
// - 1 x 1 convolutions of one input (Inception's branches, a block's first convolution and its downsample)
// are one step, and what is concatenated is written in place.
//
// To add a fusion: find its nodes in fuse.cpp, where each pattern is a method, and give the unit that has the
// values in registers the rest to do, as a field of Unit; pack.cpp hands it to the step. A new thing to do to
// values is a field of ConvTask, next to the others in convolve_block of kernels_simd.h, and a row in
// test/native.
#pragma once

#include "inference/backend.h"
#include "inference/cpu/quantize.h"
#include "inference/cpu/steps.h"

#include <memory>

namespace senet::inference {

/// Whether this processor has kernels for the target, and nothing of LibTorch's is better;
/// SENET_COMPILE_KERNELS decides where it is set. Throws ERR_SENET_COMPILE where it names none.
bool serves_cpu_kernels(const Target& target);
/// Why it does not serve a target on the CPU, or why without the processor's matrix unit; empty if it does,
/// or for another device.
std::string why_no_cpu_kernels(const Target& target);
/// Of what it serves: "amx_bf16", "avx512_bf16", "avx512_vnni", "avx2", ... (kernel_sets.cpp names them all).
const char* cpu_kernels_name(const Target& target);
std::unique_ptr<const Program> make_cpu_program(const Plan& plan, const Target& target);

/// Looks on while a program runs: before and after each step, with each of the threads that work on an image
/// together. After one throws, none is called any more, and the run ends with what was thrown.
class StepObserver {
 public:
  virtual ~StepObserver() = default;
  virtual void before(const Step&, const Work&) {}
  virtual void after(const Step& step, const Work& work) = 0;
};

/// A program whose values can be looked at: an image at a time, by all threads.
class ObservableProgram : public Program {
 public:
  virtual at::Tensor observe(const at::Tensor& input, StepObserver& observer) const = 0;
};

/// The best kernels of bytes, or those that SENET_COMPILE_KERNELS names. Throws ERR_SENET_DTYPE where there
/// are none.
const Kernels& byte_kernels();

/// Of float32, where every value is stored.
std::unique_ptr<const ObservableProgram> make_observable_program(const Plan& plan, const Fused& fused);

/// Of bytes. The weights of the plan's convolutions become what int8 can say.
std::unique_ptr<const ObservableProgram> make_byte_program(Plan& plan, const QuantizationRecord& record,
                                                           const Kernels& kernels);

/// `element` is float32 or bfloat16, and `kernels` must have kernels for it.
std::unique_ptr<const Program> make_cpu_program(const Plan& plan, const Kernels& kernels,
                                                at::ScalarType element);

}  // namespace senet::inference
