#include "inference/cpu/kernel_sets.h"

#include "inference/cpu/matrix_unit.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace senet::inference {
namespace {

bool always() {
  return true;
}

#if defined(__x86_64__)
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

bool has_avx2_vnni() {
  constexpr unsigned kAvxVnni = 1u << 4;  // leaf 7, subleaf 1, eax
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  return has_avx2() && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax & kAvxVnni) != 0;
}

bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

bool has_avx512_vnni() {
  return has_avx512() && __builtin_cpu_supports("avx512vnni");
}

bool has_avx512_bf16() {
  return has_avx512() && __builtin_cpu_supports("avx512bf16");
}

bool has_amx_bf16() {
  return has_avx512_bf16() && matrix_unit().has_bfloat16;
}

bool has_amx_int8() {
  return has_avx512_vnni() && matrix_unit().has_int8;
}
#endif

// What a set has for one type of elements: nothing, vectors' kernels, or a matrix unit's beside them. What is
// wanted and null, the compiler had no instructions for.
struct Elements {
  bool is_wanted = false;
  const ElementKernels* vectors = nullptr;
  bool has_unit = false;
  const TileKernels* tiles = nullptr;

  bool is_compiled() const {
    return !is_wanted || (vectors != nullptr && (!has_unit || tiles != nullptr));
  }
};

constexpr Elements kNone;

Elements by_vectors(const ElementKernels* vectors) {
  return {true, vectors};
}

Elements by_unit(const ElementKernels* vectors, const TileKernels* tiles) {
  return {true, vectors, true, tiles};
}

// Whether a set is taken for elements that it has kernels for, if nobody asks for it by name.
enum class Choice { kNever, kOfNarrow /* bfloat16 and bytes */, kOfAll };

// A step of a unit's products takes two tiles of weights: panels of two vectors, so that these lie in one
// piece.
constexpr int32_t kUnitVectors = 2;

struct Row {
  const char* name;
  bool (*processor_has)();
  const VectorKernels* vectors;  // whose float32 it has
  Elements bfloat16;
  Elements bytes;
  Choice choice;
};

// The best first: with VNNI a vector of 256 bits does more products of bytes than one of 512 without.
std::vector<Row> rows() {
  std::vector<Row> all;
  const auto bytes_of = [](const VectorKernels* vectors) {
    return by_vectors(vectors == nullptr ? nullptr : &vectors->bytes);
  };
#if defined(__x86_64__)
  const UnitKernels* const amx = amx_unit();
  const VectorKernels* const avx512 = avx512_vectors();
  const VectorKernels* const avx2 = avx2_vectors();
  all = {
      {"amx_int8", has_amx_int8, avx512, kNone,
       by_unit(avx512_vnni_bytes(), amx == nullptr ? nullptr : &amx->bytes), Choice::kOfNarrow},
      {"amx_bf16", has_amx_bf16, avx512,
       by_unit(avx512_bfloat16(), amx == nullptr ? nullptr : &amx->bfloat16), kNone, Choice::kOfNarrow},
      {"avx512_vnni", has_avx512_vnni, avx512, kNone, by_vectors(avx512_vnni_bytes()), Choice::kOfNarrow},
      {"avx512_bf16", has_avx512_bf16, avx512, by_vectors(avx512_bfloat16()), kNone, Choice::kOfAll},
      {"avx2_vnni", has_avx2_vnni, avx2, kNone, by_vectors(avx2_vnni_bytes()), Choice::kOfNarrow},
      {"avx512", has_avx512, avx512, kNone, bytes_of(avx512), Choice::kOfAll},
      {"avx2", has_avx2, avx2, kNone, bytes_of(avx2), Choice::kOfAll},
  };
#endif
  const VectorKernels* const scalar = scalar_vectors();
  all.push_back({"scalar", always, scalar, kNone, bytes_of(scalar), Choice::kOfNarrow});
  all.push_back({"amx_emulated", always, scalar, by_unit(scalar_bfloat16(), &emulated_unit()->bfloat16),
                 by_unit(&scalar->bytes, &emulated_unit()->bytes), Choice::kNever});
  return all;
}

struct Set {
  Kernels kernels;
  Choice choice;
};

// A table for these elements; of a unit, one for the life of the process.
const ElementKernels* made(const Elements& part) {
  if (!part.has_unit) {
    return part.vectors;
  }
  auto* const with_unit = new ElementKernels(*part.vectors);
  with_unit->tiles = part.tiles;
  return with_unit;
}

std::vector<Set> make_sets() {
  std::vector<Set> sets;
  for (const Row& row : rows()) {
    if (row.vectors == nullptr || !row.bfloat16.is_compiled() || !row.bytes.is_compiled()) {
      continue;
    }
    const bool has_unit = row.bfloat16.has_unit || row.bytes.has_unit;
    sets.push_back({{row.name, row.processor_has, row.vectors->vector_channels,
                     has_unit ? kUnitVectors : row.vectors->max_vectors, &row.vectors->float32,
                     made(row.bfloat16), made(row.bytes), row.vectors->multiply_add},
                    row.choice});
  }
  return sets;
}

// Those that the compiler had the instructions for. Never destroyed: programs may still run when the process
// ends.
const std::vector<Set>& sets() {
  static const auto* const all = new std::vector<Set>(make_sets());
  return *all;
}

}  // namespace

const Kernels* find_kernels(std::string_view name) {
  const auto found =
      std::find_if(sets().begin(), sets().end(), [&](const Set& set) { return set.kernels.name == name; });
  return found == sets().end() ? nullptr : &found->kernels;
}

const Kernels* processor_kernels(std::string_view name) {
  const Kernels* const kernels = find_kernels(name);
  return kernels != nullptr && kernels->processor_has() ? kernels : nullptr;
}

const Kernels* best_kernels(Element element) {
  const Choice least = element == Element::kFloat ? Choice::kOfAll : Choice::kOfNarrow;
  const auto found = std::find_if(sets().begin(), sets().end(), [&](const Set& set) {
    return set.choice >= least && set.kernels.of(element) != nullptr && set.kernels.processor_has();
  });
  return found == sets().end() ? nullptr : &found->kernels;
}

std::string kernels_names() {
  std::string names;
  for (const Row& row : rows()) {
    names += (names.empty() ? "" : ", ") + std::string(row.name);
  }
  return names;
}

}  // namespace senet::inference
