#include "inference/calibration.h"

#include "core/error.h"
#include "core/names.h"
#include "inference/cpu/program.h"
#include "nn/trace.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/isfinite.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <sstream>
#include <utility>

namespace senet::inference {
namespace {

// Every tensor of a plan's nodes.
std::vector<at::Tensor*> tensors_of(Node& node) {
  std::vector<at::Tensor*> result = {&node.weight,        &node.bias,          &node.squeeze_weight,
                                     &node.squeeze_bias,  &node.excite_weight, &node.excite_bias,
                                     &node.channel_kernel};
  if (node.batch_norm) {
    graph::BatchNorm& norm = *node.batch_norm;
    result.insert(result.end(), {&norm.weight, &norm.bias, &norm.running_mean, &norm.running_var});
  }
  return result;
}

// The plan's tensors become the copies that the module's have become, or copies of their own.
void take_copies(Plan& plan, const nn::Module* module, Tensors& copies) {
  std::map<const void*, at::Tensor> known;
  if (module != nullptr) {
    const auto add = [&](const std::string& name, const at::Tensor& tensor) {
      at::Tensor copy = tensor.detach().clone();
      known.emplace(tensor.const_data_ptr(), copy);
      copies.emplace_back(name, std::move(copy));
    };
    for (const auto& item : module->named_parameters()) {
      add(item.key(), item.value());
    }
    for (const auto& item : module->named_buffers()) {
      add(item.key(), item.value());
    }
  }
  for (Node& node : plan.nodes) {
    for (at::Tensor* tensor : tensors_of(node)) {
      if (!tensor->defined()) {
        continue;
      }
      const auto found = known.find(tensor->const_data_ptr());
      const bool is_same = found != known.end() && found->second.sizes() == tensor->sizes() &&
                           found->second.strides() == tensor->strides();
      *tensor = is_same ? found->second : tensor->detach().clone();
    }
  }
}

void add_to(ChannelSums& sums, const float* pixel, int64_t channels) {
  sums.channels.resize(static_cast<size_t>(channels));
  for (int64_t c = 0; c < channels; ++c) {
    sums.channels[static_cast<size_t>(c)] += pixel[c];
  }
  ++sums.pixels;
}

void add_to(ChannelSums& sums, const ChannelSums& others) {
  sums.channels.resize(std::max(sums.channels.size(), others.channels.size()));
  std::transform(others.channels.begin(), others.channels.end(), sums.channels.begin(), sums.channels.begin(),
                 std::plus<>());
  sums.pixels += others.pixels;
  sums.size = others.pixels > 0 ? others.size : sums.size;
}

// Counts and adds up what each step gives, each thread for itself.
class Counting : public StepObserver {
 public:
  Counting(size_t values, size_t threads)
      : counts_(threads, std::vector<Histogram>(values)), sums_(threads, std::vector<ChannelSums>(values)) {}

  void after(const Step& step, const Work& work) override {
    std::vector<Histogram>& own = counts_[static_cast<size_t>(work.team.index)];
    std::vector<ChannelSums>& sums = sums_[static_cast<size_t>(work.team.index)];
    for (const Step::Operand& given : step.gives) {
      const BufferLayout& at = work.buffer_layout(given.buffer);
      sums[static_cast<size_t>(given.value)].size = {at.height, at.width};
      for (int64_t row = work.team.begin(at.height); row < work.team.end(at.height); ++row) {
        const char* const line =
            work.pixels(given.buffer, work.first, given.channel) + row * at.row * at.element_bytes;
        for (int64_t column = 0; column < at.width; ++column) {
          const auto* const pixel =
              reinterpret_cast<const float*>(line + column * at.pixel * at.element_bytes);
          own[static_cast<size_t>(given.value)].add(pixel, given.channels);
          inference::add_to(sums[static_cast<size_t>(given.value)], pixel, given.channels);
        }
      }
    }
  }

  void add_to(std::vector<Histogram>& totals, std::vector<ChannelSums>& sums) const {
    for (size_t thread = 0; thread < counts_.size(); ++thread) {
      for (size_t i = 0; i < totals.size(); ++i) {
        totals[i].add(counts_[thread][i]);
        inference::add_to(sums[i], sums_[thread][i]);
      }
    }
  }

