// What the machine grants this process: processors and memory, by affinity and cgroup.
#pragma once

#include <cstddef>

namespace senet::runtime {

/// Processors granted by affinity and the cgroup's quota, at least 1; OMP_NUM_THREADS lowers it, as in
/// PyTorch.
int available_processors();

/// Bytes of memory granted by the cgroup, or the machine's.
size_t available_memory();

/// Bytes of memory that could be taken now without taking any from others or ending the process, by the
/// kernel's own estimate; SIZE_MAX where it makes none. Reads files: not for every allocation.
size_t free_memory();

}  // namespace senet::runtime
