// What the machine grants this process: processors and memory, by affinity and cgroup.
#pragma once

#include <cstddef>

namespace senet::runtime {

/// Processors granted by affinity and the cgroup's quota, at least 1; OMP_NUM_THREADS lowers it, as in
/// PyTorch.
int available_processors();

/// Bytes of memory granted by the cgroup, or the machine's.
size_t available_memory();

}  // namespace senet::runtime
