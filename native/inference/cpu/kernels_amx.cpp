// The matrix unit's kernels for processors with AMX (tiles, bfloat16, int8), which have AVX-512 with BF16
// and VNNI too. Compiled with those flags; see kernels.h. Nothing of it has run on such a processor yet: what
// ran is the same code over the emulation (kernels_amx_emulated.cpp).
#include "inference/cpu/kernels.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__) &&      \
    defined(__AVX512BF16__) && defined(__AVX512VNNI__) && defined(__AMX_TILE__) && defined(__AMX_BF16__) && \
    defined(__AMX_INT8__)
#include <immintrin.h>
#include <math.h>

#include <type_traits>

namespace senet::inference {
namespace {

#include "inference/cpu/kernels_avx512.h"
#include "inference/cpu/kernels_bytes.h"
#include "inference/cpu/kernels_tiles.h"
#include "inference/cpu/tile_unit.h"

constexpr UnitKernels kUnit = {tile_kernels<AmxTiles, Bfloat16Tiles<Avx512Bfloat16>>(),
                               tile_kernels<AmxTiles, ByteTiles<Avx512Vnni>>()};

}  // namespace

const UnitKernels* amx_unit() {
  return &kUnit;
}

}  // namespace senet::inference

#else

const senet::inference::UnitKernels* senet::inference::amx_unit() {
  return nullptr;
}

#endif
