// AMX, the unit of recent Intel processors that multiplies tiles of matrices: whether there is one that may
// be used, and which convolutions suit it. The kernels for it are kernels_tiles.h's.
#pragma once

#include "inference/cpu/kernels.h"

#include <cstdint>
#include <string>

namespace senet::inference {

/// What a processor and its system have of AMX.
struct MatrixUnit {
  bool has_bfloat16 = false;
  bool has_int8 = false;
  std::string refusal = {};  // why the system lets nobody use the unit that is there; empty if it does
};

/// This machine's. The first call asks Linux for the permission to use tiles, for the whole process.
const MatrixUnit& matrix_unit();
/// Of the features in edx of cpuid's leaf 7, and of what `request` gives, which is called if there are tiles:
/// an errno, 0 if they may be used.
MatrixUnit find_matrix_unit(uint32_t features, int (*request)());

/// How the unit walks the windows of a task's layer, whose output has `height` rows of ConvTask::width, and
/// whose input has elements of so many bytes. Depends on nothing but the layer, so that a pixel's numbers do
/// not depend on which others are computed with it. `step_bytes` 0: the layer is one for vectors.
TileRuns plan_tiles(const ConvTask& task, int64_t height, int64_t element_bytes);

}  // namespace senet::inference
