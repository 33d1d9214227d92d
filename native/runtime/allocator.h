// The CPU allocator under every LibTorch tensor of the process: bounded, caching, counted.
//
// LibTorch's own allocator maps, faults in and unmaps every large activation anew, which is the largest
// single cost of its CPU operators. This one keeps freed blocks by size class, up to a limit, and gives them
// back when the executor has been idle for a while.
#pragma once

#include <c10/core/Allocator.h>

#include <cstddef>

namespace senet::runtime {

struct AllocatorCounts {
  size_t live_bytes;    // requested by tensors that are alive
  size_t cached_bytes;  // kept for the next allocation
};

/// Installs the allocator once per process; later calls do nothing. Must run before any operator and is never
/// undone, since oneDNN frees its memory through whichever allocator is current. SENET_CACHING_ALLOCATOR=0
/// keeps it counting but switches the cache off.
void install_cpu_allocator();

/// Memory that is given back to the system when it is freed, and not kept for the next allocation: for what
/// is not needed again and again. Counted like all other. Throws ERR_SENET_OUT_OF_MEMORY.
c10::DataPtr allocate_uncached(size_t bytes);

AllocatorCounts allocator_counts();

/// Gives every cached block back to the system.
void trim_cpu_allocator();

}  // namespace senet::runtime
