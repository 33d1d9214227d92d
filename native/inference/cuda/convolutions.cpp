#include "inference/cuda/convolutions.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace senet::inference::cuda {
namespace {

// NVIDIA's numbers.
enum Kind : int {  // cudnnBackendDescriptorType_t
  kPointwise = 0,
  kConvolution = 1,
  kEngine = 2,
  kEngineConfig = 3,
  kHeuristics = 4,
  kExecutionPlan = 5,
  kKnobChoice = 7,
  kConvolutionForward = 10,
  kOperationPointwise = 13,
  kOperationGraph = 15,
  kVariantPack = 16,
  kTensor = 17,
  kDeviceProperties = 38,
};
enum Attribute : int {  // cudnnBackendAttributeName_t
  kPointwiseMode = 0,
  kPointwisePrecision = 1,
  kPointwiseNanPropagation = 2,
  kConvolutionComputeType = 100,
  kConvolutionMode = 101,
  kConvolutionDilations = 102,
  kConvolutionStrides = 103,
  kConvolutionPostPaddings = 104,
  kConvolutionPrePaddings = 105,
  kConvolutionSpatialDims = 106,
  kHeuristicsMode = 200,
  kHeuristicsGraph = 201,
  kHeuristicsResults = 202,
  kHeuristicsDevice = 204,
  kConfigEngine = 300,
  kConfigKnobChoices = 302,
  kPlanHandle = 400,
  kPlanConfig = 401,
  kPlanWorkspaceSize = 402,
  kPlanJson = 405,
  kPlanDevice = 407,
  kKnobType = 600,
  kKnobValue = 601,
  kForwardAlpha = 700,
  kForwardBeta = 701,
  kForwardConvolution = 702,
  kForwardW = 703,
  kForwardX = 704,
  kForwardY = 705,
  kOperationPointwiseDescriptor = 750,
  kOperationPointwiseX = 751,
  kOperationPointwiseB = 752,
  kOperationPointwiseY = 753,
  kGraphHandle = 800,
  kGraphOperations = 801,
  kTensorAlignment = 900,
  kTensorType = 901,
  kTensorDimensions = 902,
  kTensorStrides = 903,
  kTensorId = 906,
  kTensorVirtual = 907,
  kPackIds = 1000,
  kPackPointers = 1001,
  kPackWorkspace = 1003,
  kEngineIndex = 1301,
  kEngineNumericalNotes = 1303,
  kDeviceJson = 2702,
};
enum AttributeType : int {  // cudnnBackendAttributeType_t
  kTypeHandle = 0,
  kTypeDataType = 1,
  kTypeBoolean = 2,
  kTypeInt64 = 3,
  kTypeFloat = 4,
  kTypePointer = 6,
  kTypeConvolutionMode = 7,
  kTypeHeuristicsMode = 8,
  kTypeKnobType = 9,
  kTypeNanPropagation = 10,
  kTypeNumericalNote = 11,
  kTypePointwiseMode = 14,
  kTypeDescriptor = 15,
  kTypeChar = 24,
};
enum PointwiseMode : int { kAdd = 0, kMultiply = 1, kRelu = 100 };
// cudnnBackendNumericalNote_t: how a kernel computes. Between the second and the last are sums in less than
// float32, FFT, sums whose order differs from run to run, and Winograd.
enum NumericalNote : int { kTensorCore = 0, kDownConvertInputs = 1, kWinogradTile13x13 = 8 };
// At least as many as there are.
constexpr int64_t kMaxResults = 128;
constexpr int64_t kMaxKnobs = 128;
constexpr int64_t kMaxNotes = 32;

constexpr int kHeuristicsModes[] = {3, 1, 2};  // A, B, fallback
constexpr int kCrossCorrelation = 1;
constexpr int kPropagateNan = 1;
constexpr int64_t kAlignment = 16;

// What a tensor is called in the graph.
enum Id : int64_t { kX = 1, kWeight, kBias, kFactors, kResidual, kY, kFirstVirtual };

int data_type(Type type) {
  switch (type) {
    case Type::kHalf:
      return 2;
    case Type::kBFloat16:
      return 9;
    case Type::kFloat:
      return 0;
  }
  return 0;
}

const char* text_of(Type type) {
  return type == Type::kHalf ? "f16" : type == Type::kBFloat16 ? "bf16" : "f32";
}

class Descriptor {
 public:
  Descriptor(const Driver& driver, Kind kind) : driver_(&driver) {
    check_cudnn(driver, driver.cudnnBackendCreateDescriptor(kind, &descriptor_), "creation of a descriptor");
  }
  Descriptor(Descriptor&& other) noexcept
      : driver_(other.driver_), descriptor_(std::exchange(other.descriptor_, nullptr)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(driver_, other.driver_);
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  ~Descriptor() {
    if (descriptor_ != nullptr) {
      driver_->cudnnBackendDestroyDescriptor(descriptor_);
    }
  }

  CudnnDescriptor get() const {
    return descriptor_;
  }

  void set(Attribute attribute, AttributeType type, int64_t count, const void* values) {
    check_cudnn(*driver_, driver_->cudnnBackendSetAttribute(descriptor_, attribute, type, count, values),
                "setting of an attribute");
  }
  /// The same, of what comes from elsewhere; whether cuDNN takes it.
  bool takes(Attribute attribute, AttributeType type, int64_t count, const void* values) {
    return driver_->cudnnBackendSetAttribute(descriptor_, attribute, type, count, values) == 0;
  }
  template <class Value>
  void set(Attribute attribute, AttributeType type, const Value& value) {
    set(attribute, type, 1, &value);
  }
  void set(Attribute attribute, const Descriptor& value) {
    set(attribute, kTypeDescriptor, 1, &value.descriptor_);
  }

  /// How many of `count` there were.
  int64_t read(Attribute attribute, AttributeType type, int64_t count, void* values) const {
    int64_t found = 0;
    check_cudnn(*driver_,
                driver_->cudnnBackendGetAttribute(descriptor_, attribute, type, count, &found, values),
                "reading of an attribute");
    return found;
  }
  template <class Value>
  Value read(Attribute attribute, AttributeType type) const {
    Value value{};
    read(attribute, type, 1, &value);
    return value;
  }
  /// The descriptors that this one holds, at most `count`.
  std::vector<Descriptor> read_all(Attribute attribute, Kind kind, int64_t count) const {
    std::vector<Descriptor> all;
    std::vector<CudnnDescriptor> pointers;
    for (int64_t i = 0; i < count; ++i) {
      all.emplace_back(*driver_, kind);
      pointers.push_back(all.back().get());
    }
    const int64_t found = read(attribute, kTypeDescriptor, count, pointers.data());
    all.erase(all.begin() + std::min(found, count), all.end());
    return all;
  }

  /// Empty if there is none.
  std::string text(Attribute attribute) const {
    int64_t count = 0;  // with the zero at the end
    const auto get = [&](int64_t room, char* values) {
      return driver_->cudnnBackendGetAttribute(descriptor_, attribute, kTypeChar, room, &count, values) == 0;
    };
    if (!get(0, nullptr) || count <= 0) {
      return "";
    }
    std::string text(static_cast<size_t>(count), '\0');
    return get(count, text.data()) ? text.c_str() : "";
  }

  /// Whether cuDNN can do what this describes.
  bool finalized() {
    return driver_->cudnnBackendFinalize(descriptor_) == 0;
  }
  /// Of what cuDNN always can.
  Descriptor&& finalize(const char* what) && {
    check_cudnn(*driver_, driver_->cudnnBackendFinalize(descriptor_), what);
    return std::move(*this);
  }

 private:
  const Driver* driver_;
  CudnnDescriptor descriptor_ = nullptr;
};

using Extents = std::array<int64_t, 4>;  // N, C, H, W

Descriptor tensor(const Driver& driver, int64_t id, Type type, const Extents& extents,
                  bool is_virtual = false) {
  const auto [n, c, h, w] = extents;
  const Extents strides = {c * h * w, 1, c * w, c};
  Descriptor tensor(driver, kTensor);
  tensor.set(kTensorId, kTypeInt64, id);
  tensor.set(kTensorType, kTypeDataType, data_type(type));
  tensor.set(kTensorAlignment, kTypeInt64, kAlignment);
  tensor.set(kTensorDimensions, kTypeInt64, 4, extents.data());
  tensor.set(kTensorStrides, kTypeInt64, 4, strides.data());
  tensor.set(kTensorVirtual, kTypeBoolean, is_virtual);
  return std::move(tensor).finalize("description of a tensor");
}

// What is needed as long as a plan of it is.
struct OperationGraph {
  std::vector<Descriptor> parts;
  Descriptor graph;
  bool supported;
};

// Between the operations the sums are float32, whatever the type: more exact, and less code than rounding
// each time.
class GraphBuilder {
 public:
  GraphBuilder(const Driver& driver, CudnnHandle handle, const Convolution& convolution)
      : driver_(driver), handle_(handle), convolution_(convolution) {
    const Convolution& c = convolution;
    operations_left_ = 1 + c.has_bias + c.has_factors + c.has_residual + c.relu;
  }

