// NVIDIA's C interfaces that CUDA programs call, as one table of functions. They are looked up at run time in
// the libraries that LibTorch's CUDA library brought, so that no CUDA header or toolkit is needed to build
// and one binary serves machines with and without a GPU. The declarations are ours; the numbers are NVIDIA's.
// Knows no LibTorch.
#pragma once

#include "runtime/cuda_numbers.h"

#include <cstddef>
#include <cstdint>
#include <string>

namespace senet::runtime::cuda {

using Stream = struct StreamOpaque*;
/// The legacy default stream, which is LibTorch's: nobody here changes it.
inline constexpr Stream kDefaultStream = nullptr;
using Event = struct EventOpaque*;
using Graph = struct GraphOpaque*;
using GraphRun = struct GraphRunOpaque*;  // cudaGraphExec_t
using Module = struct ModuleOpaque*;
using Function = struct FunctionOpaque*;
using NvrtcProgram = struct NvrtcOpaque*;
using CudnnHandle = struct CudnnOpaque*;
using CudnnDescriptor = void*;

// X(function, parameters): all return int, 0 for success.
#define SENET_CUDART(X)                                                    \
  X(cudaGetDevice, (int*))                                                 \
  X(cudaSetDevice, (int))                                                  \
  X(cudaDeviceGetAttribute, (int*, int, int))                              \
  X(cudaStreamCreateWithFlags, (Stream*, unsigned))                        \
  X(cudaStreamDestroy, (Stream))                                           \
  X(cudaStreamSynchronize, (Stream))                                       \
  X(cudaStreamBeginCapture, (Stream, int))                                 \
  X(cudaStreamEndCapture, (Stream, Graph*))                                \
  X(cudaGraphInstantiateWithFlags, (GraphRun*, Graph, unsigned long long)) \
  X(cudaGraphLaunch, (GraphRun, Stream))                                   \
  X(cudaGraphDestroy, (Graph))                                             \
  X(cudaGraphExecDestroy, (GraphRun))                                      \
  X(cudaEventCreateWithFlags, (Event*, unsigned))                          \
  X(cudaEventRecord, (Event, Stream))                                      \
  X(cudaEventSynchronize, (Event))                                         \
  X(cudaEventQuery, (Event))                                               \
  X(cudaEventElapsedTime, (float*, Event, Event))                          \
  X(cudaEventDestroy, (Event))                                             \
  X(cudaStreamWaitEvent, (Stream, Event, unsigned))                        \
  X(cudaMemcpyAsync, (void*, const void*, size_t, int, Stream))            \
  X(cudaMemsetAsync, (void*, int, size_t, Stream))                         \
  X(cudaHostAlloc, (void**, size_t, unsigned))                             \
  X(cudaFreeHost, (void*))                                                 \
  X(cudaGetLastError, ())

#define SENET_LIBCUDA(X)                                                                                     \
  X(cuModuleLoadData, (Module*, const void*))                                                                \
  X(cuModuleUnload, (Module))                                                                                \
  X(cuFuncSetAttribute, (Function, int, int))                                                                \
  X(cuModuleGetFunction, (Function*, Module, const char*))                                                   \
  X(cuLaunchKernel, (Function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, Stream, \
                     void**, void**))

#define SENET_NVRTC(X)                                                                      \
  X(nvrtcVersion, (int*, int*))                                                             \
  X(nvrtcCreateProgram,                                                                     \
    (NvrtcProgram*, const char*, const char*, int, const char* const*, const char* const*)) \
  X(nvrtcDestroyProgram, (NvrtcProgram*))                                                   \
  X(nvrtcCompileProgram, (NvrtcProgram, int, const char* const*))                           \
  X(nvrtcGetCUBINSize, (NvrtcProgram, size_t*))                                             \
  X(nvrtcGetCUBIN, (NvrtcProgram, char*))                                                   \
  X(nvrtcGetProgramLogSize, (NvrtcProgram, size_t*))                                        \
  X(nvrtcGetProgramLog, (NvrtcProgram, char*))

#define SENET_CUDNN(X)                                                               \
  X(cudnnCreate, (CudnnHandle*))                                                     \
  X(cudnnDestroy, (CudnnHandle))                                                     \
  X(cudnnSetStream, (CudnnHandle, Stream))                                           \
  X(cudnnBackendCreateDescriptor, (int, CudnnDescriptor*))                           \
  X(cudnnBackendDestroyDescriptor, (CudnnDescriptor))                                \
  X(cudnnBackendFinalize, (CudnnDescriptor))                                         \
  X(cudnnBackendSetAttribute, (CudnnDescriptor, int, int, int64_t, const void*))     \
  X(cudnnBackendGetAttribute, (CudnnDescriptor, int, int, int64_t, int64_t*, void*)) \
  X(cudnnBackendExecute, (CudnnHandle, CudnnDescriptor, CudnnDescriptor))

struct Driver {
#define SENET_DECLARE(function, parameters) int(*function) parameters = nullptr;
  SENET_CUDART(SENET_DECLARE)
  SENET_LIBCUDA(SENET_DECLARE)
  SENET_NVRTC(SENET_DECLARE)
  SENET_CUDNN(SENET_DECLARE)
#undef SENET_DECLARE
  const char* (*cudaGetErrorString)(int) = nullptr;
  const char* (*cudnnGetErrorString)(int) = nullptr;
  size_t (*cudnnGetVersion)() = nullptr;

  /// What is not there: "libnvrtc: cannot open shared object file", "cudnnBackendExecute of libcudnn"; empty
  /// if nothing is missing, and only then may a program be made.
  std::string missing;
  std::string
      missing_of_runtime;    // likewise of CUDA's runtime alone, with which nothing but kernels is lacking
  int nvrtc_version = 0;     // as 1000 x major + 10 x minor
  size_t cudnn_version = 0;  // as 10000 x major + 100 x minor + patch
};

/// Where the four libraries were found, or why not.
struct Library {
  void* handle = nullptr;  // of dlopen; a function is also found in what this library needs
  std::string error = {};
};
struct Libraries {
  Library cudart, cuda, nvrtc, cudnn;
};

/// The functions of these libraries; what they lack is in `missing`.
Driver find_functions(const Libraries& libraries);

/// Of the libraries of the LibTorch in `folder`, whose `libtorch_cuda` has this handle; loaded once for the
/// process, and never unloaded.
const Driver& driver_of(const std::string& folder, void* libtorch_cuda);

/// Throws ERR_SENET_CUDA with what the runtime says of `status`, unless it is 0. `what` says what was done:
/// "launch of a graph".
void check_cuda(const Driver& driver, int status, const char* what);
void check_cudnn(const Driver& driver, int status, const char* what);

}  // namespace senet::runtime::cuda
