#include "inference/cuda/program.h"

#include "core/error.h"
#include "inference/cuda/lower.h"
#include "inference/cuda/sequence.h"
#include "runtime/cache_folder.h"
#include "runtime/cuda_library.h"
#include "runtime/machine.h"

#include <ATen/ops/_convolution.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/DeviceGuard.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <list>
#include <map>
#include <mutex>
#include <string_view>
#include <utility>

namespace senet::inference {
namespace cuda {
namespace {

// Images of one run of a sequence; a larger batch is several. Between two of these a batch is padded up.
constexpr std::array<int64_t, 17> kCounts = {1,  2,  3,  4,  6,   8,   12,  16, 24,
                                             32, 48, 64, 96, 128, 160, 192, 256};
// Sequences that a program keeps, and what they may hold of the device; the last one is always kept.
constexpr size_t kSequences = 16;
constexpr int64_t kSequenceBytes = int64_t{6} << 30;
// cuDNN's handles, each of a thread that makes plans.
constexpr int kMostPlanners = 16;

// Of the CUDA runtime (cudaDeviceAttr).
constexpr int kMultiprocessors = 16;
constexpr int kMajor = 75;
constexpr int kMinor = 76;
// The least that our kernels are written for: bfloat16 and NaN's own maximum.
constexpr int kLeastArchitecture = 80;

// SENET_CUDA_PLANS says how many of cuDNN's plans for a convolution are measured at most: with 1 none is, and
// its first choice is taken.
int measured_plans() {
  const char* const wish = std::getenv("SENET_CUDA_PLANS");
  return wish == nullptr ? kMostMeasuredPlans : std::clamp(std::atoi(wish), 1, kMostMeasuredPlans);
}

Type type_of(at::ScalarType dtype) {
  return dtype == at::kHalf ? Type::kHalf : dtype == at::kBFloat16 ? Type::kBFloat16 : Type::kFloat;
}

// Makes a device and its context this thread's as long as it lives: LibTorch's own guard leaves a thread
// without a context where the device is the first, and our kernels need one.
class CurrentDevice {
 public:
  CurrentDevice(const Driver& driver, int device)
      : guard_(at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(device))) {
    check_cuda(driver, driver.cudaSetDevice(device), "the choice of a device");
  }

 private:
  const c10::OptionalDeviceGuard guard_;
};

// What is made once for a device and an element type, and kept: kernels, cuDNN's handles, plans.
struct DeviceState {
  std::string why_not;  // no program can be made; empty: none of the rest is null
  const Driver* driver = nullptr;
  std::unique_ptr<const Kernels> kernels;
  std::vector<CudnnHandle> planners;
  std::unique_ptr<const DiskCache> plans;
  int multiprocessors = 0;
};

DeviceState make_state(int device, Type type) {
  DeviceState state;
  const std::string library = runtime::libtorch_folder();
  state.driver = &driver_of(library, runtime::cuda_library_handle());
  const Driver& driver = *state.driver;
  if (!driver.missing.empty()) {
    state.why_not = "missing: " + driver.missing;
    return state;
  }
  const CurrentDevice current(driver, device);
  const auto attribute = [&](int which) {
    int value = 0;
    check_cuda(driver, driver.cudaDeviceGetAttribute(&value, which, device), "a device's attribute");
    return value;
  };
  const int architecture = 10 * attribute(kMajor) + attribute(kMinor);
  if (architecture < kLeastArchitecture) {
    state.why_not = "the device's capability is " + std::to_string(architecture / 10) + '.' +
                    std::to_string(architecture % 10) + ", our kernels need 8.0";
    return state;
  }
  state.multiprocessors = attribute(kMultiprocessors);
  const std::string cache = runtime::cache_folder("cuda");
  state.kernels = make_kernels(driver, architecture, type, cache);
  state.planners.resize(static_cast<size_t>(std::min(runtime::available_processors(), kMostPlanners)));
  for (CudnnHandle& handle : state.planners) {
    check_cudnn(driver, driver.cudnnCreate(&handle), "cudnnCreate");
  }
  state.plans =
      std::make_unique<const DiskCache>(cache.empty() ? ""
                                                      : cache + "/plans-sm" + std::to_string(architecture) +
                                                            '-' + std::to_string(state.multiprocessors) +
                                                            "-cudnn" + std::to_string(driver.cudnn_version));
  return state;
}

// Kept for ever: kernels and plans outlive LibTorch's statics at exit.
const DeviceState& state_of(int device, Type type) {
  static std::mutex mutex;
  static auto* const states = new std::map<std::pair<int, Type>, DeviceState>;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto known = states->find({device, type});
  if (known != states->end()) {
    return known->second;
  }
  DeviceState state;
  try {
    state = make_state(device, type);
  } catch (const Error& error) {
    state.why_not = error.what();
  }
  return states->emplace(std::make_pair(device, type), std::move(state)).first->second;
}

class CudaProgram : public Program, private Host {
 public:
  CudaProgram(const Plan& plan, const Target& target, const DeviceState& state)
      : plan_(without_tensors(plan)),
        device_(target.device),
        type_(type_of(target.dtype)),
        lowered_(lower(plan, type_, target.device)),
        planners_(state.planners),
        machine_{*state.driver, *state.kernels,    target.device.index(), state.multiprocessors,
                 type_,         target.allow_tf32, make_handle(state),    planners_,
                 *state.plans,  measured_plans()} {}