 private:
  std::vector<std::vector<Histogram>> counts_;
  std::vector<std::vector<ChannelSums>> sums_;
};

// What is float32 or bytes, as float32.
void read(const Work& work, const Step::Operand& operand, int64_t row, float* to, int64_t pitch) {
  const BufferLayout& at = work.buffer_layout(operand.buffer);
  const char* line =
      work.pixels(operand.buffer, work.first, operand.channel) + row * at.row * at.element_bytes;
  for (int64_t column = 0; column < at.width; ++column, to += pitch, line += at.pixel * at.element_bytes) {
    for (int64_t c = 0; c < operand.channels; ++c) {
      to[c] =
          at.element_bytes == 4
              ? reinterpret_cast<const float*>(line)[c]
              : operand.quantization.scale *
                    static_cast<float>(reinterpret_cast<const uint8_t*>(line)[c] - operand.quantization.zero);
    }
  }
}

void write(const Work& work, const Step::Operand& operand, int64_t row, const float* from, int64_t pitch) {
  const BufferLayout& at = work.buffer_layout(operand.buffer);
  char* line = work.pixels(operand.buffer, work.first, operand.channel) + row * at.row * at.element_bytes;
  for (int64_t column = 0; column < at.width; ++column, from += pitch, line += at.pixel * at.element_bytes) {
    for (int64_t c = 0; c < operand.channels; ++c) {
      if (at.element_bytes == 4) {
        reinterpret_cast<float*>(line)[c] = from[c];
      } else {
        const float byte = std::nearbyint(from[c] / operand.quantization.scale) +
                           static_cast<float>(operand.quantization.zero);
        reinterpret_cast<uint8_t*>(line)[c] = static_cast<uint8_t>(std::clamp(byte, 0.0f, 255.0f));
      }
    }
  }
}

// The values of one image, in the order of pixels.
struct Seen {
  struct Value {
    int64_t channels;
    ValueId whole = kNoValue;  // that it is a part of
    int64_t channel = 0;
    std::vector<float> numbers = {};  // empty of parts
  };
  std::vector<Value> values;

  explicit Seen(const Fused& fused) {
    for (const UnitValue& value : fused.values) {
      values.push_back({value.channels});
    }
    for (const Unit& unit : fused.units) {
      int64_t channel = 0;
      for (size_t i = 0; unit.kind == Unit::Kind::kConcatenate && i < unit.inputs.size(); ++i) {
        Value& part = values[static_cast<size_t>(unit.inputs[i])];
        part.whole = unit.output;
        part.channel = channel;
        channel += part.channels;
      }
    }
  }
  // The numbers of a row's first pixel and how many there are from one pixel to the next; null if it was not
  // seen.
  float* row(ValueId value, int64_t row, int64_t width, int64_t* pitch) {
    Value& of = values[static_cast<size_t>(value)];
    Value& in = of.whole == kNoValue ? of : values[static_cast<size_t>(of.whole)];
    *pitch = in.channels;
    return in.numbers.empty() ? nullptr : in.numbers.data() + row * width * in.channels + of.channel;
  }
  void reserve(ValueId value, int64_t pixels) {
    Value& of = values[static_cast<size_t>(value)];
    Value& in = of.whole == kNoValue ? of : values[static_cast<size_t>(of.whole)];
    in.numbers.resize(static_cast<size_t>(pixels * in.channels));
  }
};

// Notes what the steps of float32 give.
class Seeing : public StepObserver {
 public:
  explicit Seeing(Seen& seen) : seen_(seen) {}

  void before(const Step& step, const Work& work) override {
    if (work.team.index == 0) {
      for (const Step::Operand& given : step.gives) {
        const BufferLayout& at = work.buffer_layout(given.buffer);
        seen_.reserve(given.value, at.height * at.width);
      }
    }
  }
  void after(const Step& step, const Work& work) override {
    for (const Step::Operand& given : step.gives) {
      const BufferLayout& at = work.buffer_layout(given.buffer);
      for (int64_t row = work.team.begin(at.height); row < work.team.end(at.height); ++row) {
        int64_t pitch = 0;
        float* const to = seen_.row(given.value, row, at.width, &pitch);
        read(work, given, row, to, pitch);
      }
    }
  }