  OperationGraph build() {
    const Convolution& c = convolution_;
    // cuDNN's ready kernels add a residual before the bias. After it, a kernel is compiled, and only after it
    // can there be factors.
    const bool residual_first = c.has_residual && !c.has_factors;
    CudnnDescriptor sums = convolve();
    if (residual_first) {
      sums = pointwise(kAdd, sums, kResidual, out_extents());
    }
    if (c.has_bias) {
      sums = pointwise(kAdd, sums, kBias, {1, c.out_channels, 1, 1});
    }
    if (c.has_factors) {
      sums = pointwise(kMultiply, sums, kFactors, {c.n, c.out_channels, 1, 1});
    }
    if (c.has_residual && !residual_first) {
      sums = pointwise(kAdd, sums, kResidual, out_extents());
    }
    if (c.relu) {
      pointwise(kRelu, sums, kY, {});
    }
    Descriptor graph(driver_, kOperationGraph);
    if (handle_ != nullptr) {
      graph.set(kGraphHandle, kTypeHandle, handle_);
    }
    graph.set(kGraphOperations, kTypeDescriptor, static_cast<int64_t>(operations_.size()),
              operations_.data());
    const bool supported = graph.finalized();
    return {std::move(parts_), std::move(graph), supported};
  }

 private:
  Extents out_extents() const {
    return {convolution_.n, convolution_.out_channels, convolution_.out_height, convolution_.out_width};
  }

