#include "inference/backend.h"

#include "inference/aten/program.h"
#include "inference/cpu/program.h"
#include "inference/cuda/program.h"

#include <algorithm>
#include <iterator>
#include <string>

namespace senet::inference {
namespace {

// In the order in which they are tried; the last serves every target. Nothing of it is destroyed, since
// compiling may go on when the process ends.
const Backend kBackends[] = {
    {serves_cpu_kernels, why_no_cpu_kernels, cpu_kernels_name, make_cpu_program},
    {serves_cuda_kernels, why_no_cuda_kernels, [](const Target&) { return kCudaKernelsName; },
     make_cuda_program},
    {[](const Target&) { return true; }, [](const Target&) { return std::string(); }, aten_kernels_name,
     make_aten_program},
};

}  // namespace

const Backend& find_backend(const Target& target) {
  return *std::find_if(std::begin(kBackends), std::end(kBackends),
                       [&](const Backend& row) { return row.serves(target); });
}

const char* kernels_name(const Target& target) {
  // int8 is the CPU's own, with a calibration in place of a target.
  return target.dtype == at::kChar && target.device.is_cpu() ? byte_kernels().name
                                                             : find_backend(target).kernels(target);
}

std::string why_no_faster_backend(const Target& target) {
  for (const Backend& row : kBackends) {
    if (const std::string reason = row.why_not(target); row.serves(target) || !reason.empty()) {
      return reason;
    }
  }
  return "";
}

}  // namespace senet::inference
