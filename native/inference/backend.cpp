#include "inference/backend.h"

#include "inference/aten/program.h"
#include "inference/cpu/program.h"
#include "inference/cuda/program.h"

#include <algorithm>

namespace senet::inference {

const std::vector<Backend>& backends() {
  static const std::vector<Backend> rows = {
      {"cpu", serves_cpu_kernels, make_cpu_program},
      {"cuda", serves_cuda_kernels, make_cuda_program},
      {"aten", [](const Target&) { return true; }, make_aten_program},
  };
  return rows;
}

const Backend& find_backend(const Target& target) {
  return *std::find_if(backends().begin(), backends().end(),
                       [&](const Backend& row) { return row.serves(target); });
}

}  // namespace senet::inference
