// The steps of a CUDA program made ready for one number and size of images: the place of every value in one
// piece of memory, cuDNN's fastest plan for every convolution, and the whole as a CUDA graph. Knows no
// LibTorch: memory, and steps that have no kernel, come from a Host.
#pragma once

#include "inference/cuda/convolutions.h"
#include "inference/cuda/disk_cache.h"
#include "inference/cuda/kernels.h"
#include "inference/cuda/steps.h"

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace senet::inference::cuda {

/// What sequences leave to whoever owns the device's memory.
class Host {
 public:
  virtual ~Host() = default;
  /// Memory of the device, aligned to 256 bytes, until the pointer goes. Throws ERR_SENET_OUT_OF_MEMORY.
  virtual std::shared_ptr<void> allocate(int64_t bytes) const = 0;
  /// Enqueues a step that no kernel serves on the default stream.
  virtual void operate(const Step& step, const std::vector<Activation>& inputs,
                       const Activation& output) const = 0;
};

/// More plans than this are not worth their time: cuDNN names those first that it takes for the fastest.
inline constexpr int kMostMeasuredPlans = 24;

/// What all sequences of a program share; outlives them.
struct Machine {
  const Driver& driver;
  const Kernels& kernels;
  int device;
  int multiprocessors;
  Type type;
  bool allow_tf32;
  CudnnHandle handle;                        // runs; of one thread at a time:
  std::mutex& handle_mutex;                  // who holds this
  const std::vector<CudnnHandle>& planners;  // of all programs of the device: make plans, a thread each
  const DiskCache& cache;                    // of plans
  int measured_plans;                        // for each convolution, at most
};

/// How images lie in the host's memory, packed.
struct HostImages {
  bool is_bytes;     // uint8, which the device normalises as Unpack says; else float32
  bool is_planar;    // [n, channels, height, width], else [n, height, width, channels]
  int64_t channels;  // the network's, or 1 that all of them are
  std::array<float, 4> mean = {}, deviation = {};  // of bytes, for each channel of the network

  bool operator==(const HostImages&) const = default;
};

/// What computes each step.
struct Choices;

/// Where a sequence runs, and what it takes of others.
struct Setup {
  Stream stream = nullptr;             // the default one: LibTorch's
  const HostImages* images = nullptr;  // reads its images from the host and leaves its results there
  std::shared_ptr<const Choices> known = nullptr;  // of another sequence of the same number and size
};

class Sequence {
 public:
  virtual ~Sequence() = default;

  /// Where run() reads the images and leaves its results, unless it has host memory.
  virtual Activation input() const = 0;
  virtual Activation output() const = 0;

  /// Memory of the host that run() reads images from, and leaves results in (float32, [n, channels, height,
  /// width]); null without Setup::images. They may be touched while nothing runs.
  virtual void* host_input() const = 0;
  virtual const float* host_output() const = 0;

  /// Enqueues all steps on stream(). One thread at a time.
  virtual void run() const = 0;

  /// That of the set-up; but the default stream where a step is LibTorch's.
  virtual Stream stream() const = 0;

  virtual std::shared_ptr<const Choices> choices() const = 0;

  /// As run(), step by step, waiting for each; their seconds.
  virtual std::vector<double> profile() const = 0;

  /// What computes a step: "cudnn whole 67 k2=3", "ours", "libtorch".
  virtual std::string kernel_of(size_t step) const = 0;

  /// Whether run() is one launch: no step is LibTorch's.
  virtual bool is_graph() const = 0;

  /// Of the device: activations and what convolutions need beside them.
  virtual int64_t bytes() const = 0;
};

/// For `n` images; `sizes` are the heights and widths of the plan's values. Takes seconds the first time that
/// a machine sees these convolutions. Throws ERR_SENET_CUDA, ERR_SENET_OUT_OF_MEMORY.
std::unique_ptr<const Sequence> make_sequence(const Machine& machine, const Host& host, const Steps& steps,
                                              const std::vector<Pair>& sizes, int64_t n,
                                              const Setup& setup = {});

}  // namespace senet::inference::cuda
