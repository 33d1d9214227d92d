#include "inference/cpu/kernels.h"

#include <string_view>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace senet::inference {

bool processor_has(const Kernels& kernels) {
#if defined(__x86_64__)
  const std::string_view name = kernels.name;
  if (name == "avx2") {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  }
  const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  return has_avx512 && (name == "avx512" || __builtin_cpu_supports("avx512bf16"));
#else
  (void)kernels;
  return false;
#endif
}

const Kernels* processor_kernels(const char* name) {
  for (const Kernels* kernels : {avx512_bf16_kernels(), avx512_kernels(), avx2_kernels()}) {
    const bool is_wanted = kernels != nullptr && (name == nullptr || std::string_view(kernels->name) == name);
    if (is_wanted && processor_has(*kernels)) {
      return kernels;
    }
  }
  return nullptr;
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