  CudnnDescriptor keep(Descriptor&& part) {
    parts_.push_back(std::move(part));
    return parts_.back().get();
  }

  CudnnDescriptor result() {
    const bool last = --operations_left_ == 0;
    return keep(last ? tensor(driver_, kY, convolution_.type, out_extents())
                     : tensor(driver_, kFirstVirtual + operations_left_, Type::kFloat, out_extents(), true));
  }

  CudnnDescriptor convolve() {
    const Convolution& c = convolution_;
    Descriptor settings(driver_, kConvolution);
    settings.set(kConvolutionSpatialDims, kTypeInt64, int64_t{2});
    settings.set(kConvolutionComputeType, kTypeDataType, data_type(Type::kFloat));
    settings.set(kConvolutionMode, kTypeConvolutionMode, kCrossCorrelation);
    settings.set(kConvolutionPrePaddings, kTypeInt64, 2, c.padding.data());
    settings.set(kConvolutionPostPaddings, kTypeInt64, 2, c.padding.data());
    settings.set(kConvolutionStrides, kTypeInt64, 2, c.stride.data());
    settings.set(kConvolutionDilations, kTypeInt64, 2, c.dilation.data());
    const CudnnDescriptor finalized = keep(std::move(settings).finalize("description of a convolution"));
    const CudnnDescriptor x = keep(tensor(driver_, kX, c.type, {c.n, c.in_channels, c.height, c.width}));
    const CudnnDescriptor weight = keep(tensor(
        driver_, kWeight, c.type, {c.out_channels, c.in_channels / c.groups, c.kernel[0], c.kernel[1]}));
    const CudnnDescriptor y = result();
    Descriptor operation(driver_, kConvolutionForward);
    operation.set(kForwardConvolution, kTypeDescriptor, finalized);
    operation.set(kForwardX, kTypeDescriptor, x);
    operation.set(kForwardW, kTypeDescriptor, weight);
    operation.set(kForwardY, kTypeDescriptor, y);
    operation.set(kForwardAlpha, kTypeFloat, 1.0f);
    operation.set(kForwardBeta, kTypeFloat, 0.0f);
    operations_.push_back(keep(std::move(operation).finalize("description of a convolution")));
    return y;
  }

