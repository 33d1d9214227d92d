// How steps do their work: what falls to one member of a team, and the tasks that the kernels get for it.
// What is said of steps to people is in print.cpp, Winograd's convolutions are in winograd.cpp.
#include "inference/cpu/steps.h"

#include "inference/cpu/matrix_unit.h"
#include "inference/cpu/winograd.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>
#include <c10/util/BFloat16.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

namespace senet::inference {
namespace {

// Bytes of a convolution's input that are walked for all panels before the next: about a quarter of a core's
// second-level cache, so that the weights of a panel have room beside it.
constexpr int64_t kChunkBytes = 256 * 1024;
// Pixels of such a part: enough that reading a panel's weights from the shared cache is hidden behind the
// products.
constexpr int64_t kChunkPixels = 96;
// The same for a matrix unit, which computes as many products in a sixteenth of the time.
constexpr int64_t kTileChunkPixels = 192;
// With fewer pixels for each thread than this, threads share out the panels.
constexpr int64_t kFewPixels = 48;
// Elements of a window up to which a block's outputs are worth fetching ahead: its products take about as
// long as that.
constexpr int64_t kShortWindow = 512;

Strides strides_of(const BufferLayout& at) {
  return {at.row, at.pixel};
}

const float* floats(const Work& work, BufferId buffer, int64_t image) {
  return buffer == kNoBuffer ? nullptr : reinterpret_cast<const float*>(work.image(buffer, image));
}

std::vector<BufferId> present(std::initializer_list<BufferId> buffers) {
  std::vector<BufferId> result;
  std::copy_if(buffers.begin(), buffers.end(), std::back_inserter(result),
               [](BufferId buffer) { return buffer != kNoBuffer; });
  return result;
}

}  // namespace

void Work::clear_border(BufferId buffer, int64_t index) const {
  const BufferLayout& at = buffer_layout(buffer);
  const int64_t top = at.border[0];
  const int64_t side = at.border[1];
  if (top == 0 && side == 0) {
    return;
  }
  const int64_t rows = at.height + 2 * top;
  const auto bytes = [&](int64_t elements) { return static_cast<size_t>(elements * at.element_bytes); };
  for (int64_t row = team.begin(rows); row < team.end(rows); ++row) {
    char* start = image(buffer, index) + bytes(row * at.row);
    if (row < top || row >= top + at.height) {
      std::memset(start, at.zero, bytes(at.row));
    } else if (side > 0) {
      std::memset(start, at.zero, bytes(side * at.pixel));
      std::memset(start + bytes((side + at.width) * at.pixel), at.zero, bytes(side * at.pixel));
    }
  }
}

void Work::clear_partial_sums(BufferId sums, int64_t index) const {
  std::memset(partial_sums(sums, index), 0, static_cast<size_t>(buffer_layout(sums).pixel) * sizeof(double));
}

int64_t ConvolutionStep::scratch_bytes(const Layout& layout) const {
  return algorithm == Algorithm::kWinograd ? winograd_scratch_bytes(*this, layout) : 0;
}

Share share_out(const Team& team, int64_t panels, int64_t pixels, int64_t few, bool may_be_uneven) {
  const bool by_panels = team.size > 1 && pixels < few * team.size &&
                         (panels % team.size == 0 || (may_be_uneven && panels >= 4 * team.size));
  return by_panels ? Share{team.begin(panels), team.end(panels), 0, pixels}
                   : Share{0, panels, team.begin(pixels), team.end(pixels)};
}

namespace {

// The runs of elements that a window is made of. The pixels of a row lie side by side, so a row of the window
// is one run; of a slice of the channels, each pixel is one.
struct Taps {
  std::array<int64_t, kMaxTaps> offsets{};
  int64_t count;
  int64_t length;

