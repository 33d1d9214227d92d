// The kernels of ours for CUDA: the text of kernels.cu compiled by NVRTC when a device first needs it, kept
// on disk for the next process, and a function to enqueue each. tasks.h says what they compute. Knows no
// LibTorch.
#pragma once

#include "inference/cuda/convolutions.h"
#include "inference/cuda/tasks.h"
#include "runtime/cuda_driver.h"

#include <cstdint>
#include <memory>
#include <string>

namespace senet::inference::cuda {

using namespace runtime::cuda;

/// The kernels of one element type on one device. Its functions enqueue and return; each may be captured, and
/// may be called by several threads. All throw ERR_SENET_CUDA.
class Kernels {
 public:
  virtual ~Kernels() = default;
  virtual void run(const Import&, Stream) const = 0;
  virtual void run(const Unpack&, Stream) const = 0;
  virtual void run(const Pointwise&, Stream) const = 0;
  virtual void run(const Mean&, Stream) const = 0;
  /// At most 4096 channels go in and 512 are hidden; a kernel along the channels has at most 1025 elements.
  virtual void run(const Excite&, Stream) const = 0;
  /// Whether there is a kernel for this: 16-bit elements, whole vectors of channels.
  virtual bool serves(const Conv1x1&) const = 0;
  /// Of what it serves; a block has `tile_rows` pixels, 64 or 128.
  virtual void run(const Conv1x1&, int tile_rows, Stream) const = 0;
  /// At most 12,000 channels go in.
  virtual void run(const Dense&, Stream) const = 0;
  virtual void run(const Pool&, Stream) const = 0;
  virtual void run(const Export&, Stream) const = 0;
  /// Copies channels: of what is concatenated.
  void copy(const Activation& from, const Activation& to, Stream stream) const {
    run(Pointwise{from, to}, stream);
  }
};

/// Into how many parts Mean should cut an image's pixels, so that `multiprocessors` are busy.
int64_t mean_parts(const Activation& x, int multiprocessors);

/// Of the current device, of capability `architecture` (90 for 9.0). Compiled ones are kept in the folder
/// `cache` (empty: nowhere), by a name of everything that they depend on; what is damaged there is compiled
/// anew. Throws ERR_SENET_CUDA with NVRTC's log. `driver` outlives the kernels.
std::unique_ptr<const Kernels> make_kernels(const Driver& driver, int architecture, Type type,
                                            const std::string& cache);

/// Of the kernels' text and of how they are launched, 16 digits: what was measured of others says nothing of
/// these.
std::string kernels_version();

/// The machine code of the kernels (what make_kernels loads): needs NVRTC, and no device.
std::string compile_kernels(const Driver& driver, int architecture, Type type, const std::string& cache);

/// What the assembler says of each kernel: its registers, what it spills, its shared memory. Likewise without
/// a device.
std::string report_kernels(const Driver& driver, int architecture, Type type);

}  // namespace senet::inference::cuda
