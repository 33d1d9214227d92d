#include "inference/cuda/program.h"

#include "core/error.h"
#include "inference/cuda/kept_sequences.h"
#include "inference/cuda/lanes.h"
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
#include <map>
#include <memory>
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
// Batches from the host's memory that a program lets its device compute at once, unless SENET_CUDA_LANES says
// another number: one is copied while another computes, and small ones leave much of a device idle.
constexpr int kLanes = 3;
constexpr int kMostLanes = 16;
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

int lane_count() {
  const char* const wish = std::getenv("SENET_CUDA_LANES");
  return wish == nullptr ? kLanes : std::clamp(std::atoi(wish), 1, kMostLanes);
}

// How many images a sequence for so many is made for.
int64_t padded_count(int64_t images) {
  return *std::lower_bound(kCounts.begin(), kCounts.end(), images);
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
  std::string why_not;      // no program can be made; empty: none of the rest is null
  bool is_passing = false;  // that may be otherwise the next time: the device's memory was full
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
  // Of these kernels of ours: others are measured anew, beside cuDNN's plans.
  const std::string plans = "plans-sm" + std::to_string(architecture) + '-' +
                            std::to_string(state.multiprocessors) + "-cudnn" +
                            std::to_string(driver.cudnn_version) + '-' + kernels_version();
  state.plans = std::make_unique<const DiskCache>(cache.empty() ? "" : cache + '/' + plans);
  drop_unused(cache, plans);
  return state;
}

