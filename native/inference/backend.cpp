#include "inference/backend.h"

#include "inference/aten/program.h"
#include "inference/cpu/program.h"

namespace senet::inference {

const std::vector<Backend>& backends() {
  static const std::vector<Backend> rows = {
      {serves_cpu_kernels, make_cpu_program},
      {[](const Target&) { return true; }, make_aten_program},
  };
  return rows;
}

}  // namespace senet::inference
