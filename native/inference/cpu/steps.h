// The steps of a program of our kernels and the memory that they work on. See cpu/program.h for the whole.
#pragma once

#include "inference/cpu/kernel_sets.h"
#include "inference/plan.h"
#include "inference/program.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace senet::inference {

using BufferId = int32_t;
inline constexpr BufferId kNoBuffer = -1;

/// Rows of a convolution's window at most.
inline constexpr int64_t kMaxTaps = 16;

/// Memory that steps write and read: an activation, a vector per image, or partial sums of one.
struct Buffer {
  ValueId value = kNoValue;  // of the plan, whose size it has; kNoValue: 1 x 1
  int64_t channels = 0;
  int64_t pixel = 0;             // elements of a pixel: the channels with their padding
  graph::Size2 border = {0, 0};  // rows above and below, columns left and right
  Element element = Element::kFloat;
  bool per_thread = false;  // partial sums: one pixel for each thread, float64
  uint8_t zero = 0;         // of bytes, what the border holds
};

/// Where a buffer lies for images of one size. Counts elements unless it says bytes.
struct BufferLayout {
  int64_t channels = 0;  // these two and the border as in Buffer
  int64_t pixel = 0;
  graph::Size2 border = {0, 0};
  int64_t height = 1;
  int64_t width = 1;
  int64_t row = 0;       // with the border
  int64_t interior = 0;  // of pixel (0, 0)
  int64_t element_bytes = 4;
  uint8_t zero = 0;
  int64_t image_bytes = 0;
  int64_t offset_bytes = 0;  // in its region; of the shared one, for one image
  bool is_shared = false;    // has a place for each image, else for each thread
};

struct Layout {
  std::vector<BufferLayout> buffers;
  int64_t private_bytes = 0;  // for each thread
  int64_t shared_bytes = 0;   // for each image
  int64_t scratch_bytes = 0;  // for each thread, of one step at a time
};

/// The threads that work on the same images.
struct Team {
  int32_t index = 0;
  int32_t size = 1;

  /// This member's part of `count` things.
  int64_t begin(int64_t count) const {
    return count * index / size;
  }
  int64_t end(int64_t count) const {
    return count * (index + 1) / size;
  }
};

/// A member's part of the work on some panels and what they are computed for: pixels, or tiles of them.
struct Share {
  int64_t first_panel;
  int64_t last_panel;
  int64_t first;
  int64_t last;
};

/// Members share out the pixels and each reads all weights; or, with fewer than `few` pixels for each, the
/// panels, so that each reads only its own: if these are as many for all or, where `may_be_uneven`, so many
/// that it matters little.
Share share_out(const Team& team, int64_t panels, int64_t pixels, int64_t few, bool may_be_uneven);

/// The first error of a run; a step cannot throw out of its thread.
class Failure {
 public:
  /// Of the exception that is being handled.
  void note() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (first_ == nullptr) {
      first_ = std::current_exception();
    }
  }
  bool has_one() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return first_ != nullptr;
  }
  void rethrow() const {
    if (first_ != nullptr) {
      std::rethrow_exception(first_);
    }
  }

 private:
  std::mutex mutex_;
  std::exception_ptr first_;
};

/// What a step works on: images [first, last) of a run, with one team.
struct Work {
  const Layout* layout;
  char* private_base;  // of the thread or, where a team shares an image, of its first
  char* shared_base;
  char* scratch;   // of the thread
  int64_t images;  // of the run
  int64_t first;
  int64_t last;
  Team team;

  Failure* failure;
  const at::Tensor* input;  // of the images of the run
  at::Tensor* output;
  int64_t tensor_image;  // index in `input` and `output` of the run's first image

  const BufferLayout& buffer_layout(BufferId buffer) const {
    return layout->buffers[static_cast<size_t>(buffer)];
  }
  /// The first byte of a buffer's image.
  char* image(BufferId buffer, int64_t index) const {
    const BufferLayout& at = buffer_layout(buffer);
    return at.is_shared ? shared_base + at.offset_bytes * images + index * at.image_bytes
                        : private_base + at.offset_bytes;
  }
  /// Pixel (0, 0), channel `channel`.
  char* pixels(BufferId buffer, int64_t index, int64_t channel = 0) const {
    const BufferLayout& at = buffer_layout(buffer);
    return image(buffer, index) + (at.interior + channel) * at.element_bytes;
  }
  /// Zeroes a buffer's border, of which each member of the team takes a share of the rows.
  void clear_border(BufferId buffer, int64_t image) const;
  /// This member's partial sums of an image.
  double* partial_sums(BufferId sums, int64_t index) const {
    return reinterpret_cast<double*>(image(sums, index)) + team.index * buffer_layout(sums).pixel;
  }
  void clear_partial_sums(BufferId sums, int64_t index) const;
};