// Kept for ever: kernels and plans outlive LibTorch's statics at exit.
const DeviceState& state_of(int device, Type type) {
  static std::mutex mutex;
  static auto* const states = new std::map<std::pair<int, Type>, DeviceState>;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto known = states->find({device, type});
  if (known != states->end() && !known->second.is_passing) {
    return known->second;
  }
  DeviceState state;
  try {
    state = make_state(device, type);
  } catch (const Error& error) {
    state.why_not = error.what();
    state.is_passing = std::string_view(error.code()) == "ERR_SENET_OUT_OF_MEMORY";
  }
  // In the place of one that could not be made: no program has it.
  return states->insert_or_assign({device, type}, std::move(state)).first->second;
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
                 type_,         target.allow_tf32, make_handle(state),    handle_mutex_,
                 planners_,     *state.plans,      measured_plans()},
        lanes_(std::make_unique<Lanes>(
            machine_.driver, machine_.device,
            Lanes::Limits{static_cast<size_t>(lane_count()), kCounts.back(), kSequences, kSequenceBytes},
            padded_count, [this](const LaneKey& key, Stream stream) {
              return make(infer_sizes(plan_, key.size), key.size, key.count, {stream, &key.images});
            })) {}

  ~CudaProgram() override {
    const c10::OptionalDeviceGuard guard(device_);
    lanes_ = nullptr;
    sequences_.clear();
    machine_.driver.cudnnDestroy(machine_.handle);
  }

  at::Tensor run(const at::Tensor& input, StepSeconds* seconds) const override {
    const Size2 size = {input.size(2), input.size(3)};
    const std::vector<Size2> sizes = infer_sizes(plan_, size);
    const CurrentDevice current(machine_.driver, machine_.device);
    const int64_t count = input.size(0);
    at::Tensor output = empty_output(size, count, input.options());
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

  bool start(const HostBatch& batch, const Afterwards& afterwards) const override {
    const at::Tensor& images = batch.images;
    const bool is_bytes = images.scalar_type() == at::kByte;
    if (is_bytes && plan_.channels(plan_.input) > kMostPixelChannels) {
      return false;
    }
    auto request = std::make_shared<Request>();
    request->images = {is_bytes, images.is_contiguous(), images.size(1)};
    std::copy(batch.mean.begin(), batch.mean.end(), request->images.mean.begin());
    std::copy(batch.deviation.begin(), batch.deviation.end(), request->images.deviation.begin());
    request->size = {images.size(2), images.size(3)};
    request->count = images.size(0);
    try {
      const at::Tensor answers = empty_output(request->size, request->count, at::kFloat);
      request->write = [images, is_planar = request->images.is_planar](int64_t first, int64_t n, void* to) {
        const at::Tensor part = images.narrow(0, first, n);
        at::from_blob(to, part.sizes(), packed_strides(part.sizes(), is_planar), part.options()).copy_(part);
      };
      request->read = [answers](int64_t first, int64_t n, const float* from) {
        const int64_t each = answers.stride(0);
        std::copy(from, from + n * each, answers.mutable_data_ptr<float>() + first * each);
      };
      request->done = [answers, done = afterwards.done](std::exception_ptr failure) {
        done(failure ? at::Tensor() : answers, failure);
      };
      request->post = afterwards.post;
    } catch (...) {
      afterwards.done({}, std::current_exception());
      return true;
    }
    lanes_->run(std::move(request));
    return true;
  }

  int lanes() const override {
    return lane_count();
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
    return kCudaKernelsName;
  }

 private:
  // Number and size of images.
  using Key = std::pair<Size2, int64_t>;

  at::Tensor empty_output(Size2 size, int64_t count, const at::TensorOptions& options) const {
    const int64_t channels = plan_.channels(plan_.output);
    const Size2 last = infer_sizes(plan_, size)[static_cast<size_t>(plan_.output)];
    return plan_.value(plan_.output).is_vector ? at::empty({count, channels}, options)
                                               : at::empty({count, channels, last[0], last[1]}, options);
  }

  // Of N x C x H x W, as it is packed in the host's memory.
  static std::vector<int64_t> packed_strides(at::IntArrayRef sizes, bool is_planar) {
    const int64_t c = sizes[1], h = sizes[2], w = sizes[3];
    return is_planar ? std::vector<int64_t>{c * h * w, h * w, w, 1}
                     : std::vector<int64_t>{h * w * c, 1, w * c, c};
  }

  static CudnnHandle make_handle(const DeviceState& state) {
    CudnnHandle handle = nullptr;
    check_cudnn(*state.driver, state.driver->cudnnCreate(&handle), "cudnnCreate");
    return handle;
  }

  // For at least `images`; with mutex_ held.
  const Sequence& find_sequence(const std::vector<Size2>& sizes, Size2 size, int64_t images) const {
    const Key key{size, padded_count(images)};
    const Sequence* const known = sequences_.find(key);
    return known != nullptr ? *known : sequences_.keep(key, make(sizes, size, key.second, {}));
  }

  // One at a time, so that all sequences of a number and size compute each step by the same kernel, and give
  // the same bits.
  std::unique_ptr<const Sequence> make(const std::vector<Size2>& sizes, Size2 size, int64_t count,
                                       Setup setup) const {
    const std::lock_guard<std::mutex> lock(choices_mutex_);
    std::erase_if(choices_, [](const auto& each) { return each.second.expired(); });
    std::weak_ptr<const Choices>& known = choices_[{size, count}];
    setup.known = known.lock();
    auto sequence = make_sequence(machine_, *this, lowered_.steps, sizes, count, setup);
    known = sequence->choices();
    note_kernels(size, *sequence);
    return sequence;
  }

  // explain() must not wait for a sequence that is being made.
  void note_kernels(Size2 size, const Sequence& sequence) const {
    std::vector<std::string> kernels;
    for (size_t i = 0; i < lowered_.steps.steps.size(); ++i) {
      kernels.push_back(sequence.kernel_of(i));
    }
    const std::lock_guard<std::mutex> lock(kernels_mutex_);
    if (kernels_.size() >= kSequences) {
      kernels_.clear();
    }
    kernels_[size] = std::move(kernels);
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

  const Plan plan_;
  const at::Device device_;
  const Type type_;
  const Lowered lowered_;
  const std::vector<CudnnHandle>& planners_;
  mutable std::mutex handle_mutex_;
  const Machine machine_;
  mutable std::mutex choices_mutex_;
  mutable std::map<Key, std::weak_ptr<const Choices>> choices_;
  mutable std::mutex kernels_mutex_;
  mutable std::map<Size2, std::vector<std::string>> kernels_;  // of each size, those of its latest sequence
  mutable std::mutex mutex_;  // of one run on LibTorch's stream, and of its sequences
  mutable KeptSequences<Key> sequences_{kSequences, kSequenceBytes};
  std::unique_ptr<Lanes> lanes_;
};

}  // namespace
}  // namespace cuda

bool serves_cuda_kernels(const Target& target) {
  return target.device.is_cuda() && why_no_cuda_kernels(target).empty();
}

std::string why_no_cuda_kernels(const Target& target) {
  if (!target.device.is_cuda()) {
    return "";
  }
  const char* const wish = std::getenv("SENET_COMPILE_KERNELS");
  if (wish != nullptr && std::string_view(wish) == "libtorch") {
    return "SENET_COMPILE_KERNELS is libtorch";
  }
  return cuda::state_of(target.device.index(), cuda::type_of(target.dtype)).why_not;
}

std::unique_ptr<const Program> make_cuda_program(const Plan& plan, const Target& target) {
  return std::make_unique<const cuda::CudaProgram>(
      plan, target, cuda::state_of(target.device.index(), cuda::type_of(target.dtype)));
}

}  // namespace senet::inference