  ~CudaProgram() override {
    const c10::OptionalDeviceGuard guard(device_);
    sequences_.clear();
    machine_.driver.cudnnDestroy(machine_.handle);
  }

  at::Tensor run(const at::Tensor& input, StepSeconds* seconds) const override {
    const Size2 size = {input.size(2), input.size(3)};
    const std::vector<Size2> sizes = infer_sizes(plan_, size);
    const CurrentDevice current(machine_.driver, machine_.device);
    const int64_t count = input.size(0);
    const int64_t channels = plan_.channels(plan_.output);
    const Size2 last = sizes[static_cast<size_t>(plan_.output)];
    at::Tensor output = plan_.value(plan_.output).is_vector
                            ? at::empty({count, channels}, input.options())
                            : at::empty({count, channels, last[0], last[1]}, input.options());
    const int64_t most = kCounts.back();
    const std::lock_guard<std::mutex> lock(mutex_);
    for (int64_t first = 0; first < count; first += most) {
      const int64_t images = std::min(most, count - first);
      const Sequence& sequence = find_sequence(sizes, size, images);
      write_images(input.narrow(0, first, images), sequence);
      if (seconds == nullptr) {
        sequence.run();
      } else {
        add(sequence.profile(), seconds);
      }
      read_results(sequence, output.narrow(0, first, images));
    }
    return output;
  }

  std::vector<StepInfo> explain(Size2 size) const override {
    const std::vector<Size2> sizes = infer_sizes(plan_, size);
    const Steps& steps = lowered_.steps;
    const auto shape = [&](Id id) {
      const Value& value = steps.value(id);
      const Size2 of = value.size_of == kNone ? Size2{1, 1} : sizes[static_cast<size_t>(value.size_of)];
      return std::vector<int64_t>{value.channels, of[0], of[1]};
    };
    const auto bytes = [&](Id id) {
      const std::vector<int64_t> of = shape(id);
      return of[0] * of[1] * of[2] * bytes_of(type_);
    };
    const std::lock_guard<std::mutex> lock(kernels_mutex_);
    const auto known = kernels_.find(size);
    std::vector<StepInfo> result;
    for (size_t i = 0; i < steps.steps.size(); ++i) {
      const Step& step = steps.steps[i];
      StepInfo info{step.name, operation_name(step)};
      info.input = shape(step.inputs.front());
      info.output = shape(step.output);
      info.activation_bytes = bytes(step.output);
      for (const Id input : step.inputs) {
        info.activation_bytes += bytes(input);
      }
      info.fused = extras_of(steps, step);
      info.activation_bytes += step.residual == kNone ? 0 : bytes(step.residual);
      info.weight_bytes = step.weight_bytes;
      if (step.kind == Step::Kind::kConvolution) {
        info.multiply_adds = info.output[0] * info.output[1] * info.output[2] * info.input[0] / step.groups *
                             step.kernel[0] * step.kernel[1];
      }
      if (known != kernels_.end()) {
        info.kernel = known->second[i];
      }
      result.push_back(std::move(info));
    }
    return result;
  }

  int64_t weight_bytes() const override {
    int64_t bytes = 0;
    for (const Step& step : lowered_.steps.steps) {
      bytes += step.weight_bytes;
    }
    return bytes;
  }

  const char* backend() const override {
    return "cuda-fused";
  }

 private:
  struct Known {
    Size2 size;
    int64_t count;
    std::unique_ptr<const Sequence> sequence;
  };

  static CudnnHandle make_handle(const DeviceState& state) {
    CudnnHandle handle = nullptr;
    check_cudnn(*state.driver, state.driver->cudnnCreate(&handle), "cudnnCreate");
    return handle;
  }

  // For at least `images`; with mutex_ held.
  const Sequence& find_sequence(const std::vector<Size2>& sizes, Size2 size, int64_t images) const {
    const int64_t count = *std::lower_bound(kCounts.begin(), kCounts.end(), images);
    for (auto it = sequences_.begin(); it != sequences_.end(); ++it) {
      if (it->size == size && it->count == count) {
        sequences_.splice(sequences_.begin(), sequences_, it);
        return *it->sequence;
      }
    }
    sequences_.push_front({size, count, make_sequence(machine_, *this, lowered_.steps, sizes, count)});
    int64_t bytes = 0;
    size_t kept = 0;
    for (auto it = sequences_.begin(); it != sequences_.end(); ++kept) {
      bytes += it->sequence->bytes();
      const bool is_over = kept > 0 && (kept >= kSequences || bytes > kSequenceBytes);
      it = is_over ? sequences_.erase(it) : std::next(it);
    }
    note_kernels();
    return *sequences_.front().sequence;
  }

