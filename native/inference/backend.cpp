#include "inference/backend.h"

#include "inference/aten/program.h"
#include "inference/cpu/program.h"
#include "inference/cuda/program.h"

#include <algorithm>
#include <vector>

namespace senet::inference {

namespace {

// In the order in which they are tried; the last serves every target.
const std::vector<Backend>& backends() {
  static const std::vector<Backend> rows = {
      {serves_cpu_kernels, why_no_cpu_kernels, cpu_kernels_name, make_cpu_program},
      {serves_cuda_kernels, why_no_cuda_kernels, [](const Target&) { return kCudaKernelsName; },
       make_cuda_program},
      {[](const Target&) { return true; }, [](const Target&) { return std::string(); }, aten_kernels_name,
       make_aten_program},
  };
  return rows;
}

}  // namespace

const Backend& find_backend(const Target& target) {
  return *std::find_if(backends().begin(), backends().end(),
                       [&](const Backend& row) { return row.serves(target); });
}

const char* kernels_name(const Target& target) {
  // int8 is the CPU's own, with a calibration in place of a target.
  return target.dtype == at::kChar && target.device.is_cpu() ? byte_kernels().name
                                                             : find_backend(target).kernels(target);
}

std::string why_no_faster_backend(const Target& target) {
  for (const Backend& row : backends()) {
    if (const std::string reason = row.why_not(target); row.serves(target) || !reason.empty()) {
      return reason;
    }
  }
  return "";
}

}  // namespace senet::inference
