// Compiled programs for NVIDIA GPUs: cuDNN's fused convolutions and kernels of ours, captured as one CUDA
// graph for each number and size of images.
//
// From the plan to the numbers:
//
// 1. Lower (lower.h): nodes become steps, weights are packed on the device. Happens once.
//
// 2. Make ready (sequence.h): for each number and size of images, values get their place in one piece of
// memory, every convolution the fastest of cuDNN's plans (disk_cache.h keeps it for the next process), and
// all steps become a graph. A few sequences are kept, those used last; a batch between two of the numbers
// that are made is padded up.
//
// 3. A run enqueues three things on LibTorch's stream: the images into the sequence's memory, the graph, and
// the results out of it. It does not wait for the device.
//
// 4. A classifier's batches go through lanes (lanes.h): each a stream with a sequence of its own, images and
// answers in pinned memory, so that copies and computation of several overlap.
//
// The functions of NVIDIA's libraries are found at run time (driver.h), our kernels are compiled then
// (kernels.h). What they do not serve is LibTorch's operator inside the same program, which is then not
// captured.
#pragma once

#include "inference/backend.h"

#include <memory>
#include <string>

namespace senet::inference {

/// What its programs say they run on.
inline constexpr const char* kCudaKernelsName = "cuda-fused";

/// A CUDA device of capability 8.0 or better, with all that driver.h looks for, unless SENET_COMPILE_KERNELS
/// asks for libtorch.
bool serves_cuda_kernels(const Target& target);
/// Why it does not serve a target on a CUDA device; empty if it does, or for another device. Starts the
/// device, and compiles the kernels if need be.
std::string why_no_cuda_kernels(const Target& target);
std::unique_ptr<const Program> make_cuda_program(const Plan& plan, const Target& target);

}  // namespace senet::inference