class Step {
 public:
  virtual ~Step() = default;
  virtual void run(const Work& work) const noexcept = 0;
  /// "convolution", "max_pool".
  virtual const char* kind() const = 0;
  virtual StepInfo explain(const Layout& layout) const = 0;
  /// What else it computes in the same pass, for people.
  virtual std::vector<std::string> extras() const {
    return fused;
  }
  /// Buffers that it reads, and that it writes.
  virtual std::vector<BufferId> reads() const = 0;
  virtual std::vector<BufferId> writes() const = 0;
  virtual int64_t weight_bytes() const {
    return 0;
  }
  /// Whether its work grows with the pixels times the weights.
  virtual bool is_convolution() const {
    return false;
  }
  /// Memory that each thread needs while it runs, in Work::scratch.
  virtual int64_t scratch_bytes(const Layout&) const {
    return 0;
  }

  /// A value of the units that it reads or writes, and where.
  struct Operand {
    ValueId value;  // what it was before it was converted
    BufferId buffer;
    int64_t channel;
    int64_t channels;
    Quantization quantization;
  };

  std::string name;
  std::vector<std::string> fused;
  std::vector<Operand> takes;  // these two for whoever looks on: images that are no vectors
  std::vector<Operand> gives;
  std::vector<BufferId> clears;  // buffers whose border is zeroed before it: it is the first that writes them
};

/// Output channels [channel, channel + vectors * vector width) of a convolution, and where they go.
struct Panel {
  int32_t vectors;
  Activation activation;
  int64_t weight_offset;  // bytes of `weights`
  int64_t channel;        // of bias, scale and sums
  BufferId output;
  int64_t output_channel;
  int64_t input_channel = 0;  // the first that it reads
  Element output_element = Element::kFloat;
  ToBytes to_bytes = {};
};

/// How the sums of a convolution come about.
enum class Algorithm {
  kWindow,    // of the products of the window
  kGroups,    // of those of the window with each output's own group: ElementKernels::group_convolution
  kWinograd,  // winograd.h
};

/// Convolution, or a linear layer as a 1 x 1 convolution, with everything that kernels.h does to its sums.
class ConvolutionStep : public Step {
 public:
  void run(const Work& work) const noexcept override;
  const char* kind() const override;
  StepInfo explain(const Layout& layout) const override;
  std::vector<std::string> extras() const override;
  std::vector<BufferId> reads() const override;
  std::vector<BufferId> writes() const override;
  int64_t weight_bytes() const override;
  int64_t scratch_bytes(const Layout& layout) const override;
  bool is_convolution() const override {
    return true;
  }
  /// How the matrix unit walks it; without one, or where the layer does not suit it, with `step_bytes` 0.
  TileRuns tile_runs(const Layout& layout) const;

  Algorithm algorithm = Algorithm::kWindow;
  int64_t coefficient_bytes = 0;  // Winograd's: of packed weights, from one of the 16 to the next
  const ElementKernels* kernels;
  BufferId input;
  graph::Size2 kernel;
  graph::Size2 stride;
  graph::Size2 padding;
  int64_t in_channels;
  int64_t out_channels = 0;
  int64_t groups = 1;
  int64_t slice = 0;           // channels of the input that each output of a panel is made of; 0: all
  std::vector<int32_t> lanes;  // as `bias`, ConvTask::lanes; empty: null
  int32_t vector_channels;     // of a panel's vector
  std::vector<Panel> panels;
  at::Tensor weights;        // packed, of the whole program
  int64_t packed_bytes = 0;  // of this step
  std::vector<float> bias;
  std::vector<float> multiplier;  // as `bias`, of bytes: these and what follows as in ConvTask
  std::vector<int32_t> start;
  BufferId scale = kNoBuffer;
  BufferId residual = kNoBuffer;
  BufferId sums = kNoBuffer;
  bool store = true;
};