 private:
  Seen& seen_;
};

struct Squares {
  double error = 0;
  double value = 0;

  double relative() const {
    return value > 0 ? std::sqrt(error / value) : std::sqrt(error);
  }
};

// Gives each step of bytes what the one of float32 was given, and compares what they make of it.
class Comparing : public StepObserver {
 public:
  Comparing(Seen& seen, size_t threads) : seen_(seen), squares_(threads) {}

  void before(const Step& step, const Work& work) override {
    for (const Step::Operand& taken : step.takes) {
      const BufferLayout& at = work.buffer_layout(taken.buffer);
      for (int64_t row = work.team.begin(at.height); row < work.team.end(at.height); ++row) {
        int64_t pitch = 0;
        const float* const from = seen_.row(taken.value, row, at.width, &pitch);
        if (step.is_convolution() && from != nullptr) {
          write(work, taken, row, from, pitch);
        }
      }
    }
  }
  void after(const Step& step, const Work& work) override {
    if (!step.is_convolution()) {
      return;
    }
    std::vector<float> line;
    for (const Step::Operand& given : step.gives) {
      const BufferLayout& at = work.buffer_layout(given.buffer);
      line.resize(static_cast<size_t>(at.width * given.channels));
      Squares& squares = squares_[static_cast<size_t>(work.team.index)][step.name];
      for (int64_t row = work.team.begin(at.height); row < work.team.end(at.height); ++row) {
        int64_t pitch = 0;
        const float* expected = seen_.row(given.value, row, at.width, &pitch);
        if (expected == nullptr || at.element_bytes == 4) {
          continue;
        }
        read(work, given, row, line.data(), given.channels);
        for (int64_t column = 0; column < at.width; ++column, expected += pitch) {
          for (int64_t c = 0; c < given.channels; ++c) {
            const double value = expected[c];
            const double error = line[static_cast<size_t>(column * given.channels + c)] - value;
            squares.error += error * error;
            squares.value += value * value;
          }
        }
      }
    }
  }

  void add_to(std::map<std::string, Squares>& totals) const {
    for (const auto& of_thread : squares_) {
      for (const auto& [name, squares] : of_thread) {
        if (squares.value > 0) {
          totals[name].error += squares.error;
          totals[name].value += squares.value;
        }
      }
    }
  }

