#include "inference/cuda/sequence.h"

#include "core/error.h"
#include "inference/arena.h"
#include "inference/cuda/choices.h"
#include "inference/cuda/pinned_memory.h"
#include "inference/cuda/stopwatch.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

namespace senet::inference::cuda {
namespace {

constexpr int kMeasuredRuns = 5;
// Plans that cuDNN compiles take a second of a processor each to make; others some milliseconds.
constexpr int kMeasuredCompiledPlans = 4;
// Plans that want more memory than this beside the activations are not taken.
constexpr int64_t kMostWorkspace = int64_t{256} << 20;
constexpr int64_t kAlignment = 256;
constexpr int64_t kMostDenseChannels = 12'000;
// What the arena holds while plans are measured: neither zeros, with which matrix units run faster, nor NaN.
constexpr int kFilling = 0x3c;

int64_t align(int64_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

class CapturedSequence : public Sequence {
 public:
  CapturedSequence(const Machine& machine, const Host& host, const Steps& steps,
                   const std::vector<Pair>& sizes, int64_t n, const Setup& setup)
      : machine_(machine), host_(host), steps_(steps), sizes_(sizes), n_(n), run_stream_(setup.stream) {
    if (setup.images != nullptr) {
      images_ = *setup.images;
    }
    const int64_t values = lay_out_values();
    memory_ = host.allocate(std::max<int64_t>(values, kAlignment));
    bytes_ = values;
    const auto& driver = machine.driver;
    if (images_) {
      host_input_ = std::make_unique<const PinnedMemory>(driver, upload_bytes());
      host_output_ = std::make_unique<const PinnedMemory>(driver, results_bytes());
    }
    check_cuda(driver, driver.cudaStreamCreateWithFlags(&stream_, runtime::kCudaStreamNonBlocking),
               "a stream");
    try {
      if (setup.known != nullptr) {
        take(setup.known);
      } else {
        choose_plans();
      }
      capture();
    } catch (...) {
      release();
      throw;
    }
  }

  ~CapturedSequence() override {
    release();
  }
  CapturedSequence(const CapturedSequence&) = delete;
  CapturedSequence& operator=(const CapturedSequence&) = delete;

  Activation input() const override {
    return at(steps_.input);
  }
  Activation output() const override {
    return at(steps_.output);
  }

  void* host_input() const override {
    return host_input_ == nullptr ? nullptr : host_input_->data();
  }
  const float* host_output() const override {
    return host_output_ == nullptr ? nullptr : static_cast<const float*>(host_output_->data());
  }

  void run() const override {
    const auto& driver = machine_.driver;
    if (graph_ != nullptr) {
      check_cuda(driver, driver.cudaGraphLaunch(graph_, run_stream_), "a compiled model's graph");
      return;
    }
    const std::lock_guard<std::mutex> lock(machine_.handle_mutex);
    enqueue_all(kDefaultStream);
  }

  Stream stream() const override {
    return graph_ != nullptr ? run_stream_ : kDefaultStream;
  }
  std::shared_ptr<const Choices> choices() const override {
    return choices_;
  }

  std::vector<double> profile() const override {
    const std::lock_guard<std::mutex> lock(machine_.handle_mutex);
    const Stopwatch watch(machine_.driver);
    std::vector<double> seconds;
    for (size_t i = 0; i < steps_.steps.size(); ++i) {
      watch.start(kDefaultStream);
      enqueue(i, kDefaultStream);
      seconds.push_back(watch.stop(kDefaultStream) / 1e3);
    }
    return seconds;
  }

  std::string kernel_of(size_t step) const override {
    const Step::Kind kind = steps_.steps[step].kind;
    return kind == Step::Kind::kConvolution
               ? choices_->of_steps[step].name()
               : form_name(kind == Step::Kind::kOperator ? Form::kHost : Form::kOurs);
  }

  bool is_graph() const override {
    return graph_ != nullptr;
  }
  int64_t bytes() const override {
    return bytes_;
  }

 private:
  // --- where values lie
  // -------------------------------------------------------------------------------------

  Activation at(Id id) const {
    Activation result = shape_of(id);
    result.data = base() + blocks_[static_cast<size_t>(id)].offset;
    return result;
  }

  Activation shape_of(Id id) const {
    const Value& value = steps_.value(id);
    const Pair size = size_of(value);
    return {nullptr, n_, size[0], size[1], value.channels, value.pitch};
  }

  Pair size_of(const Value& value) const {
    return value.size_of == kNone ? Pair{1, 1} : sizes_[static_cast<size_t>(value.size_of)];
  }

  int64_t parts_of(const Step& mean) const {
    return mean_parts(shape_of(mean.inputs.front()), machine_.multiprocessors);
  }

  int64_t lay_out_values() {
    blocks_.resize(steps_.values.size());
    const auto touch = [&](Id id, size_t step) {
      if (id != kNone) {
        blocks_[static_cast<size_t>(id)].life.extend(static_cast<int64_t>(step));
      }
    };
    touch(steps_.input, 0);
    for (size_t i = 0; i < steps_.steps.size(); ++i) {
      const Step& step = steps_.steps[i];
      for (const Id input : step.inputs) {
        touch(input, i);
      }
      touch(step.factors, i);
      touch(step.residual, i);
      touch(step.output, i);
    }
    // Images are written before the first step and results read behind the last, maybe of another batch.
    touch(steps_.output, steps_.steps.size());
    for (size_t i = 0; i < steps_.values.size(); ++i) {
      const Value& value = steps_.values[i];
      const Pair size = size_of(value);
      blocks_[i].bytes = align(n_ * size[0] * size[1] * value.pitch * bytes_of(machine_.type));
    }
    for (const Step& step : steps_.steps) {
      if (step.kind == Step::Kind::kMean) {
        const int64_t channels = steps_.value(step.output).channels;
        blocks_[static_cast<size_t>(step.output)].bytes = align(n_ * parts_of(step) * channels * 4);
      }
    }
    if (images_) {
      const auto end = static_cast<int64_t>(steps_.steps.size());
      blocks_.push_back({{0, 0}, align(upload_bytes())});
      blocks_.push_back({{end, end}, align(results_bytes())});
    }
    return lay_out(blocks_);
  }

  // --- between the host and the device
  // -----------------------------------------------------------------------

  int64_t upload_bytes() const {
    const Activation x = shape_of(steps_.input);
    return n_ * x.height * x.width * images_->channels * (images_->is_bytes ? 1 : 4);
  }
  int64_t results_bytes() const {
    const Activation y = shape_of(steps_.output);
    return n_ * y.height * y.width * y.channels * 4;
  }
  // On the device: images as they were in the host's memory, and results as they will be there.
  char* upload() const {
    return base() + blocks_[blocks_.size() - 2].offset;
  }
  char* results() const {
    return base() + blocks_.back().offset;
  }

  void enqueue_upload(Stream stream) const {
    const auto& driver = machine_.driver;
    check_cuda(driver,
               driver.cudaMemcpyAsync(upload(), host_input_->data(), static_cast<size_t>(upload_bytes()),
                                      runtime::kCudaMemcpyHostToDevice, stream),
               "the upload of images");
    Activation to = input();
    const int64_t channels = to.channels;
    const int64_t pixels = to.height * to.width;
    const int64_t stored = images_->channels;
    std::array<int64_t, 4> strides = images_->is_planar
                                         ? std::array{stored * pixels, pixels, to.width, int64_t{1}}
                                         : std::array{stored * pixels, int64_t{1}, to.width * stored, stored};
    if (stored != channels) {
      strides[1] = 0;
    }
    to.channels = to.pitch;
    if (images_->is_bytes) {
      machine_.kernels.run(Unpack{reinterpret_cast<const unsigned char*>(upload()), strides, channels,
                                  images_->mean, images_->deviation, to},
                           stream);
    } else {
      machine_.kernels.run(Import{reinterpret_cast<const float*>(upload()), strides, channels, to}, stream);
    }
  }

  void enqueue_download(Stream stream) const {
    const Activation from = output();
    machine_.kernels.run(Export{from, from.channels, reinterpret_cast<float*>(results())}, stream);
    const auto& driver = machine_.driver;
    check_cuda(driver,
               driver.cudaMemcpyAsync(host_output_->data(), results(), static_cast<size_t>(results_bytes()),
                                      runtime::kCudaMemcpyDeviceToHost, stream),
               "the download of results");
  }

  char* base() const {
    return static_cast<char*>(memory_.get());
  }

  // --- cuDNN's plans
  // ----------------------------------------------------------------------------------------

  Convolution describe(const Step& step, Form form) const {
    const Activation x = at(step.inputs.front());
    const Activation y = at(step.output);
    const bool is_whole = form == Form::kWhole;
    const bool has_tail = step.factors != kNone || step.residual != kNone;
    Convolution result{};
    result.type = machine_.type;
    result.allow_tf32 = machine_.allow_tf32;
    result.n = n_;
    result.height = x.height;
    result.width = x.width;
    result.in_channels = x.pitch;
    result.out_channels = y.pitch;
    result.groups = step.groups;
    result.kernel = step.kernel;
    result.stride = step.stride;
    result.padding = step.padding;
    result.dilation = step.dilation;
    result.out_height = y.height;
    result.out_width = y.width;
    result.has_bias = form != Form::kBare;
    result.has_factors = is_whole && step.factors != kNone;
    result.has_residual = is_whole && step.residual != kNone;
    result.relu = step.relu && (is_whole || (form == Form::kWithBias && !has_tail));
    return result;
  }

  // Whether a form leaves something to the pointwise kernel.
  static bool has_rest(const Step& step, Form form) {
    return form == Form::kBare ||
           (form == Form::kWithBias && (step.factors != kNone || step.residual != kNone));
  }

  Conv1x1 conv1x1_of(const Step& step) const {
    const Activation x = at(step.inputs.front());
    const Activation y = at(step.output);
    const auto data = [&](Id id) { return id == kNone ? nullptr : at(id).data; };
    return {x.data,
            step.weight,
            step.shift,
            data(step.factors),
            data(step.residual),
            y.data,
            n_ * x.height * x.width,
            x.height * x.width,
            x.pitch,
            y.pitch,
            step.relu};
  }

  // The tiles with which our kernels serve a step; 0: as a layer of vectors.
  std::vector<int> our_tiles(const Step& step) const {
    const Activation x = at(step.inputs.front());
    const bool is_1x1 = step.kernel == Pair{1, 1} && step.stride == Pair{1, 1} &&
                        step.padding == Pair{0, 0} && step.groups == 1;
    std::vector<int> tiles;
    if (is_1x1 && x.height * x.width == 1 && step.factors == kNone && step.residual == kNone &&
        x.pitch <= kMostDenseChannels) {
      tiles.push_back(0);
    }
    if (is_1x1 && machine_.kernels.serves(conv1x1_of(step))) {
      tiles.insert(tiles.end(), {64, 128});
    }
    return tiles;
  }

  // cuDNN (9.19) reads the factors of the second and later images from wrong addresses: seen on an H200,
  // where the device refuses them as misaligned.
  bool needs_ours(const Step& step) const {
    return step.factors != kNone && n_ > 1;
  }

  std::vector<Candidate> find_candidates(CudnnHandle handle, const Step& step,
                                         const std::string& remembered) const {
    std::vector<Candidate> result;
    for (const int tile_rows : our_tiles(step)) {
      const Candidate ours{Form::kOurs, nullptr, tile_rows};
      if (remembered.empty() ? machine_.measured_plans > 1 || needs_ours(step) : remembered == ours.name()) {
        result.push_back(ours);
      }
    }
    if (!result.empty() && (!remembered.empty() || machine_.measured_plans == 1)) {
      result.resize(1);
      return result;
    }
    for (const Form form : kCudnnForms) {
      const std::string prefix = form_name(form) + std::string("\n");
      const bool is_known = remembered.starts_with(prefix);
      const bool is_same_as_whole = form == Form::kWithBias && !has_rest(step, form);
      const bool is_last_resort = form == Form::kBare && !result.empty();
      const bool is_wrong = form == Form::kWhole && needs_ours(step);
      if (is_same_as_whole || is_last_resort || is_wrong || (!remembered.empty() && !is_known)) {
        continue;
      }
      const Convolution convolution = describe(step, form);
      const int limit = convolution.has_factors ? std::min(machine_.measured_plans, kMeasuredCompiledPlans)
                                                : machine_.measured_plans;
      for (auto& plan : find_plans(machine_.driver, handle, convolution, static_cast<size_t>(limit),
                                   is_known ? remembered.substr(prefix.size()) : "")) {
        if (plan->workspace_bytes() <= kMostWorkspace) {
          result.push_back({form, std::move(plan)});
        }
      }
    }
    // What an older library knew may be none of this one's.
    return result.empty() && !remembered.empty() ? find_candidates(handle, step, "") : result;
  }

  // Plans take a second each to make where cuDNN compiles them: by as many threads as there are handles. One
  // sequence at a time in the process: handles are of one thread, programs share them, and a measurement
  // wants the device.
  void choose_plans() {
    static auto* const one_at_a_time = new std::mutex;
    const std::lock_guard<std::mutex> alone(*one_at_a_time);
    std::map<std::string, size_t> first_of;  // the same convolution has the same plan
    std::vector<size_t> unique;
    for (size_t i = 0; i < steps_.steps.size(); ++i) {
      const Step& step = steps_.steps[i];
      if (step.kind == Step::Kind::kConvolution &&
          first_of.emplace(describe(step, Form::kWhole).key(), i).second) {
        unique.push_back(i);
      }
    }
    std::vector<std::vector<Candidate>> candidates(unique.size());
    std::atomic<size_t> next{0};
    std::exception_ptr failure;
    std::mutex mutex;
    const auto plan = [&](CudnnHandle handle) {
      try {
        check_cuda(machine_.driver, machine_.driver.cudaSetDevice(machine_.device), "a device");
        for (size_t i = next++; i < unique.size(); i = next++) {
          const Step& step = steps_.steps[unique[i]];
          candidates[i] =
              find_candidates(handle, step, machine_.cache.find(describe(step, Form::kWhole).key()));
        }
      } catch (...) {
        const std::lock_guard<std::mutex> lock(mutex);
        failure = std::current_exception();
      }
    };
    std::vector<std::thread> threads;
    for (size_t i = 1; i < std::min(machine_.planners.size(), unique.size()); ++i) {
      threads.emplace_back(plan, machine_.planners[i]);
    }
    plan(machine_.planners.front());
    for (std::thread& thread : threads) {
      thread.join();
    }
    if (failure) {
      std::rethrow_exception(failure);
    }
    auto choices = std::make_shared<Choices>();
    choices->of_steps.resize(steps_.steps.size());
    measure(unique, candidates, choices->of_steps);
    for (size_t i = 0; i < steps_.steps.size(); ++i) {
      if (steps_.steps[i].kind == Step::Kind::kConvolution) {
        choices->of_steps[i] = choices->of_steps[first_of.at(describe(steps_.steps[i], Form::kWhole).key())];
      }
    }
    choices_ = std::move(choices);
  }

  // What another sequence of this number and size chose: neither planned nor measured anew.
  void take(std::shared_ptr<const Choices> known) {
    choices_ = std::move(known);
    int64_t needed = 0;
    for (const Candidate& candidate : choices_->of_steps) {
      needed = std::max(needed, candidate.workspace_bytes());
    }
    set_workspace(needed);
    wait_for_default_stream();
  }

  void set_workspace(int64_t needed) {
    workspace_ = needed > 0 ? host_.allocate(needed) : nullptr;
    bytes_ += needed;
  }

  // The allocator gives memory that the default stream may still work on; other streams do not wait for it.
  void wait_for_default_stream() const {
    check_cuda(machine_.driver, machine_.driver.cudaStreamSynchronize(kDefaultStream), "what ran before");
  }

  void measure(const std::vector<size_t>& unique, std::vector<std::vector<Candidate>>& candidates,
               std::vector<Candidate>& chosen_of) {
    const std::lock_guard<std::mutex> lock(machine_.handle_mutex);
    int64_t workspace = 0;
    for (const auto& of_step : candidates) {
      for (const Candidate& candidate : of_step) {
        workspace = std::max(workspace, candidate.workspace_bytes());
      }
    }
    workspace_ = host_.allocate(std::max<int64_t>(workspace, kAlignment));
    const auto& driver = machine_.driver;
    wait_for_default_stream();
    const Stopwatch watch(driver);
    int64_t needed = 0;
    for (size_t i = 0; i < unique.size(); ++i) {
      if (candidates[i].size() > 1) {
        check_cuda(driver, driver.cudaMemsetAsync(base(), kFilling, static_cast<size_t>(bytes_), stream_),
                   "an arena");
      }
      float best = 0;
      for (const Candidate& candidate : candidates[i]) {
        const float time = candidates[i].size() > 1 ? time_of(unique[i], candidate, watch) : 0;
        if (chosen_of[unique[i]].form == Form::kHost || time < best) {
          chosen_of[unique[i]] = candidate;
          best = time;
        }
      }
      const Candidate& chosen = chosen_of[unique[i]];
      needed = std::max(needed, chosen.workspace_bytes());
      if (candidates[i].size() > 1) {
        remember(steps_.steps[unique[i]], chosen);
      }
    }
    set_workspace(needed);
    wait_for_default_stream();
  }

  void remember(const Step& step, const Candidate& chosen) const {
    const std::string plan = chosen.plan ? chosen.plan->serialise() : "";
    if (!chosen.plan || !plan.empty()) {
      machine_.cache.keep(describe(step, Form::kWhole).key(),
                          chosen.plan ? form_name(chosen.form) + ('\n' + plan) : chosen.name());
    }
  }

  // Milliseconds, of the fastest of some runs.
  float time_of(size_t step, const Candidate& candidate, const Stopwatch& watch) const try {
    enqueue_convolution(steps_.steps[step], candidate, stream_);
    float best = 0;
    for (int run = 0; run < kMeasuredRuns; ++run) {
      watch.start(stream_);
      enqueue_convolution(steps_.steps[step], candidate, stream_);
      const float time = watch.stop(stream_);
      best = run == 0 ? time : std::min(best, time);
    }
    return best;
  } catch (const Error& error) {
    throw Error(error.code(), describe(steps_.steps[step], candidate.form).key() + " by " + candidate.name() +
                                  ": " + error.what());
  }

  // --- running
  // ----------------------------------------------------------------------------------------------

  void enqueue_all(Stream stream) const {
    if (images_) {
      enqueue_upload(stream);
    }
    for (size_t i = 0; i < steps_.steps.size(); ++i) {
      enqueue(i, stream);
    }
    if (images_) {
      enqueue_download(stream);
    }
  }

  void enqueue(size_t index, Stream stream) const {
    const Step& step = steps_.steps[index];
    switch (step.kind) {
      case Step::Kind::kConvolution:
        enqueue_convolution(step, choices_->of_steps[index], stream);
        return;
      case Step::Kind::kPointwise:
        machine_.kernels.run(pointwise_of(step, at(step.inputs.front()), step.scale, step.shift), stream);
        return;
      case Step::Kind::kMean: {
        const Activation x = at(step.inputs.front());
        machine_.kernels.run(Mean{x, static_cast<float*>(at(step.output).data), parts_of(step)}, stream);
        return;
      }
      case Step::Kind::kExcite:
        machine_.kernels.run(excite_of(index), stream);
        return;
      case Step::Kind::kPool:
        machine_.kernels.run(Pool{at(step.inputs.front()), at(step.output), step.kernel, step.stride,
                                  step.padding, step.is_max, step.count_include_pad},
                             stream);
        return;
      case Step::Kind::kConcatenate:
        concatenate(step, stream);
        return;
      case Step::Kind::kOperator:
        operate(step);
        return;
    }
  }

  void enqueue_convolution(const Step& step, const Candidate& chosen, Stream stream) const {
    if (chosen.form == Form::kHost) {
      operate(step);
      enqueue_rest(step, Form::kBare, stream);
      return;
    }
    const Activation x = at(step.inputs.front());
    const Activation y = at(step.output);
    if (chosen.form == Form::kOurs && chosen.tile_rows > 0) {
      machine_.kernels.run(conv1x1_of(step), chosen.tile_rows, stream);
      return;
    }
    if (chosen.form == Form::kOurs) {
      machine_.kernels.run(Dense{x.data, step.weight, step.shift, y.data, n_, x.pitch, y.pitch, step.relu},
                           stream);
      return;
    }
    const auto& driver = machine_.driver;
    const bool is_whole = chosen.form == Form::kWhole;
    check_cudnn(driver, driver.cudnnSetStream(machine_.handle, stream), "cudnnSetStream");
    chosen.plan->run(machine_.handle, {x.data, step.weight, chosen.form == Form::kBare ? nullptr : step.bias,
                                       is_whole && step.factors != kNone ? at(step.factors).data : nullptr,
                                       is_whole && step.residual != kNone ? at(step.residual).data : nullptr,
                                       y.data, workspace_.get()});
    if (has_rest(step, chosen.form)) {
      enqueue_rest(step, chosen.form, stream);
    }
  }

  // What a convolution's kernel left to do, in place.
  void enqueue_rest(const Step& step, Form form, Stream stream) const {
    const float* const shift = form == Form::kBare ? step.shift : nullptr;
    machine_.kernels.run(pointwise_of(step, at(step.output), nullptr, shift), stream);
  }

  Pointwise pointwise_of(const Step& step, const Activation& x, const float* scale,
                         const float* shift) const {
    Pointwise result{x, at(step.output), scale, shift};
    result.factors = step.factors == kNone ? nullptr : at(step.factors).data;
    result.residual = step.residual == kNone ? Activation{} : at(step.residual);
    result.relu = step.relu;
    return result;
  }

  Excite excite_of(size_t index) const {
    const Step& step = steps_.steps[index];
    const Step& mean = steps_.steps[index - 1];  // lower.cpp puts them beside each other
    Excite result{};
    result.parts = static_cast<const float*>(at(step.inputs.front()).data);
    result.n = n_;
    result.part_count = parts_of(mean);
    result.in_channels = steps_.value(mean.output).channels;
    result.hidden = step.hidden;
    result.channels = steps_.value(step.output).channels;
    result.w1 = step.w1;
    result.b1 = step.b1;
    result.w2 = step.w2;
    result.b2 = step.b2;
    result.kernel = step.channel_kernel;
    result.kernel_size = step.kernel_size;
    result.factors = at(step.output).data;
    return result;
  }

  void concatenate(const Step& step, Stream stream) const {
    Activation to = at(step.output);
    for (const Id input : step.inputs) {
      const Activation from = at(input);
      to.channels = from.channels;
      machine_.kernels.copy(from, to, stream);
      to.data = static_cast<char*>(to.data) + from.channels * bytes_of(machine_.type);
    }
  }

  void operate(const Step& step) const {
    std::vector<Activation> inputs;
    for (const Id input : step.inputs) {
      inputs.push_back(at(input));
    }
    host_.operate(step, inputs, at(step.output));
  }

  bool can_be_captured() const {
    for (size_t i = 0; i < steps_.steps.size(); ++i) {
      if (kernel_of(i) == form_name(Form::kHost)) {
        return false;
      }
    }
    return true;
  }

  void capture() {
    if (!can_be_captured()) {
      return;
    }
    const std::lock_guard<std::mutex> lock(machine_.handle_mutex);
    const auto& driver = machine_.driver;
    Graph graph = nullptr;
    check_cuda(driver, driver.cudaStreamBeginCapture(stream_, runtime::kCudaStreamCaptureModeThreadLocal),
               "the capture of a graph");
    try {
      enqueue_all(stream_);
    } catch (...) {
      driver.cudaStreamEndCapture(stream_, &graph);
      if (graph != nullptr) {
        driver.cudaGraphDestroy(graph);
      }
      throw;
    }
    check_cuda(driver, driver.cudaStreamEndCapture(stream_, &graph), "the capture of a graph");
    const int status = driver.cudaGraphInstantiateWithFlags(&graph_, graph, 0);
    driver.cudaGraphDestroy(graph);
    check_cuda(driver, status, "the making of a graph");
  }

  // Kernels of a plan go with it, so nothing may run any more.
  void release() noexcept {
    const auto& driver = machine_.driver;
    int before = 0;
    driver.cudaGetDevice(&before);
    driver.cudaSetDevice(machine_.device);
    driver.cudaStreamSynchronize(kDefaultStream);
    if (run_stream_ != kDefaultStream) {
      driver.cudaStreamSynchronize(run_stream_);
    }
    if (graph_ != nullptr) {
      driver.cudaGraphExecDestroy(graph_);
    }
    if (stream_ != nullptr) {
      driver.cudaStreamSynchronize(stream_);
      driver.cudaStreamDestroy(stream_);
    }
    choices_ = nullptr;
    driver.cudaSetDevice(before);
  }

  const Machine& machine_;
  const Host& host_;
  const Steps& steps_;
  const std::vector<Pair> sizes_;
  const int64_t n_;
  const Stream run_stream_;
  std::optional<HostImages> images_;
  std::vector<ArenaBlock> blocks_;  // of the values; then, with images_, the uploaded ones and the results
  std::shared_ptr<void> memory_;
  std::shared_ptr<void> workspace_;  // of all convolutions: they run one after the other
  int64_t bytes_ = 0;
  std::unique_ptr<const PinnedMemory> host_input_;
  std::unique_ptr<const PinnedMemory> host_output_;
  std::shared_ptr<const Choices> choices_;
  Stream stream_ = nullptr;  // measures and captures
  GraphRun graph_ = nullptr;
};

}  // namespace

std::unique_ptr<const Sequence> make_sequence(const Machine& machine, const Host& host, const Steps& steps,
                                              const std::vector<Pair>& sizes, int64_t n, const Setup& setup) {
  return std::make_unique<const CapturedSequence>(machine, host, steps, sizes, n, setup);
}

}  // namespace senet::inference::cuda