/// Scale, shift, residual, ReLU and sums of an activation.
class ScaleStep : public Step {
 public:
  void run(const Work& work) const noexcept override;
  const char* kind() const override;
  StepInfo explain(const Layout& layout) const override;
  std::vector<BufferId> reads() const override;
  std::vector<BufferId> writes() const override;
  int64_t weight_bytes() const override;

  const ElementKernels* kernels;
  BufferId input;
  BufferId scale = kNoBuffer;
  std::vector<float> fixed_scale;  // of a BatchNorm; empty: `scale` or 1
  std::vector<float> fixed_shift;
  BufferId residual = kNoBuffer;
  BufferId sums = kNoBuffer;
  BufferId output = kNoBuffer;  // kNoBuffer: only the sums are wanted
  Activation activation = Activation::kNone;
  bool is_conversion = false;   // from bytes or to bytes, and nothing else
  bool input_is_float = false;  // these are the byte kernel's
  bool residual_is_float = false;
  bool output_is_float = false;
  ToBytes to_bytes = {};
};

/// Maximum or average of windows.
class PoolStep : public Step {
 public:
  void run(const Work& work) const noexcept override;
  const char* kind() const override;
  StepInfo explain(const Layout& layout) const override;
  std::vector<BufferId> reads() const override;
  std::vector<BufferId> writes() const override;
  int64_t weight_bytes() const override;

  const ElementKernels* kernels;
  BufferId input;
  BufferId output;
  int64_t output_channel = 0;
  int64_t kernel;
  int64_t stride;
  int64_t padding;
  bool maximum;
  bool count_include_pad = true;
  std::vector<float> shift;  // may be empty
  Activation activation = Activation::kNone;
  bool output_is_float = false;  // these are the byte kernel's
  ToBytes to_bytes = {};
};

/// The threads' partial sums over an image to its mean per channel.
class MeanStep : public Step {
 public:
  void run(const Work& work) const noexcept override;
  const char* kind() const override;
  StepInfo explain(const Layout& layout) const override;
  std::vector<BufferId> reads() const override;
  std::vector<BufferId> writes() const override;

  BufferId sums;
  BufferId output;                 // 1 x 1
  BufferId of;                     // whose pixels were summed
  Quantization quantization = {};  // of the sums
};

/// sigmoid of a convolution along the channels of a vector, with zeros beside them: EcaModule's factors.
class ChannelGateStep : public Step {
 public:
  void run(const Work& work) const noexcept override;
  const char* kind() const override;
  StepInfo explain(const Layout& layout) const override;
  std::vector<BufferId> reads() const override;
  std::vector<BufferId> writes() const override;
  int64_t weight_bytes() const override;

  BufferId input;             // float32, 1 x 1
  BufferId output;            // as the input
  std::vector<float> kernel;  // of odd length
};

/// What the kernels do not have, by LibTorch's operator: an image at a time, by one thread, in float32.
class OperatorStep : public Step {
 public:
  struct Operand {
    BufferId buffer;
    bool is_vector;  // 1 x channels, else 1 x channels x height x width
  };

  void run(const Work& work) const noexcept override;
  const char* kind() const override;
  StepInfo explain(const Layout& layout) const override;
  std::vector<BufferId> reads() const override;
  std::vector<BufferId> writes() const override;
  int64_t weight_bytes() const override;

  graph::Operation operation;
  std::vector<Operand> inputs;
  Operand output;
  bool relu = false;
};

/// The input tensor to the first buffer.
class LoadStep : public Step {
 public:
  void run(const Work& work) const noexcept override;
  const char* kind() const override;
  StepInfo explain(const Layout& layout) const override;
  std::vector<BufferId> reads() const override;
  std::vector<BufferId> writes() const override;

  const ElementKernels* kernels;
  BufferId output;
  ToBytes to_bytes = {};
};

/// The last buffer to the output tensor, float32.
class StoreStep : public Step {
 public:
  void run(const Work& work) const noexcept override;
  const char* kind() const override;
  StepInfo explain(const Layout& layout) const override;
  std::vector<BufferId> reads() const override;
  std::vector<BufferId> writes() const override;

  BufferId input;
};

}  // namespace senet::inference