 private:
  Seen& seen_;
  std::vector<std::map<std::string, Squares>> squares_;  // of each thread
};

// Images that errors are measured on.
constexpr size_t kSamples = 8;

std::string scientific(double x) {
  std::ostringstream stream;
  stream << x;
  return stream.str();
}

Fused fuse_all(const Plan& plan) {
  Fused fused = fuse_plan(plan);
  for (Unit& unit : fused.units) {
    unit.stores = true;
  }
  return fused;
}

}  // namespace

Calibration::Calibration(Plan plan, std::string name, Tensors tensors)
    : plan_(std::move(plan)), name_(std::move(name)), tensors_(std::move(tensors)), fused_(fuse_all(plan_)) {
  histograms_.resize(fused_.values.size());
  sums_.resize(fused_.values.size());
}

Calibration::~Calibration() = default;

std::shared_ptr<Calibration> Calibration::begin(nn::Module& module) {
  const c10::AutoGradMode no_grad(false);
  Plan plan = make_plan(nn::trace_evaluation(module));
  plan.input_size = module.input_size();
  CompiledModel::check_processor(plan);
  Tensors copies;
  take_copies(plan, &module, copies);
  return std::shared_ptr<Calibration>(new Calibration(std::move(plan), module.name(), std::move(copies)));
}

std::shared_ptr<Calibration> Calibration::begin(const graph::Graph& graph, std::string name,
                                                nn::InputSize input_size) {
  const c10::AutoGradMode no_grad(false);
  Plan plan = make_plan(graph);
  plan.input_size = input_size;
  CompiledModel::check_processor(plan);
  Tensors copies;
  take_copies(plan, nullptr, copies);
  return std::shared_ptr<Calibration>(new Calibration(std::move(plan), std::move(name), std::move(copies)));
}

void Calibration::check_input(const at::Tensor& input) const {
  CompiledModel::check_input(input, name_, at::kCPU, plan_.channels(plan_.input), plan_.input_size);
}

void Calibration::observe(const at::Tensor& images) {
  check_input(images);
  const c10::AutoGradMode no_grad(false);
  const at::Tensor input = images.resolve_neg();
  if (!at::isfinite(input).all().item<bool>()) {
    throw Error("ERR_SENET_CALIBRATION",
                name_ + ": an image for calibration holds numbers that are not finite");
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  if (program_ == nullptr) {
    program_ = make_observable_program(plan_, fused_);
  }
  Counting counting(histograms_.size(), static_cast<size_t>(at::get_num_threads()));
  program_->observe(input, counting);
  counting.add_to(histograms_, sums_);
  images_ += input.size(0);
  for (int64_t image = 0; image < input.size(0) && samples_.size() < kSamples; ++image) {
    samples_.push_back(input.narrow(0, image, 1).clone());
  }
}

Quantization Calibration::choose(const Histogram& histogram, const CalibrationOptions& options) const {
  Histogram::Range range{static_cast<double>(histogram.low()), static_cast<double>(histogram.high())};
  if (options.method == RangeMethod::kPercentile) {
    range = histogram.percentile(options.percentile / 100.0);
  } else if (options.method == RangeMethod::kMse) {
    range = histogram.least_error();
  }
  const double step = (range.high - range.low) / 255.0;
  Quantization result;
  if (step > 1e-30) {
    result.scale = static_cast<float>(step);
    result.zero = static_cast<int32_t>(std::clamp(std::nearbyint(-range.low / step), 0.0, 255.0));
  }
  return result;
}

std::shared_ptr<const CompiledModel> Calibration::finish(const CalibrationOptions& options) {
  QuantizationRecord record;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (images_ == 0) {
      throw Error("ERR_SENET_CALIBRATION", name_ + ": no image was given for calibration");
    }
    record.keep = options.keep;
    record.keep_first = options.keep_first;
    // The parts of a concatenation share what bytes mean.
    std::vector<Histogram> seen = histograms_;
    for (const Unit& unit : fused_.units) {
      if (unit.kind == Unit::Kind::kConcatenate) {
        for (const ValueId part : unit.inputs) {
          seen[static_cast<size_t>(unit.output)].add(histograms_[static_cast<size_t>(part)]);
        }
      }
    }
    const std::vector<std::string> names = value_names(fused_);
    for (size_t i = 0; i < names.size(); ++i) {
      if (!names[i].empty() && seen[i].count() > 0) {
        record.values[names[i]] = choose(seen[i], options);
      }
    }
  }
  const c10::AutoGradMode no_grad(false);
  const std::lock_guard<std::mutex> lock(mutex_);
  Attempt made = attempt(std::move(record));
  if (std::isfinite(options.error_budget) && !(made.record.error <= options.error_budget)) {
    made = keep_within(options.error_budget, std::move(made));
  }
  return CompiledModel::of_bytes(name_, made.plan, std::move(made.program), std::move(made.record),
                                 rounded(made.plan));
}

Calibration::Attempt Calibration::attempt(QuantizationRecord record) const {
  Attempt made{plan_, std::move(record), nullptr};
  made.record.errors.clear();
  correct(made.record);
  made.program = make_byte_program(made.plan, made.record, byte_kernels());
  measure(*made.program, made.record);
  return made;
}

void Calibration::correct(QuantizationRecord& record) const {
  record.corrections.clear();
  std::vector<ChannelMeans> means;
  for (const ChannelSums& sums : sums_) {
    means.push_back({sums.channels, sums.size});
    for (double& mean : means.back().channels) {
      mean /= static_cast<double>(sums.pixels);
    }
  }
  const std::vector<std::string> names = value_names(fused_);
  const std::vector<bool> are_bytes = find_byte_units(plan_, fused_, record.keep, record.keep_first);
  for (size_t i = 0; i < are_bytes.size(); ++i) {
    const Unit& unit = fused_.units[i];
    if (unit.kind == Unit::Kind::kConcatenate) {
      ChannelMeans& whole = means[static_cast<size_t>(unit.output)];
      whole.channels.clear();
      for (const ValueId input : unit.inputs) {
        const ChannelMeans& part = means[static_cast<size_t>(input)];
        whole.channels.insert(whole.channels.end(), part.channels.begin(), part.channels.end());
        whole.size = part.size;
      }
    }
    for (const Part& part : unit.parts) {
      const std::string& name = names[static_cast<size_t>(part.output)];
      if (are_bytes[i] && !name.empty()) {
        record.corrections[name] = lost_means(*part.node, means[static_cast<size_t>(unit.inputs.front())]);
      }
    }
  }
}

Calibration::Attempt Calibration::keep_within(double budget, Attempt from) const {
  // Those that are off the most come first. Of one whose output is float32 nothing was measured.
  std::vector<std::pair<double, std::string>> layers;
  const std::vector<bool> are_bytes =
      find_byte_units(plan_, fused_, from.record.keep, from.record.keep_first);
  for (size_t i = 0; i < are_bytes.size(); ++i) {
    if (are_bytes[i]) {
      const std::string& name = fused_.units[i].name;
      const auto error = from.record.errors.find(name);
      layers.emplace_back(error == from.record.errors.end() ? 0.0 : -error->second, name);
    }
  }
  std::sort(layers.begin(), layers.end());
  const auto with = [&](size_t count) {
    QuantizationRecord record = from.record;
    for (size_t i = 0; i < count; ++i) {
      record.keep.push_back(layers[i].second);
    }
    return attempt(std::move(record));
  };
  // Half as many of the possible numbers each time. What an attempt with fewer gave is forgotten.
  size_t too_few = 0;
  size_t enough = layers.size();
  Attempt best = with(enough);
  if (!(best.record.error <= budget)) {
    throw Error("ERR_SENET_CALIBRATION",
                name_ + ": errorBudget: expected at least " + scientific(best.record.error) +
                    ", by which the outputs are off with every layer in float32, got " + scientific(budget));
  }
  while (enough - too_few > 1) {
    const size_t middle = too_few + (enough - too_few) / 2;
    Attempt made = with(middle);
    if (made.record.error <= budget) {
      enough = middle;
      best = std::move(made);
    } else {
      too_few = middle;
    }
  }
  return best;
}

// How far each layer of bytes is off, and how far all of them are.
void Calibration::measure(const ObservableProgram& bytes, QuantizationRecord& record) const {
  std::map<std::string, Squares> totals;
  Squares outputs;
  for (const at::Tensor& sample : samples_) {
    Seen seen(fused_);
    Seeing seeing(seen);
    const at::Tensor expected = program_->observe(sample, seeing);
    Comparing comparing(seen, static_cast<size_t>(at::get_num_threads()));
    bytes.observe(sample, comparing);
    comparing.add_to(totals);
    const at::Tensor values = expected.to(at::kDouble);
    outputs.error += (bytes.run(sample, nullptr).to(at::kDouble) - values).square().sum().item<double>();
    outputs.value += values.square().sum().item<double>();
  }
  for (const auto& [name, squares] : totals) {
    record.errors[name] = squares.relative();
  }
  record.error = outputs.relative();
}

// The module's tensors, with int8 and its scales in place of the weights that were rounded.
Tensors Calibration::rounded(const Plan& plan) const {
  std::map<std::string, const Node*> nodes;
  for (size_t i = 0; i < plan.nodes.size(); ++i) {
    const Node& node = plan.nodes[i];
    if (node.weight.defined() && !node.weight.is_same(plan_.nodes[i].weight)) {
      nodes[node.name.empty() ? "weight" : node.name + ".weight"] = &node;
    }
  }
  Tensors result;
  for (const auto& [name, tensor] : tensors_) {
    const auto found = nodes.find(name);
    if (found == nodes.end()) {
      result.emplace_back(name, tensor);
      continue;
    }
    const at::Tensor scales = weight_scales(found->second->weight);
    result.emplace_back(name, to_int8(found->second->weight, scales));
    result.emplace_back(name + "_scale", scales.to(at::kFloat));
  }
  return result;
}

std::shared_ptr<const CompiledModel> Calibration::restore(QuantizationRecord record) {
  const c10::AutoGradMode no_grad(false);
  const std::lock_guard<std::mutex> lock(mutex_);
  Plan plan = plan_;
  std::unique_ptr<const Program> program = make_byte_program(plan, record, byte_kernels());
  return CompiledModel::of_bytes(name_, plan, std::move(program), std::move(record), rounded(plan));
}

}  // namespace senet::inference
