// The kernels of kernels_amx.cpp for any processor, over a matrix unit that is computed: for tests, which run
// the code of the tiles with them. Compiled without flags; see kernels.h.
#include "inference/cpu/kernels.h"

#include <math.h>

#include <type_traits>

namespace senet::inference {
namespace {

#include "inference/cpu/kernels_scalar.h"

#include "inference/cpu/kernels_bytes.h"
#include "inference/cpu/kernels_tiles.h"
#include "inference/cpu/tile_emulation.h"

// Panels are AMX's.
struct EmulatedFloat : ScalarFloat {
  static constexpr int kMaxVectors = 2;
};
struct EmulatedBfloat16 : ScalarBfloat16 {
  static constexpr int kMaxVectors = 2;
};

constexpr ElementKernels kFloat = float_kernels<EmulatedFloat>();
constexpr ElementKernels kBfloat16 =
    with_tiles<EmulatedTiles, Bfloat16Tiles<EmulatedBfloat16>>(element_kernels<EmulatedBfloat16>());
constexpr ElementKernels kBytes =
    with_tiles<EmulatedTiles, ByteTiles<EmulatedFloat>>(byte_kernels<EmulatedFloat>());
constexpr Kernels kKernels = {
    "amx_emulated", EmulatedFloat::kWidth,      EmulatedFloat::kMaxVectors, &kFloat, &kBfloat16,
    &kBytes,        multiply_add<EmulatedFloat>};

}  // namespace

const Kernels* amx_emulated_kernels() {
  return &kKernels;
}

}  // namespace senet::inference