  Taps(const ConvolutionStep& step, const BufferLayout& in) {
    const bool is_sliced = step.slice > 0;
    const int64_t columns = is_sliced ? step.kernel[1] : 1;
    count = step.kernel[0] * columns;
    length = is_sliced ? step.slice : step.kernel[1] * in.pixel;
    for (int64_t i = 0; i < count; ++i) {
      offsets[static_cast<size_t>(i)] = i / columns * in.row + i % columns * in.pixel;
    }
  }
};

int64_t elements_of_image(const BufferLayout& at) {
  return at.image_bytes / at.element_bytes;
}

// What is the same for all images, pixels and panels. `taps` must outlive it.
ConvTask begin_task(const ConvolutionStep& step, const Layout& layout, const Taps& taps,
                    bool images_are_rows) {
  const auto layout_of = [&](BufferId buffer) -> const BufferLayout& {
    return layout.buffers[static_cast<size_t>(buffer)];
  };
  const BufferLayout& in = layout_of(step.input);
  const BufferLayout& out = layout_of(step.panels.front().output);
  const int64_t pixels = out.height * out.width;
  ConvTask task{};
  task.taps = taps.offsets.data();
  task.tap_count = taps.count;
  task.tap_length = taps.length;
  task.taps_abreast = step.stride[1] == 1 && step.kernel[1] == kTapsAbreast ? kTapsAbreast : 1;
  task.carry_after = pixels == 1                                ? kCarryAfterOfVectors
                     : pixels * step.out_channels <= kFewValues ? kCarryAfterOfFew
                                                                : kCarryAfter;
  task.input_strides = {images_are_rows ? elements_of_image(in) : step.stride[0] * in.row,
                        step.stride[1] * in.pixel};
  task.width = out.width;
  task.prefetch_output = task.tap_count * task.tap_length <= kShortWindow;
  if (step.residual != kNoBuffer) {
    task.residual_strides = strides_of(layout_of(step.residual));
  }
  if (step.kernels->tiles != nullptr && !images_are_rows) {
    task.runs = plan_tiles(task, out.height, in.element_bytes);
  }
  return task;
}

// Prepares the matrix unit for a layer that suits it, while alive.
class TileScope {
 public:
  TileScope(const ElementKernels& kernels, const ConvTask& task)
      : kernels_(kernels), is_open_(task.runs.step_bytes > 0) {
    if (is_open_) {
      kernels.tiles->begin(task);
    }
  }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;
  ~TileScope() {
    if (is_open_) {
      kernels_.tiles->end();
    }
  }

 private:
  const ElementKernels& kernels_;
  const bool is_open_;
};

// The tasks of a member's share, for images that `task`, which is the same for all of them, says the rest of.
class Tasks {
 public:
  Tasks(const ConvolutionStep& step, const Work& work, const Share& share, bool images_are_rows,
        const ConvTask& task)
      : step_(step),
        work_(work),
        share_(share),
        images_are_rows_(images_are_rows),
        task_(task),
        in_(work.buffer_layout(step.input)),
        has_tiles_(task.runs.step_bytes > 0),
        convolution_(has_tiles_                             ? step.kernels->tiles->convolution
                     : step.algorithm == Algorithm::kGroups ? step.kernels->group_convolution
                                                            : step.kernels->convolution) {
    const int64_t window_bytes = step.stride[0] * step.stride[1] * in_.pixel * in_.element_bytes;
    const int64_t chunk =
        std::clamp<int64_t>(kChunkBytes / window_bytes, 24, has_tiles_ ? kTileChunkPixels : kChunkPixels);
    chunks_ = (share.last - share.first + chunk - 1) / chunk;
  }

  // An image, or all images from this one on where these are rows: a chunk of its pixels stays in the cache
  // for all panels.
  void run_image(int64_t image) const {
    for (int64_t chunk = 0; chunk < chunks_; ++chunk) {
      for (int64_t panel = share_.first_panel; panel < share_.last_panel; ++panel) {
        run(image, panel, chunk);
      }
    }
  }
  // Images whose weights outweigh them: it is a panel's weights that stay. To a matrix unit reading them anew
  // for each image would take longer than what it computes.
  void run_panels(int64_t first_image, int64_t last_image) const {
    for (int64_t panel = share_.first_panel; panel < share_.last_panel; ++panel) {
      for (int64_t image = first_image; image < last_image; ++image) {
        for (int64_t chunk = 0; chunk < chunks_; ++chunk) {
          run(image, panel, chunk);
        }
      }
    }
  }

 private:
  // Tiles begin with whole rows of the output where they take what lies between these, too.
  int64_t cut(int64_t chunk) const {
    const int64_t pixels = share_.last - share_.first;
    const int64_t at = pixels * chunk / chunks_;
    const int64_t unit = !has_tiles_ || chunk == chunks_   ? 1
                         : task_.runs.pitch == task_.width ? 2 * kTileRows
                                                           : task_.width;
    return share_.first + at / unit * unit;
  }