  // explain() must not wait for a sequence that is being made.
  void note_kernels() const {
    std::map<Size2, std::vector<std::string>> kernels;
    for (const Known& known : sequences_) {
      std::vector<std::string>& of_size = kernels[known.size];
      for (size_t i = 0; of_size.size() < lowered_.steps.steps.size(); ++i) {
        of_size.push_back(known.sequence->kernel_of(i));
      }
    }
    const std::lock_guard<std::mutex> lock(kernels_mutex_);
    kernels_ = std::move(kernels);
  }

  void write_images(const at::Tensor& images, const Sequence& sequence) const {
    Import import{images.const_data_ptr<float>(), {}, images.size(1), sequence.input()};
    std::copy(images.strides().begin(), images.strides().end(), import.strides.begin());
    import.to.n = images.size(0);
    import.to.channels = import.to.pitch;
    machine_.kernels.run(import, kDefaultStream);
  }

  void read_results(const Sequence& sequence, const at::Tensor& results) const {
    Export read{sequence.output(), results.size(1), results.mutable_data_ptr<float>()};
    read.from.n = results.size(0);
    machine_.kernels.run(read, kDefaultStream);
  }

  static void add(const std::vector<double>& times, StepSeconds* seconds) {
    seconds->resize(times.size(), 0.0);
    for (size_t i = 0; i < times.size(); ++i) {
      (*seconds)[i] += times[i];
    }
  }

  // --- Host
  // -------------------------------------------------------------------------------------------------

  std::shared_ptr<void> allocate(int64_t bytes) const override {
    auto memory =
        std::make_shared<at::Tensor>(at::empty({bytes}, at::TensorOptions(device_).dtype(at::kByte)));
    return {memory, memory->mutable_data_ptr<uint8_t>()};
  }

  // N x C x height x width, the channels with what they are padded by.
  at::Tensor tensor_of(const Activation& value, int64_t channels) const {
    const int64_t row = value.width * value.pitch;
    return at::from_blob(value.data, {value.n, channels, value.height, value.width},
                         {value.height * row, 1, row, value.pitch},
                         at::TensorOptions(device_).dtype(scalar_type(type_)));
  }

  void operate(const Step& step, const std::vector<Activation>& inputs,
               const Activation& output) const override {
    const Node& node = plan_.nodes[step.node];
    at::Tensor result;
    if (step.kind == Step::Kind::kConvolution) {
      const at::Tensor x = tensor_of(inputs.front(), inputs.front().pitch);
      const at::Tensor weight =
          at::from_blob(const_cast<void*>(step.weight),
                        {output.pitch, step.kernel[0], step.kernel[1], inputs.front().pitch / step.groups},
                        at::TensorOptions(device_).dtype(scalar_type(type_)))
              .permute({0, 3, 1, 2});
      result = at::_convolution(x, weight, {}, step.stride, step.padding, step.dilation, /*transposed=*/false,
                                {0, 0}, step.groups, /*benchmark=*/false, /*deterministic=*/true,
                                /*cudnn_enabled=*/true, machine_.allow_tf32);
    } else {
      std::vector<at::Tensor> read;
      for (size_t i = 0; i < inputs.size(); ++i) {
        const at::Tensor input = tensor_of(inputs[i], inputs[i].channels);
        read.push_back(plan_.value(node.inputs[i]).is_vector ? input.flatten(1) : input);
      }
      result = graph::compute(*node.other, read);
    }
    const at::Tensor to = tensor_of(output, result.size(1));
    to.copy_(result.dim() == 2 ? result.unsqueeze(-1).unsqueeze(-1) : result);
  }

  static constexpr Stream kDefaultStream = nullptr;  // LibTorch's, which nobody here changes

  const Plan plan_;
  const at::Device device_;
  const Type type_;
  const Lowered lowered_;
  const std::vector<CudnnHandle>& planners_;
  const Machine machine_;
  mutable std::mutex mutex_;            // of one run, and of the sequences
  mutable std::list<Known> sequences_;  // the latest first
  mutable std::mutex kernels_mutex_;
  mutable std::map<Size2, std::vector<std::string>> kernels_;  // of each size, those of its latest sequence
};

}  // namespace
}  // namespace cuda

bool serves_cuda_kernels(const Target& target) {
  const char* const wish = std::getenv("SENET_COMPILE_KERNELS");
  const bool is_wanted = wish == nullptr || std::string_view(wish) != "libtorch";
  return target.device.is_cuda() && is_wanted &&
         cuda::state_of(target.device.index(), cuda::type_of(target.dtype)).why_not.empty();
}

std::unique_ptr<const Program> make_cuda_program(const Plan& plan, const Target& target) {
  return std::make_unique<const cuda::CudaProgram>(
      plan, target, cuda::state_of(target.device.index(), cuda::type_of(target.dtype)));
}

}  // namespace senet::inference
