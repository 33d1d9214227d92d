// Numbers of the CUDA runtime's interface (driver_types.h, driver 11 and later), by NVIDIA's names: whoever
// calls it finds its functions at run time and includes nothing of CUDA.
#pragma once

namespace senet::runtime {

// cudaError_t
inline constexpr int kCudaSuccess = 0;
inline constexpr int kCudaErrorMemoryAllocation = 2;
inline constexpr int kCudaErrorInsufficientDriver = 35;
inline constexpr int kCudaErrorNoDevice = 100;
inline constexpr int kCudaErrorNotReady = 600;  // of an event that is still to come

inline constexpr unsigned kCudaStreamNonBlocking = 1;
inline constexpr unsigned kCudaEventDisableTiming = 2;
inline constexpr int kCudaStreamCaptureModeThreadLocal = 1;
inline constexpr unsigned kCudaHostAllocPortable = 1;

// cudaMemcpyKind
inline constexpr int kCudaMemcpyHostToDevice = 1;
inline constexpr int kCudaMemcpyDeviceToHost = 2;

}  // namespace senet::runtime
