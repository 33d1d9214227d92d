#include "inference/backend.h"

#include "inference/aten/program.h"
#include "inference/cpu/program.h"
#include "inference/cuda/program.h"

#include <algorithm>

namespace senet::inference {

const std::vector<Backend>& backends() {
  static const std::vector<Backend> rows = {
      {"cpu", serves_cpu_kernels, why_no_cpu_kernels, cpu_kernels_name, make_cpu_program},
      {"cuda", serves_cuda_kernels, why_no_cuda_kernels, [](const Target&) { return kCudaKernelsName; },
       make_cuda_program},
      {"aten", [](const Target&) { return true; }, [](const Target&) { return std::string(); },
       aten_kernels_name, make_aten_program},
  };
  return rows;
}

const Backend& find_backend(const Target& target) {
  return *std::find_if(backends().begin(), backends().end(),
                       [&](const Backend& row) { return row.serves(target); });
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
