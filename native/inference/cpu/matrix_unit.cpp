#include "inference/cpu/matrix_unit.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace senet::inference {
namespace {

// Bytes that a multiplication takes of each row of a tile at most, and at least if it is to be worth it.
constexpr int64_t kMostStep = 64;
constexpr int64_t kLeastStep = 16;
// It takes them by four.
constexpr int64_t kGroupBytes = 4;

// An errno, or 0.
int request_tiles() {
#if defined(__x86_64__) && defined(__linux__)
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0 ? 0 : errno;
#else
  return ENOSYS;
#endif
}

int64_t tile_count(int64_t windows) {
  return (windows + kTileRows - 1) / kTileRows;
}

}  // namespace

MatrixUnit find_matrix_unit(uint32_t features, int (*request)()) {
  constexpr uint32_t kBfloat16 = 1u << 22;
  constexpr uint32_t kTiles = 1u << 24;
  constexpr uint32_t kInt8 = 1u << 25;
  if ((features & kTiles) == 0) {
    return {};
  }
  if (const int error = request(); error != 0) {
    return {false, false,
            std::string("the system refuses its use (arch_prctl: ") + std::strerror(error) + ")"};
  }
  return {(features & kBfloat16) != 0, (features & kInt8) != 0, ""};
}

const MatrixUnit& matrix_unit() {
  // Never destroyed: compiling may go on when the process ends.
  static const auto* const unit = [] {
    unsigned features = 0;
#if defined(__x86_64__)
    unsigned eax = 0;
    unsigned ebx = 0;
    unsigned ecx = 0;
    __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &features);
#endif
    return new MatrixUnit(find_matrix_unit(features, request_tiles));
  }();
  return *unit;
}

TileRuns plan_tiles(const ConvTask& task, int64_t height, int64_t element_bytes) {
  // Whole steps: what would be read beyond a tap is another pixel's, and zero times NaN is NaN.
  const int64_t tap_bytes = task.tap_length * element_bytes;
  int64_t step = std::min(kMostStep, tap_bytes / kGroupBytes * kGroupBytes);
  while (step >= kLeastStep && tap_bytes % step != 0) {
    step -= kGroupBytes;
  }
  const Strides& strides = task.input_strides;
  if (step < kLeastStep || strides.column == 0) {
    return {};
  }
  TileRuns best;
  int64_t fewest = 0;
  const auto consider = [&](int64_t length, int64_t pitch, int64_t tiles) {
    if (length >= kTileRows && (fewest == 0 || tiles < fewest)) {
      best = {step, length, pitch};
      fewest = tiles;
    }
  };
  const int64_t pitch = strides.row / strides.column;
  if (strides.row % strides.column == 0 && pitch >= task.width) {
    const int64_t length = (height - 1) * pitch + task.width;
    consider(length, pitch, tile_count(length));
  }
  consider(task.width, 0, height * tile_count(task.width));
  return best;
}

}  // namespace senet::inference
