#include "runtime/threads.h"

#include <ATen/Parallel.h>

namespace senet::runtime {

void use_threads(int count) {
  thread_local int current = 0;
  if (current == count) {
    return;
  }
  at::internal::lazy_init_num_threads();
  at::get_num_threads();
  at::set_num_threads(count);
  current = count;
}

}  // namespace senet::runtime
