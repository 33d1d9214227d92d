#include "inference/kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace senet::inference {

const Kernels* processor_kernels() {
#if defined(__x86_64__)
  static const Kernels* const chosen = []() -> const Kernels* {
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
      return __builtin_cpu_supports("avx512bf16") ? avx512_bf16_kernels() : avx512_kernels();
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
      return avx2_kernels();
    }
    return nullptr;
  }();
  return chosen;
#else
  return nullptr;
#endif
}

bool processor_has_matrix_unit() {
#if defined(__x86_64__)
  constexpr unsigned kAmxBfloat16 = 1u << 22;  // leaf 7, edx
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (edx & kAmxBfloat16) != 0;
#else
  return false;
#endif
}

}  // namespace senet::inference