  void run(int64_t image, int64_t index, int64_t chunk) const {
    ConvTask task = task_;
    task.first = cut(chunk);
    task.last = cut(chunk + 1);
    if (task.first == task.last) {
      return;
    }
    const Panel& panel = step_.panels[static_cast<size_t>(index)];
    const BufferLayout& target = work_.buffer_layout(panel.output);
    const float* const scale = floats(work_, step_.scale, image);
    const int64_t first_element = (in_.border[0] - step_.padding[0]) * in_.row +
                                  (in_.border[1] - step_.padding[1]) * in_.pixel + panel.input_channel;
    task.input = work_.image(step_.input, image) + first_element * in_.element_bytes;
    task.vectors = panel.vectors;
    task.activation = panel.activation;
    task.weights = step_.weights.const_data_ptr<uint8_t>() + panel.weight_offset;
    task.bias = step_.bias.data() + panel.channel;
    task.start = step_.start.empty() ? nullptr : step_.start.data() + panel.channel;
    task.multiplier = step_.multiplier.empty() ? nullptr : step_.multiplier.data() + panel.channel;
    task.output_is_float = panel.output_element == Element::kFloat;
    task.output_is_byte = panel.output_element == Element::kByte;
    task.to_bytes = panel.to_bytes;
    task.lanes = step_.lanes.empty() ? nullptr : step_.lanes.data() + panel.channel;
    task.scale = scale == nullptr ? nullptr : scale + panel.channel;
    task.sums = step_.sums == kNoBuffer ? nullptr : work_.partial_sums(step_.sums, image) + panel.channel;
    task.residual =
        step_.residual == kNoBuffer ? nullptr : work_.pixels(step_.residual, image, panel.channel);
    task.output = step_.store ? work_.pixels(panel.output, image, panel.output_channel) : nullptr;
    task.output_strides = {images_are_rows_ ? elements_of_image(target) : target.row, target.pixel};
    convolution_(task);
  }

