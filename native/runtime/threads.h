// Intra-op thread counts, for every thread that calls LibTorch.
#pragma once

namespace senet::runtime {

/// Makes the calling thread run LibTorch's parallel regions with `count` threads. Cheap when nothing changes.
///
/// at::set_num_threads alone is not enough: it also stores a process-wide number that each thread reads again
/// at its first parallel region, so two fresh threads that ask for 1 and 2 would both get 2.
void use_threads(int count);

}  // namespace senet::runtime
