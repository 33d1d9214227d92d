#include "inference/cpu/program.h"

#include "core/error.h"
#include "core/names.h"
#include "inference/arena.h"
#include "inference/cpu/barrier.h"
#include "inference/cpu/matrix_unit.h"
#include "inference/cpu/pack.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <list>
#include <mutex>
#include <optional>
#include <string_view>
#include <utility>

namespace senet::inference {
namespace {

// Where every thread takes whole images, the weights are read once for each image: not worth it for the part
// of a program whose weights are more than a core's cache holds.
constexpr int64_t kCachedWeightBytes = 4 * 1024 * 1024;
// Images of one pass: the second part of a program keeps their activations at the same time.
constexpr int64_t kPassImages = 32;
// Schedules that are kept, each for one size of images and one number of threads.
constexpr size_t kSchedules = 8;
constexpr int64_t kAlignment = 64;

int64_t align(int64_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

// Steps [0, split) run image by image, the others on all images of a pass.
struct Schedule {
  Layout layout;
  int64_t split = 0;
};

class CpuProgram : public ObservableProgram {
 public:
  CpuProgram(Plan plan, const Kernels& kernels, Steps steps, std::vector<Buffer> buffers)
      : plan_(std::move(plan)),
        kernels_(kernels),
        steps_(std::move(steps)),
        buffers_(std::move(buffers)),
        lives_(find_lives()),
        has_bytes_(std::any_of(buffers_.begin(), buffers_.end(),
                               [](const Buffer& buffer) { return buffer.element == Element::kByte; })) {}

  at::Tensor run(const at::Tensor& input, StepSeconds* seconds) const override {
    const graph::Size2 size = {input.size(2), input.size(3)};
    const int32_t threads = at::get_num_threads();
    const std::shared_ptr<const Schedule> schedule = find_schedule(size, threads);
    const int64_t count = input.size(0);
    at::Tensor output = make_output(input, schedule->layout);
    std::vector<StepSeconds> times(seconds == nullptr ? 0 : static_cast<size_t>(threads),
                                   StepSeconds(steps_.size(), 0.0));
    const int64_t passes = (count + kPassImages - 1) / kPassImages;
    for (int64_t pass = 0; pass < passes; ++pass) {
      const int64_t first = count * pass / passes;
      const int64_t images = count * (pass + 1) / passes - first;
      const Layout& layout = schedule->layout;
      const at::Tensor arena =
          at::empty({threads * (layout.private_bytes + layout.scratch_bytes) + images * layout.shared_bytes},
                    at::TensorOptions().dtype(at::kByte));
      auto* base = reinterpret_cast<char*>(arena.mutable_data_ptr<uint8_t>());
      char* const shared = base + threads * layout.private_bytes;
      char* const scratch = shared + images * layout.shared_bytes;
      Failure failure;
      const Work work{.layout = &layout,
                      .private_base = base,
                      .shared_base = shared,
                      .scratch = scratch,
                      .images = images,
                      .first = 0,
                      .last = 0,
                      .team = {},
                      .failure = &failure,
                      .input = &input,
                      .output = &output,
                      .tensor_image = first};
      Barrier barrier;
#pragma omp parallel num_threads(threads)
      {
        // The runtime may give fewer threads than it was asked for.
        const Team team{omp_get_thread_num(), omp_get_num_threads()};
        run_pass(*schedule, work, team, barrier,
                 times.empty() ? nullptr : &times[static_cast<size_t>(team.index)]);
      }
      failure.rethrow();
    }
    if (has_bytes_) {
      spoil(input, output);
    }
    if (seconds != nullptr) {
      seconds->assign(steps_.size(), 0.0);
      for (const StepSeconds& of_thread : times) {
        for (size_t i = 0; i < of_thread.size(); ++i) {
          (*seconds)[i] += of_thread[i] / threads;
        }
      }
    }
    return output;
  }

  at::Tensor observe(const at::Tensor& input, StepObserver& observer) const override {
    const graph::Size2 size = {input.size(2), input.size(3)};
    const int32_t threads = at::get_num_threads();
    const auto end = static_cast<int64_t>(steps_.size());
    const std::shared_ptr<const Schedule> schedule = make_schedule(size, threads, end);
    const Layout& layout = schedule->layout;
    at::Tensor output = make_output(input, layout);
    const at::Tensor arena = at::empty({layout.private_bytes + threads * layout.scratch_bytes},
                                       at::TensorOptions().dtype(at::kByte));
    auto* const base = reinterpret_cast<char*>(arena.mutable_data_ptr<uint8_t>());
    Failure failure;
    for (int64_t image = 0; image < input.size(0); ++image) {
      Barrier barrier;
#pragma omp parallel num_threads(threads)
      {
        const Team team{omp_get_thread_num(), omp_get_num_threads()};
        const Work work{.layout = &layout,
                        .private_base = base,
                        .shared_base = nullptr,
                        .scratch = base + layout.private_bytes + team.index * layout.scratch_bytes,
                        .images = 1,
                        .first = 0,
                        .last = 1,
                        .team = team,
                        .failure = &failure,
                        .input = &input,
                        .output = &output,
                        .tensor_image = image};
        const auto look_on = [&](void (StepObserver::*look)(const Step&, const Work&), const Step& step) {
          try {
            if (!failure.has_one()) {
              (observer.*look)(step, work);
            }
          } catch (...) {
            failure.note();
          }
          barrier.wait(team.size);
        };
        for (int64_t i = 0; i < end; ++i) {
          const Step& step = *steps_[static_cast<size_t>(i)];
          look_on(&StepObserver::before, step);
          run_steps(i, i + 1, work, &barrier, nullptr);
          look_on(&StepObserver::after, step);
        }
      }
      failure.rethrow();
    }
    return output;
  }

  std::vector<StepInfo> explain(graph::Size2 size) const override {
    const std::shared_ptr<const Schedule> schedule = find_schedule(size, at::get_num_threads());
    std::vector<StepInfo> result;
    for (const auto& step : steps_) {
      result.push_back(step->explain(schedule->layout));
      result.back().activation_bytes = activation_bytes(*step, schedule->layout);
    }
    return result;
  }

  int64_t weight_bytes() const override {
    int64_t bytes = 0;
    for (const auto& step : steps_) {
      bytes += step->weight_bytes();
    }
    return bytes;
  }

  const char* backend() const override {
    return kernels_.name;
  }

 private:
  // A byte is never NaN: images that hold a number that is not finite give NaN, as they would in float32.
  static void spoil(const at::Tensor& input, const at::Tensor& output) {
    const at::Tensor sums = input.sum(at::IntArrayRef{1, 2, 3});
    const float* const of_image = sums.const_data_ptr<float>();
    for (int64_t image = 0; image < input.size(0); ++image) {
      if (!std::isfinite(of_image[image])) {
        output.select(0, image).fill_(std::numeric_limits<float>::quiet_NaN());
      }
    }
  }

  at::Tensor make_output(const at::Tensor& input, const Layout& layout) const {
    const BufferLayout& last = layout.buffers[static_cast<size_t>(output_buffer())];
    const int64_t channels = plan_.channels(plan_.output);
    return plan_.value(plan_.output).is_vector
               ? at::empty({input.size(0), channels}, input.options())
               : at::empty({input.size(0), channels, last.height, last.width}, input.options());
  }

  // One thread's part of a pass. All threads meet at the same barriers: which ones depends on nothing but the
  // numbers of images and threads.
  void run_pass(const Schedule& schedule, Work work, Team team, Barrier& barrier,
                StepSeconds* seconds) const noexcept {
    const int64_t alone = work.images - work.images % team.size;  // 0 if there are fewer images than threads
    char* const first_base = work.private_base;
    const int64_t end = static_cast<int64_t>(steps_.size());
    work.private_base = first_base + team.index * schedule.layout.private_bytes;
    work.scratch += team.index * schedule.layout.scratch_bytes;
    for (int64_t image = team.index; image < alone; image += team.size) {
      work.first = image;
      work.last = image + 1;
      run_steps(0, schedule.split, work, nullptr, seconds);
    }
    work.team = team;
    work.private_base = first_base;
    barrier.wait(team.size);
    for (int64_t image = alone; image < work.images; ++image) {
      work.first = image;
      work.last = image + 1;
      run_steps(0, schedule.split, work, &barrier, seconds);
    }
    work.first = 0;
    work.last = work.images;
    run_steps(schedule.split, end, work, &barrier, seconds);
  }

  // With a barrier after each where a team works together.
  void run_steps(int64_t begin, int64_t end, const Work& work, Barrier* barrier,
                 StepSeconds* seconds) const noexcept {
    for (int64_t i = begin; i < end; ++i) {
      const auto start = seconds == nullptr ? Clock::time_point() : Clock::now();
      const Step& step = *steps_[static_cast<size_t>(i)];
      for (int64_t image = work.first; image < work.last; ++image) {
        for (const BufferId buffer : step.clears) {
          work.clear_border(buffer, image);
        }
      }
      step.run(work);
      if (barrier != nullptr) {
        barrier->wait(work.team.size);
      }
      if (seconds != nullptr) {
        (*seconds)[static_cast<size_t>(i)] += std::chrono::duration<double>(Clock::now() - start).count();
      }
    }
  }

  static int64_t activation_bytes(const Step& step, const Layout& layout) {
    int64_t bytes = 0;
    for (const auto& touched : {step.reads(), step.writes()}) {
      for (const BufferId buffer : touched) {
        bytes += layout.buffers[static_cast<size_t>(buffer)].image_bytes;
      }
    }
    return bytes;
  }

  BufferId output_buffer() const {
    return steps_.back()->reads().front();
  }

  std::vector<Life> find_lives() const {
    std::vector<Life> lives(buffers_.size());
    for (size_t i = 0; i < steps_.size(); ++i) {
      const auto touch = [&](const std::vector<BufferId>& touched) {
        for (const BufferId buffer : touched) {
          lives[static_cast<size_t>(buffer)].extend(static_cast<int64_t>(i));
        }
      };
      touch(steps_[i]->reads());
      touch(steps_[i]->writes());
    }
    return lives;
  }

  std::shared_ptr<const Schedule> find_schedule(graph::Size2 size, int32_t threads) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (auto it = schedules_.begin(); it != schedules_.end(); ++it) {
      if (it->size == size && it->threads == threads) {
        schedules_.splice(schedules_.begin(), schedules_, it);
        return it->schedule;
      }
    }
    schedules_.push_front({size, threads, make_schedule(size, threads, std::nullopt)});
    if (schedules_.size() > kSchedules) {
      schedules_.pop_back();
    }
    return schedules_.front().schedule;
  }

  // With `split` where it is given.
  std::shared_ptr<const Schedule> make_schedule(graph::Size2 size, int32_t threads,
                                                std::optional<int64_t> split) const {
    auto schedule = std::make_shared<Schedule>();
    Layout& layout = schedule->layout;
    const std::vector<graph::Size2> sizes = infer_sizes(plan_, size);
    for (const Buffer& buffer : buffers_) {
      BufferLayout at;
      at.channels = buffer.channels;
      at.pixel = buffer.pixel;
      at.border = buffer.border;
      at.element_bytes = buffer.per_thread                      ? 8
                         : buffer.element == Element::kFloat    ? 4
                         : buffer.element == Element::kBfloat16 ? 2
                                                                : 1;
      at.zero = buffer.zero;
      if (buffer.value != kNoValue) {
        at.height = sizes[static_cast<size_t>(buffer.value)][0];
        at.width = sizes[static_cast<size_t>(buffer.value)][1];
      }
      at.row = (at.width + 2 * at.border[1]) * at.pixel;
      at.interior = at.border[0] * at.row + at.border[1] * at.pixel;
      const int64_t pixels = buffer.per_thread ? threads : at.height + 2 * at.border[0];
      at.image_bytes = align(pixels * (buffer.per_thread ? at.pixel : at.row) * at.element_bytes);
      layout.buffers.push_back(at);
    }
    schedule->split = split.value_or(find_split(layout));
    for (size_t i = 0; i < buffers_.size(); ++i) {
      layout.buffers[i].is_shared = lives_[i].last >= schedule->split;
    }
    for (const auto& step : steps_) {
      layout.scratch_bytes = std::max(layout.scratch_bytes, align(step->scratch_bytes(layout)));
    }
    layout.private_bytes = lay_out_region(layout, /*shared=*/false);
    layout.shared_bytes = lay_out_region(layout, /*shared=*/true);
    return schedule;
  }

  // The step from which on all convolutions have more weights than activations, if that is worth it.
  int64_t find_split(const Layout& layout) const {
    const int64_t end = static_cast<int64_t>(steps_.size());
    int64_t split = end;
    int64_t weights = 0;
    for (int64_t i = end; i-- > 0;) {
      const Step& step = *steps_[static_cast<size_t>(i)];
      if (step.is_convolution() && step.weight_bytes() < activation_bytes(step, layout)) {
        break;
      }
      weights += step.weight_bytes();
      split = i;
    }
    if (weights < kCachedWeightBytes) {
      return end;
    }
    // Partial sums are made and added up by one team.
    const auto cuts_sums = [&](int64_t at) {
      for (size_t i = 0; i < buffers_.size(); ++i) {
        if (buffers_[i].per_thread && lives_[i].first < at && at <= lives_[i].last) {
          return true;
        }
      }
      return false;
    };
    while (split < end && cuts_sums(split)) {
      ++split;
    }
    return split;
  }

  // Places the buffers of a region; its size.
  int64_t lay_out_region(Layout& layout, bool shared) const {
    std::vector<ArenaBlock> blocks(buffers_.size());
    for (size_t i = 0; i < buffers_.size(); ++i) {
      if (layout.buffers[i].is_shared == shared) {
        blocks[i] = {lives_[i], layout.buffers[i].image_bytes};
      }
    }
    const int64_t total = lay_out(blocks);
    for (size_t i = 0; i < buffers_.size(); ++i) {
      if (layout.buffers[i].is_shared == shared) {
        layout.buffers[i].offset_bytes = blocks[i].offset;
      }
    }
    return total;
  }

  using Clock = std::chrono::steady_clock;

  struct Known {
    graph::Size2 size;
    int32_t threads;
    std::shared_ptr<const Schedule> schedule;
  };

  const Plan plan_;  // without the source's tensors
  const Kernels& kernels_;
  const Steps steps_;
  const std::vector<Buffer> buffers_;
  const std::vector<Life> lives_;
  const bool has_bytes_;
  mutable std::mutex mutex_;
  mutable std::list<Known> schedules_;  // the latest first
};

// Those that SENET_COMPILE_KERNELS names, to compare and to test what another processor would run. Null is
// LibTorch's operators.
const Kernels* named_kernels(const char* wish) {
  const std::string_view name = wish;
  if (name == "libtorch") {
    return nullptr;
  }
  if (const Kernels* kernels = processor_kernels(name)) {
    return kernels;
  }
  throw Error(
      "ERR_SENET_COMPILE",
      "compile: SENET_COMPILE_KERNELS: expected libtorch, or what the processor and the build have of " +
          kernels_names() + ", got '" + std::string(name) + "'");
}

// Whether oneDNN has the better bfloat16: a matrix unit does several times the products of vectors, and this
// build has no kernels of ours for it.
bool is_for_onednn(const Kernels& kernels) {
  return matrix_unit().has_bfloat16 && kernels.bfloat16->tiles == nullptr;
}

// Our kernels for this element type: those that were asked for, else the best if nothing of LibTorch's is
// better.
const Kernels* kernels_for(at::ScalarType dtype) {
  if (dtype != at::kFloat && dtype != at::kBFloat16) {
    return nullptr;
  }
  const Element element = dtype == at::kFloat ? Element::kFloat : Element::kBfloat16;
  const char* const wish = std::getenv("SENET_COMPILE_KERNELS");
  const Kernels* const kernels = wish == nullptr ? best_kernels(element) : named_kernels(wish);
  if (kernels == nullptr || kernels->of(element) == nullptr) {
    return nullptr;
  }
  return element == Element::kBfloat16 && wish == nullptr && is_for_onednn(*kernels) ? nullptr : kernels;
}

}  // namespace

bool serves_cpu_kernels(const Target& target) {
  return target.device.is_cpu() && kernels_for(target.dtype) != nullptr;
}

std::string why_no_cpu_kernels(const Target& target) {
  if (!target.device.is_cpu()) {
    return "";
  }
  const char* const wish = std::getenv("SENET_COMPILE_KERNELS");
  if (target.dtype == at::kChar || kernels_for(target.dtype) != nullptr) {
    const bool could_have_tiles = wish == nullptr && target.dtype != at::kFloat;
    return could_have_tiles ? matrix_unit().refusal : "";
  }
  if (wish != nullptr) {
    return std::string("SENET_COMPILE_KERNELS is ") + wish;
  }
  if (best_kernels(Element::kFloat) == nullptr) {
    return "this processor has no AVX2 with FMA, or the build has no kernels for it";
  }
  return target.dtype == at::kBFloat16 && matrix_unit().has_bfloat16
             ? "oneDNN uses the processor's matrix unit, for which this build has no kernels"
             : std::string("these kernels do not compute in ") + dtype_name(target.dtype);
}

const char* cpu_kernels_name(const Target& target) {
  return kernels_for(target.dtype)->name;
}

const Kernels& byte_kernels() {
  const char* const wish = std::getenv("SENET_COMPILE_KERNELS");
  const Kernels* const kernels = wish == nullptr ? best_kernels(Element::kByte) : named_kernels(wish);
  if (kernels == nullptr || kernels->bytes == nullptr) {
    throw Error("ERR_SENET_DTYPE", std::string("compile: the kernels '") + (wish == nullptr ? "" : wish) +
                                       "' (SENET_COMPILE_KERNELS) compute no int8");
  }
  return *kernels;
}

std::unique_ptr<const ObservableProgram> make_observable_program(const Plan& plan, const Fused& fused) {
  Placed placed = place_values(plan, fused, /*is_float=*/true);
  const Kernels& kernels = byte_kernels();
  Steps steps = pack_steps(fused, placed, kernels, /*is_float=*/true);
  return std::make_unique<const CpuProgram>(without_tensors(plan), kernels, std::move(steps),
                                            std::move(placed.buffers));
}

std::unique_ptr<const ObservableProgram> make_byte_program(Plan& plan, const QuantizationRecord& record,
                                                           const Kernels& kernels) {
  Fused fused = fuse_plan(plan);
  const std::vector<bool> byte_units = find_byte_units(plan, fused, record.keep, record.keep_first);
  round_weights(fused, byte_units, plan);
  correct_biases(record, fused, byte_units, plan);
  quantize_values(record, byte_units, fused);
  Placed placed = place_values(plan, fused, /*is_float=*/true);
  Steps steps = pack_steps(fused, placed, kernels, /*is_float=*/true);
  return std::make_unique<const CpuProgram>(without_tensors(plan), kernels, std::move(steps),
                                            std::move(placed.buffers));
}

std::unique_ptr<const Program> make_cpu_program(const Plan& plan, const Target& target) {
  return make_cpu_program(plan, *kernels_for(target.dtype), target.dtype);
}

std::unique_ptr<const Program> make_cpu_program(const Plan& plan, const Kernels& kernels,
                                                at::ScalarType element) {
  const bool is_float = element == at::kFloat;
  const Fused fused = fuse_plan(plan);
  Placed placed = place_values(plan, fused, is_float);
  Steps steps = pack_steps(fused, placed, kernels, is_float);
  return std::make_unique<const CpuProgram>(without_tensors(plan), kernels, std::move(steps),
                                            std::move(placed.buffers));
}

}  // namespace senet::inference