  // `id` and `extents` of the second operand; a ReLU has none.
  CudnnDescriptor pointwise(PointwiseMode mode, CudnnDescriptor x, int64_t id, const Extents& extents) {
    Descriptor settings(driver_, kPointwise);
    settings.set(kPointwiseMode, kTypePointwiseMode, static_cast<int>(mode));
    settings.set(kPointwisePrecision, kTypeDataType, data_type(Type::kFloat));
    if (mode == kRelu) {
      settings.set(kPointwiseNanPropagation, kTypeNanPropagation, kPropagateNan);
    }
    const CudnnDescriptor finalized = keep(std::move(settings).finalize("description of an operation"));
    Descriptor operation(driver_, kOperationPointwise);
    operation.set(kOperationPointwiseDescriptor, kTypeDescriptor, finalized);
    operation.set(kOperationPointwiseX, kTypeDescriptor, x);
    if (mode != kRelu) {
      operation.set(kOperationPointwiseB, kTypeDescriptor,
                    keep(tensor(driver_, id, convolution_.type, extents)));
    }
    const CudnnDescriptor y = result();
    operation.set(kOperationPointwiseY, kTypeDescriptor, y);
    operations_.push_back(keep(std::move(operation).finalize("description of an operation")));
    return y;
  }

  const Driver& driver_;
  const CudnnHandle handle_;
  const Convolution& convolution_;
  int64_t operations_left_;
  std::vector<Descriptor> parts_;
  std::vector<CudnnDescriptor> operations_;
};

class Plan : public ConvolutionPlan {
 public:
  Plan(const Driver& driver, const Convolution& convolution, std::string name, Descriptor&& plan)
      : driver_(driver),
        key_(convolution.key()),
        has_bias_(convolution.has_bias),
        has_factors_(convolution.has_factors),
        has_residual_(convolution.has_residual),
        name_(std::move(name)),
        plan_(std::move(plan)),
        workspace_bytes_(plan_.read<int64_t>(kPlanWorkspaceSize, kTypeInt64)) {}

  int64_t workspace_bytes() const override {
    return workspace_bytes_;
  }
  const std::string& name() const override {
    return name_;
  }

  std::string serialise() const override {
    const std::string json = plan_.text(kPlanJson);
    return json.empty() ? "" : key_ + '\n' + name_ + '\n' + json;
  }

  void run(CudnnHandle handle, const ConvolutionArguments& arguments) const override {
    std::array<int64_t, 6> ids = {kX, kWeight, kY};
    std::array<const void*, 6> pointers = {arguments.x, arguments.weight, arguments.y};
    int64_t count = 3;
    const auto add = [&](bool has, int64_t id, const void* pointer) {
      if (has) {
        ids[count] = id;
        pointers[count++] = pointer;
      }
    };
    add(has_bias_, kBias, arguments.bias);
    add(has_factors_, kFactors, arguments.factors);
    add(has_residual_, kResidual, arguments.residual);
    Descriptor pack(driver_, kVariantPack);
    pack.set(kPackIds, kTypeInt64, count, ids.data());
    pack.set(kPackPointers, kTypePointer, count, pointers.data());
    pack.set(kPackWorkspace, kTypePointer, arguments.workspace);
    const Descriptor finalized = std::move(pack).finalize("arguments of a convolution");
    check_cudnn(driver_, driver_.cudnnBackendExecute(handle, plan_.get(), finalized.get()), "convolution");
  }

 private:
  const Driver& driver_;
  const std::string key_;
  const bool has_bias_;
  const bool has_factors_;
  const bool has_residual_;
  const std::string name_;
  const Descriptor plan_;
  const int64_t workspace_bytes_;
};

using Plans = std::vector<std::unique_ptr<ConvolutionPlan>>;

// Makes the plans of a convolution.
class Planner {
 public:
  Planner(const Driver& driver, CudnnHandle handle, const std::string& device, const Convolution& convolution)
      : driver_(driver), handle_(handle), convolution_(convolution) {
    if (!device.empty()) {
      Descriptor properties(driver, kDeviceProperties);
      properties.set(kDeviceJson, kTypeChar, static_cast<int64_t>(device.size()) + 1, device.c_str());
      device_ = std::move(properties).finalize("description of a device");
    }
  }

  Plans find(size_t limit) const {
    const OperationGraph graph = GraphBuilder(driver_, handle_, convolution_).build();
    Plans plans;
    std::vector<std::string> seen;
    for (const int mode : kHeuristicsModes) {
      if (!graph.supported || plans.size() >= limit) {
        break;
      }
      Descriptor heuristics(driver_, kHeuristics);
      heuristics.set(kHeuristicsGraph, graph.graph);
      heuristics.set(kHeuristicsMode, kTypeHeuristicsMode, mode);
      if (device_) {
        heuristics.set(kHeuristicsDevice, *device_);
      }
      if (!heuristics.finalized()) {
        continue;
      }
      for (const Descriptor& config : heuristics.read_all(kHeuristicsResults, kEngineConfig, kMaxResults)) {
        if (plans.size() >= limit) {
          break;
        }
        Descriptor engine(driver_, kEngine);
        CudnnDescriptor pointer = engine.get();
        config.read(kConfigEngine, kTypeDescriptor, 1, &pointer);
        const std::string name = name_of(config, engine);
        if (std::find(seen.begin(), seen.end(), name) != seen.end() || !exact_enough(engine)) {
          continue;
        }
        seen.push_back(name);
        Descriptor plan = empty_plan();
        plan.set(kPlanConfig, config);
        if (plan.finalized()) {
          plans.push_back(std::make_unique<Plan>(driver_, convolution_, name, std::move(plan)));
        }
      }
    }
    return plans;
  }

