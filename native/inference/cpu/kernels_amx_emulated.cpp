// The kernels of kernels_amx.cpp for any processor, over a matrix unit that is computed, and bfloat16 beside
// them: for tests, which run the code of the tiles with them. Compiled without flags; see kernels.h.
#include "inference/cpu/kernels.h"

#include <math.h>

#include <type_traits>

namespace senet::inference {
namespace {

#include "inference/cpu/kernels_scalar.h"

#include "inference/cpu/kernels_bytes.h"
#include "inference/cpu/kernels_tiles.h"
#include "inference/cpu/tile_emulation.h"

constexpr ElementKernels kBfloat16 = element_kernels<ScalarBfloat16>();
constexpr UnitKernels kUnit = {tile_kernels<EmulatedTiles, Bfloat16Tiles<ScalarBfloat16>>(),
                               tile_kernels<EmulatedTiles, ByteTiles<ScalarFloat>>()};

}  // namespace

const ElementKernels* scalar_bfloat16() {
  return &kBfloat16;
}

const UnitKernels* emulated_unit() {
  return &kUnit;
}

}  // namespace senet::inference
