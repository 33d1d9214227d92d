// The CPU allocator under every LibTorch tensor of the process: caching, bounded, counted.
//
// LibTorch's own allocator maps, faults in and unmaps every large activation anew, which is the largest
// single cost of its CPU operators. This one keeps freed blocks in a BlockCache, and a thread of its own that
// tells that the time; it sleeps while nothing is cached.
#pragma once

#include "runtime/block_cache.h"

#include <c10/core/Allocator.h>

#include <cstddef>

namespace senet::runtime {

/// Installs the allocator once per process; later calls do nothing. Must run before any operator and is never
/// undone, since oneDNN frees its memory through whichever allocator is current. SENET_CACHING_ALLOCATOR=0
/// keeps it counting but switches the cache off.
void install_cpu_allocator();

/// Memory that is given back to the system when it is freed, and not kept for the next allocation: for what
/// is not needed again and again. Counted like all other. Throws ERR_SENET_OUT_OF_MEMORY.
c10::DataPtr allocate_uncached(size_t bytes);

BlockCache::Counts allocator_counts();

}  // namespace senet::runtime