  const ConvolutionStep& step_;
  const Work& work_;
  const Share& share_;
  const bool images_are_rows_;
  const ConvTask& task_;
  const BufferLayout& in_;
  const bool has_tiles_;
  void (*const convolution_)(const ConvTask&) noexcept;
  int64_t chunks_;
};

}  // namespace

TileRuns ConvolutionStep::tile_runs(const Layout& layout) const {
  const Taps taps(*this, layout.buffers[static_cast<size_t>(input)]);
  return begin_task(*this, layout, taps, /*images_are_rows=*/false).runs;
}

void ConvolutionStep::run(const Work& work) const noexcept {
  if (algorithm == Algorithm::kWinograd) {
    run_winograd(*this, work);
    return;
  }
  // All panels have outputs of one height and width.
  const BufferLayout& out = work.buffer_layout(panels.front().output);
  const int64_t images = work.last - work.first;
  const int64_t image_pixels = out.height * out.width;
  // Images of one pixel are the rows of a matrix: they run as one image, a row each.
  const bool images_are_rows =
      image_pixels == 1 && images > 1 && scale == kNoBuffer && residual == kNoBuffer && sums == kNoBuffer;
  const Taps taps(*this, work.buffer_layout(input));
  const ConvTask task = begin_task(*this, *work.layout, taps, images_are_rows);
  const TileScope tiles(*kernels, task);
  const Share share = share_out(work.team, static_cast<int64_t>(panels.size()),
                                images_are_rows ? images : image_pixels, kFewPixels, /*may_be_uneven=*/true);
  if (sums != kNoBuffer) {
    for (int64_t image = work.first; image < work.last; ++image) {
      work.clear_partial_sums(sums, image);
    }
  }
  const Tasks tasks(*this, work, share, images_are_rows, task);
  if (task.runs.step_bytes > 0 && images > 1) {
    tasks.run_panels(work.first, work.last);
  } else {
    const int64_t at_once = images_are_rows ? images : 1;
    for (int64_t first = work.first; first < work.last; first += at_once) {
      tasks.run_image(first);
    }
  }
}

std::vector<BufferId> ConvolutionStep::reads() const {
  return present({input, scale, residual});
}

std::vector<BufferId> ConvolutionStep::writes() const {
  std::vector<BufferId> result = present({sums});
  for (const Panel& panel : panels) {
    if (store) {
      result.push_back(panel.output);
    }
  }
  return result;
}

int64_t ConvolutionStep::weight_bytes() const {
  return packed_bytes +
         static_cast<int64_t>((bias.size() + multiplier.size() + start.size()) * sizeof(float));
}

void ScaleStep::run(const Work& work) const noexcept {
  const BufferLayout& in = work.buffer_layout(input);
  ScaleTask task{};
  task.input_strides = strides_of(in);
  task.activation = activation;
  task.channels = in.pixel;
  task.width = in.width;
  task.first = work.team.begin(in.height * in.width);
  task.last = work.team.end(in.height * in.width);
  task.shift = fixed_shift.empty() ? nullptr : fixed_shift.data();
  task.input_is_float = input_is_float;
  task.residual_is_float = residual_is_float;
  task.output_is_float = output_is_float;
  task.to_bytes = to_bytes;
  for (int64_t image = work.first; image < work.last; ++image) {
    task.input = work.pixels(input, image);
    task.scale = fixed_scale.empty() ? floats(work, scale, image) : fixed_scale.data();
    if (sums != kNoBuffer) {
      work.clear_partial_sums(sums, image);
      task.sums = work.partial_sums(sums, image);
    }
    if (residual != kNoBuffer) {
      task.residual = work.pixels(residual, image);
      task.residual_strides = strides_of(work.buffer_layout(residual));
    }
    if (output != kNoBuffer) {
      task.output = work.pixels(output, image);
      task.output_strides = strides_of(work.buffer_layout(output));
    }
    kernels->scale(task);
  }
}

int64_t ScaleStep::weight_bytes() const {
  return static_cast<int64_t>((fixed_scale.size() + fixed_shift.size()) * sizeof(float));
}

std::vector<BufferId> ScaleStep::reads() const {
  return present({input, scale, residual});
}

std::vector<BufferId> ScaleStep::writes() const {
  return present({sums, output});
}

void PoolStep::run(const Work& work) const noexcept {
  const BufferLayout& in = work.buffer_layout(input);
  const BufferLayout& out = work.buffer_layout(output);
  PoolTask task{};
  task.input_strides = strides_of(in);
  task.input_height = in.height;
  task.input_width = in.width;
  task.kernel = kernel;
  task.stride = stride;
  task.padding = padding;
  task.maximum = maximum;
  task.count_include_pad = count_include_pad;
  task.shift = shift.empty() ? nullptr : shift.data();
  task.activation = activation;
  task.output_is_float = output_is_float;
  task.to_bytes = to_bytes;
  task.output_strides = strides_of(out);
  task.channels = in.pixel;
  task.width = out.width;
  task.first = work.team.begin(out.height * out.width);
  task.last = work.team.end(out.height * out.width);
  for (int64_t image = work.first; image < work.last; ++image) {
    task.input = work.pixels(input, image);
    task.output = work.pixels(output, image, output_channel);
    kernels->pool(task);
  }
}

int64_t PoolStep::weight_bytes() const {
  return static_cast<int64_t>(shift.size() * sizeof(float));
}

std::vector<BufferId> PoolStep::reads() const {
  return {input};
}

std::vector<BufferId> PoolStep::writes() const {
  return {output};
}

void MeanStep::run(const Work& work) const noexcept {
  const BufferLayout& partials = work.buffer_layout(sums);
  const BufferLayout& out = work.buffer_layout(output);
  const BufferLayout& source = work.buffer_layout(of);
  const auto pixels = static_cast<double>(source.height * source.width);
  const int64_t begin = work.team.begin(partials.pixel);
  const int64_t end = work.team.end(partials.pixel);
  for (int64_t image = work.first; image < work.last; ++image) {
    const auto* from = reinterpret_cast<const double*>(work.image(sums, image));
    char* to = work.pixels(output, image);
    for (int64_t c = begin; c < end; ++c) {
      double total = from[c];
      for (int32_t member = 1; member < work.team.size; ++member) {
        total += from[member * partials.pixel + c];
      }
      const auto mean = static_cast<float>(static_cast<double>(quantization.scale) *
                                           (total / pixels - static_cast<double>(quantization.zero)));
      if (out.element_bytes == 4) {
        reinterpret_cast<float*>(to)[c] = mean;
      } else {
        reinterpret_cast<uint16_t*>(to)[c] = c10::detail::round_to_nearest_even(mean);
      }
    }
  }
}

std::vector<BufferId> MeanStep::reads() const {
  return {sums};
}

std::vector<BufferId> MeanStep::writes() const {
  return {output};
}

void ChannelGateStep::run(const Work& work) const noexcept {
  const BufferLayout& in = work.buffer_layout(input);
  const auto size = static_cast<int64_t>(kernel.size());
  for (int64_t image = work.first; image < work.last; ++image) {
    const auto* from = reinterpret_cast<const float*>(work.pixels(input, image));
    auto* to = reinterpret_cast<float*>(work.pixels(output, image));
    for (int64_t c = work.team.begin(in.pixel); c < work.team.end(in.pixel); ++c) {
      const int64_t left = c - size / 2;
      float sum = 0;
      for (int64_t k = std::max<int64_t>(-left, 0); k < std::min(size, in.channels - left); ++k) {
        sum += kernel[static_cast<size_t>(k)] * from[left + k];
      }
      to[c] = 1.0f / (1.0f + std::exp(-sum));
    }
  }
}

std::vector<BufferId> ChannelGateStep::reads() const {
  return {input};
}

std::vector<BufferId> ChannelGateStep::writes() const {
  return {output};
}

int64_t ChannelGateStep::weight_bytes() const {
  return static_cast<int64_t>(kernel.size() * sizeof(float));
}

namespace {

// An image of a buffer, with the padding of its channels if `padded`.
at::Tensor view_of(const Work& work, BufferId buffer, int64_t image, bool padded) {
  const BufferLayout& at = work.buffer_layout(buffer);
  const int64_t channels = padded ? at.pixel : at.channels;
  return at::from_blob(work.pixels(buffer, image), {1, channels, at.height, at.width},
                       {at.row * at.height, 1, at.row, at.pixel},
                       at.element_bytes == 4 ? at::kFloat : at::kBFloat16);
}

}  // namespace

void OperatorStep::run(const Work& work) const noexcept {
  if (work.team.index != 0) {
    return;
  }
  try {
    const c10::AutoGradMode no_grad(false);
    for (int64_t image = work.first; image < work.last; ++image) {
      std::vector<at::Tensor> tensors;
      for (const Operand& input : inputs) {
        const at::Tensor view = view_of(work, input.buffer, image, /*padded=*/false);
        tensors.push_back((input.is_vector ? view.flatten(1) : view).to(at::kFloat));
      }
      at::Tensor result = graph::compute(operation, tensors);
      if (relu) {
        result = result.relu();
      }
      view_of(work, output.buffer, image, /*padded=*/true).zero_();
      const at::Tensor to = view_of(work, output.buffer, image, /*padded=*/false);
      to.copy_(result.reshape(to.sizes()));
    }
  } catch (...) {
    work.failure->note();
  }
}

std::vector<BufferId> OperatorStep::reads() const {
  std::vector<BufferId> result;
  for (const Operand& input : inputs) {
    result.push_back(input.buffer);
  }
  return result;
}

std::vector<BufferId> OperatorStep::writes() const {
  return {output.buffer};
}

int64_t OperatorStep::weight_bytes() const {
  const auto* conv = std::get_if<graph::Convolution>(&operation);
  return conv == nullptr ? 0 : static_cast<int64_t>(conv->weight.nbytes() + conv->bias.nbytes());
}

void LoadStep::run(const Work& work) const noexcept {
  const BufferLayout& out = work.buffer_layout(output);
  const at::Tensor& tensor = *work.input;
  LoadTask task{};
  task.channel_stride = tensor.stride(1);
  task.row_stride = tensor.stride(2);
  task.column_stride = tensor.stride(3);
  task.output_strides = strides_of(out);
  task.channels = tensor.size(1);
  task.pixel_channels = out.pixel;
  task.to_bytes = to_bytes;
  task.width = out.width;
  task.first = work.team.begin(out.height);
  task.last = work.team.end(out.height);
  for (int64_t image = work.first; image < work.last; ++image) {
    task.input = tensor.const_data_ptr<float>() + (work.tensor_image + image) * tensor.stride(0);
    task.output = work.pixels(output, image);
    kernels->load(task);
  }
}

std::vector<BufferId> LoadStep::reads() const {
  return {};
}

std::vector<BufferId> LoadStep::writes() const {
  return {output};
}

void StoreStep::run(const Work& work) const noexcept {
  const BufferLayout& in = work.buffer_layout(input);
  const int64_t rows_begin = work.team.begin(in.height);
  const int64_t rows_end = work.team.end(in.height);
  const int64_t plane = in.height * in.width;
  for (int64_t image = work.first; image < work.last; ++image) {
    const char* from = work.pixels(input, image);
    float* to = work.output->mutable_data_ptr<float>() + (work.tensor_image + image) * in.channels * plane;
    for (int64_t row = rows_begin; row < rows_end; ++row) {
      for (int64_t column = 0; column < in.width; ++column) {
        const char* pixel = from + (row * in.row + column * in.pixel) * in.element_bytes;
        for (int64_t c = 0; c < in.channels; ++c) {
          to[c * plane + row * in.width + column] =
              in.element_bytes == 4 ? reinterpret_cast<const float*>(pixel)[c]
                                    : c10::detail::f32_from_bits(reinterpret_cast<const uint16_t*>(pixel)[c]);
        }
      }
    }
  }
}

std::vector<BufferId> StoreStep::reads() const {
  return {input};
}

std::vector<BufferId> StoreStep::writes() const {
  return {};
}

}  // namespace senet::inference
