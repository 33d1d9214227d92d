// What CUDA brings to a kernel, for the processor: native/inference/cuda/kernels.cu, included in a namespace
// behind this, is C++ that the sanitizers see. Blocks run one after the other, and so do a block's threads:
// each up to its end or to where it waits for others. Where some wait for what never comes, which would hang
// a GPU, launch() throws. Shared memory that no thread wrote is NaN, and what lies beyond the bytes of a
// launch may not be touched.
#pragma once

#include "inference/cuda/tasks.h"

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <cmath>
#include <cstddef>
#include <functional>

#define __device__
#define __shared__ static
#define SENET_KERNEL(threads) static void
#define SENET_KERNEL_OF_BLOCKS(threads, blocks) static void

namespace senet::test {

struct Index3 {
  unsigned x = 1, y = 1, z = 1;
};
extern Index3 threadIdx;
extern Index3 blockIdx;
extern Index3 blockDim;
extern Index3 gridDim;

constexpr size_t kSharedFloats = (size_t{100} << 10) / sizeof(float);
extern float scratch[kSharedFloats];

void __syncthreads();
float __shfl_xor_sync(unsigned mask, float value, int other);

inline float half_to_float(unsigned short bits) {
  return static_cast<float>(c10::Half(bits, c10::Half::from_bits()));
}
inline unsigned short float_to_half(float value) {
  return c10::Half(value).x;
}
inline float bfloat16_to_float(unsigned short bits) {
  return static_cast<float>(c10::BFloat16(bits, c10::BFloat16::from_bits()));
}
inline unsigned short float_to_bfloat16(float value) {
  return c10::BFloat16(value).x;
}
inline float infinity() {
  return HUGE_VALF;
}

/// Runs `kernel` once for each thread of each block.
void launch(const std::function<void()>& kernel, Index3 grid, Index3 block, size_t shared_bytes);

}  // namespace senet::test
