#include "inference/cpu/kernels.h"

#include "inference/cpu/matrix_unit.h"

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

// The table of a set that has tiles. A step of their products takes two tiles of weights: panels of two
// vectors, so that these lie in one piece.
Kernels with_tiles(const Kernels& base, const char* name, const ElementKernels* bfloat16,
                   const ElementKernels* bytes) {
  Kernels result = with_bytes(base, name, bytes);
  result.bfloat16 = bfloat16;
  result.max_vectors = 2;
  return result;
}

}  // namespace

const Kernels* amx_bf16_kernels() {
  static const Kernels* const kernels =
      avx512_bf16_kernels() == nullptr || amx_bfloat16() == nullptr
          ? nullptr
          : new Kernels(with_tiles(*avx512_bf16_kernels(), "amx_bf16", amx_bfloat16(), nullptr));
  return kernels;
}

const Kernels* amx_int8_kernels() {
  static const Kernels* const kernels =
      avx512_kernels() == nullptr || amx_bytes() == nullptr
          ? nullptr
          : new Kernels(with_tiles(*avx512_kernels(), "amx_int8", nullptr, amx_bytes()));
  return kernels;
}

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
  if (name == "scalar" || name == "amx_emulated") {
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
  const bool has_bfloat16 = has_avx512 && __builtin_cpu_supports("avx512bf16");
  const bool has_vnni = has_avx512 && __builtin_cpu_supports("avx512vnni");
  if (name == "amx_bf16") {
    return has_bfloat16 && matrix_unit().has_bfloat16;
  }
  if (name == "amx_int8") {
    return has_vnni && matrix_unit().has_int8;
  }
  return name == "avx512_bf16" ? has_bfloat16 : name == "avx512_vnni" ? has_vnni : has_avx512;
#else
  return false;
#endif
}

const Kernels* processor_kernels(const char* name, Element element) {
  // The best first: with VNNI a vector of 256 bits does more products of bytes than one of 512 without.
  for (const Kernels* kernels :
       {amx_int8_kernels(), amx_bf16_kernels(), avx512_vnni_kernels(), avx512_bf16_kernels(),
        avx2_vnni_kernels(), avx512_kernels(), avx2_kernels(), scalar_kernels(), amx_emulated_kernels()}) {
    if (kernels == nullptr || !processor_has(*kernels)) {
      continue;
    }
    const std::string_view has = kernels->name;
    const bool is_best = element == Element::kFloat
                             ? has == "avx512_bf16" || has == "avx512" || has == "avx2"
                             : kernels->of(element) != nullptr && has != "amx_emulated";
    if (name == nullptr ? is_best : has == name) {
      return kernels;
    }
  }
  return nullptr;
}

}  // namespace senet::inference