  /// From what serialise() answered; none if that is of something else, or cuDNN does not take it.
  Plans restore(const std::string& text) const {
    const std::string key = convolution_.key() + '\n';
    const size_t name_end = text.starts_with(key) ? text.find('\n', key.size()) : std::string::npos;
    Plans plans;
    if (name_end != std::string::npos) {
      Descriptor plan = empty_plan();
      if (plan.takes(kPlanJson, kTypeChar, static_cast<int64_t>(text.size() - name_end),
                     text.c_str() + name_end + 1) &&
          plan.finalized()) {
        plans.push_back(std::make_unique<Plan>(
            driver_, convolution_, text.substr(key.size(), name_end - key.size()), std::move(plan)));
      }
    }
    return plans;
  }

 private:
  static std::string name_of(const Descriptor& config, const Descriptor& engine) {
    std::string name = "engine " + std::to_string(engine.read<int64_t>(kEngineIndex, kTypeInt64));
    for (const Descriptor& choice : config.read_all(kConfigKnobChoices, kKnobChoice, kMaxKnobs)) {
      name += ' ' + std::to_string(choice.read<int>(kKnobType, kTypeKnobType)) + '=' +
              std::to_string(choice.read<int64_t>(kKnobValue, kTypeInt64));
    }
    return name;
  }

  bool exact_enough(const Descriptor& engine) const {
    std::array<int, kMaxNotes> notes{};
    const int64_t count = engine.read(kEngineNumericalNotes, kTypeNumericalNote, kMaxNotes, notes.data());
    const bool strict = convolution_.type == Type::kFloat && !convolution_.allow_tf32;
    return std::none_of(notes.begin(), notes.begin() + count, [strict](int note) {
      // Tensor cores take float32 as TensorFloat-32.
      return note == kTensorCore ? strict : note >= kDownConvertInputs && note <= kWinogradTile13x13;
    });
  }

  Descriptor empty_plan() const {
    Descriptor plan(driver_, kExecutionPlan);
    if (handle_ != nullptr) {
      plan.set(kPlanHandle, kTypeHandle, handle_);
    }
    if (device_) {
      plan.set(kPlanDevice, *device_);
    }
    return plan;
  }

  const Driver& driver_;
  const CudnnHandle handle_;
  const Convolution& convolution_;
  std::optional<Descriptor> device_;
};

}  // namespace

std::string Convolution::key() const {
  const auto pair = [](const std::array<int64_t, 2>& values) {
    return std::to_string(values[0]) + 'x' + std::to_string(values[1]);
  };
  const auto extents = [](int64_t rows, int64_t columns, int64_t channels) {
    return std::to_string(rows) + 'x' + std::to_string(columns) + 'x' + std::to_string(channels);
  };
  return std::string(allow_tf32 && type == Type::kFloat ? "tf32" : text_of(type)) + " n" + std::to_string(n) +
         ' ' + extents(height, width, in_channels) + " -> " + extents(out_height, out_width, out_channels) +
         " k" + pair(kernel) + " s" + pair(stride) + " p" + pair(padding) + " d" + pair(dilation) + " g" +
         std::to_string(groups) + (has_bias ? " bias" : "") + (has_factors ? " factors" : "") +
         (has_residual ? " residual" : "") + (relu ? " relu" : "");
}

std::vector<std::unique_ptr<ConvolutionPlan>> find_plans(const Driver& driver, CudnnHandle handle,
                                                         const Convolution& convolution, size_t limit,
                                                         const std::string& remembered,
                                                         const std::string& device) {
  const Planner planner(driver, handle, device, convolution);
  Plans plans = planner.restore(remembered);
  return plans.empty() ? planner.find(limit) : std::move(plans);
}

}  // namespace senet::inference::cuda
