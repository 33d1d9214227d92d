// Intra-op thread counts, for every thread that calls LibTorch.
#pragma once

namespace senet::runtime {

/// Makes the calling thread run LibTorch's parallel regions with `count` threads. Cheap when nothing changes.
/// Throws ERR_SENET_THREADS if the system refuses them: OpenMP itself would end the process, so they are
/// asked for here first, and its team, which it keeps, is formed at once.
///
/// at::set_num_threads alone is not enough: it also stores a process-wide number that each thread reads again
/// at its first parallel region, so two fresh threads that ask for 1 and 2 would both get 2.
void use_threads(int count);

}  // namespace senet::runtime
