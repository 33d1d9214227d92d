#include "inference/cpu/kernels.h"

#include <string_view>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace senet::inference {

namespace {

bool has_avx_vnni() {
#if defined(__x86_64__)
  constexpr unsigned kAvxVnni = 1u << 4;  // leaf 7, subleaf 1, eax
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax & kAvxVnni) != 0;
#else
  return false;
#endif
}

// The table of a set whose float32 is another's.
Kernels with_bytes(const Kernels& base, const char* name, const ElementKernels* bytes) {
  Kernels result = base;
  result.name = name;
  result.bytes = bytes;
  return result;
}

}  // namespace

const Kernels* avx512_vnni_kernels() {
  static const Kernels* const kernels =
      avx512_kernels() == nullptr || avx512_vnni_bytes() == nullptr
          ? nullptr
          : new Kernels(with_bytes(*avx512_kernels(), "avx512_vnni", avx512_vnni_bytes()));
  return kernels;
}

const Kernels* avx2_vnni_kernels() {
  static const Kernels* const kernels =
      avx2_kernels() == nullptr || avx2_vnni_bytes() == nullptr
          ? nullptr
          : new Kernels(with_bytes(*avx2_kernels(), "avx2_vnni", avx2_vnni_bytes()));
  return kernels;
}

bool processor_has(const Kernels& kernels) {
  const std::string_view name = kernels.name;
  if (name == "scalar") {
    return true;
  }
#if defined(__x86_64__)
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (name == "avx2") {
    return has_avx2;
  }
  if (name == "avx2_vnni") {
    return has_avx2 && has_avx_vnni();
  }
  const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  return has_avx512 && (name == "avx512" || (name == "avx512_vnni" ? __builtin_cpu_supports("avx512vnni")
                                                                   : __builtin_cpu_supports("avx512bf16")));
#else
  return false;
#endif
}

const Kernels* processor_kernels(const char* name, Element element) {
  // The best first: with VNNI a vector of 256 bits does more products of bytes than one of 512 without.
  for (const Kernels* kernels : {avx512_vnni_kernels(), avx512_bf16_kernels(), avx2_vnni_kernels(),
                                 avx512_kernels(), avx2_kernels(), scalar_kernels()}) {
    if (kernels == nullptr || !processor_has(*kernels)) {
      continue;
    }
    const std::string_view has = kernels->name;
    const bool is_best = element == Element::kByte ? kernels->bytes != nullptr
                                                   : has == "avx512_bf16" || has == "avx512" || has == "avx2";
    if (name == nullptr ? is_best : has == name) {
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
