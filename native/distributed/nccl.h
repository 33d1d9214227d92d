// NVIDIA's NCCL as one table of functions, looked up at run time in the library that LibTorch's CUDA library
// brought. The declarations are ours; the numbers are NVIDIA's (nccl.h of 2.18 and later). Knows no LibTorch.
#pragma once

#include "runtime/cuda_driver.h"

#include <climits>
#include <cstddef>
#include <cstdint>
#include <string>

namespace senet::distributed {

using Communicator = struct NcclCommunicatorOpaque*;  // ncclComm_t

/// ncclUniqueId: what all ranks of a communicator are told by the first.
struct NcclId {
  char bytes[128] = {};
};

// ncclResult_t
inline constexpr int kNcclSuccess = 0;
inline constexpr int kNcclInProgress = 7;  // of a communicator that does not block

// ncclDataType_t
inline constexpr int kNcclInt8 = 0;
inline constexpr int kNcclUint8 = 1;
inline constexpr int kNcclInt32 = 2;
inline constexpr int kNcclInt64 = 4;
inline constexpr int kNcclFloat16 = 6;
inline constexpr int kNcclFloat32 = 7;
inline constexpr int kNcclFloat64 = 8;
inline constexpr int kNcclBfloat16 = 9;

// ncclRedOp_t
inline constexpr int kNcclSum = 0;
inline constexpr int kNcclProd = 1;
inline constexpr int kNcclMax = 2;
inline constexpr int kNcclMin = 3;
inline constexpr int kNcclAvg = 4;

/// The first that lays out NcclConfig so; later ones read what is here and take their defaults for the rest.
inline constexpr int kOldestNccl = 21800;

/// ncclConfig_t: a communicator whose calls return at once.
struct NcclConfig {
  size_t size = sizeof(NcclConfig);
  unsigned magic = 0xcafebeef;
  unsigned version = kOldestNccl;
  int blocking = 0;
  int cluster_size = INT_MIN;  // left to NCCL, and so are all below
  int fewest_blocks = INT_MIN;
  int most_blocks = INT_MIN;
  const char* network = nullptr;
  int shares_when_split = INT_MIN;
};

// X(function, parameters): all return ncclResult_t.
#define SENET_NCCL(X)                                                                           \
  X(ncclGetVersion, (int*))                                                                     \
  X(ncclGetUniqueId, (NcclId*))                                                                 \
  X(ncclCommInitRankConfig, (Communicator*, int, NcclId, int, NcclConfig*))                     \
  X(ncclCommGetAsyncError, (Communicator, int*))                                                \
  X(ncclCommFinalize, (Communicator))                                                           \
  X(ncclCommDestroy, (Communicator))                                                            \
  X(ncclCommAbort, (Communicator))                                                              \
  X(ncclAllReduce, (const void*, void*, size_t, int, int, Communicator, runtime::cuda::Stream)) \
  X(ncclBroadcast, (const void*, void*, size_t, int, int, Communicator, runtime::cuda::Stream)) \
  X(ncclAllGather, (const void*, void*, size_t, int, Communicator, runtime::cuda::Stream))

struct Nccl {
#define SENET_DECLARE(function, parameters) int(*function) parameters = nullptr;
  SENET_NCCL(SENET_DECLARE)
#undef SENET_DECLARE
  const char* (*ncclGetErrorString)(int) = nullptr;
  const char* (*ncclGetLastError)(Communicator) = nullptr;

  int version = 0;      // as 10000 x major + 100 x minor + patch; 0: unknown
  std::string missing;  // what is not there, or too old; empty if it can be used
};

/// Of the library with this handle of dlopen, or of what that needs; null: there is none.
Nccl find_nccl(void* library);

/// Of the LibTorch that is loaded; looked up once.
const Nccl& nccl_of_libtorch();

}  // namespace senet::distributed
