// The three stages from a plan to a program, each alone: what is fused, where values lie, and the steps with
// their packed weights, as text.
#include "modules.h"
#include "support.h"

#include "graph/operations.h"
#include "inference/cpu/pack.h"
#include "inference/cpu/quantize.h"
#include "inference/cuda/lower.h"
#include "nn/layers.h"
#include "nn/residual_blocks.h"
#include "nn/se_layer.h"
#include "nn/trace.h"

#include <memory>
#include <string>
#include <vector>

namespace senet::test {
namespace {

using namespace inference;

// Branches side by side, as Inception's: two 1 x 1 convolutions, one with a 3 x 3 convolution behind it, and
// an average pool before a third.
class Branches : public nn::Module {
 public:
  explicit Branches(int64_t first) : Module("Branches") {
    add_child("short", short_, nn::conv1x1(32, first));
    add_child("long_1", long_1, nn::conv1x1(32, 16));
    add_child("long_2", long_2, nn::conv3x3(16, 24));
    add_child("relu", relu, std::make_shared<nn::ReLU>());
    add_child("pool", pool, std::make_shared<nn::AvgPool2d>(graph::AveragePool{3, 1, 1}));
    add_child("pooled", pooled, nn::conv1x1(32, 16));
  }

  nn::Value compute(const nn::Value& x) override {
    const nn::Value a = short_->forward(x);
    const nn::Value b = relu->forward(long_2->forward(relu->forward(long_1->forward(x))));
    const nn::Value c = relu->forward(pooled->forward(pool->forward(x)));
    return apply(graph::Concatenate{}, {a, c, b});
  }

  std::shared_ptr<nn::Conv2d> short_, long_1, long_2, pooled;
  std::shared_ptr<nn::ReLU> relu;
  std::shared_ptr<nn::AvgPool2d> pool;
};

std::shared_ptr<nn::Module> bottleneck() {
  nn::BlockOptions options{24, 16, 1};
  options.reduction = 4;
  options.downsample = nn::make_downsample(24, 64, 1);
  return std::make_shared<nn::SEBottleneck>(options);
}

// A convolution that the kernels do not have, an SE layer and logits.
std::shared_ptr<nn::Module> head() {
  nn::Conv2dOptions dilated{16, 16, {3, 3}};
  dilated.dilation = {2, 2};
  return std::make_shared<nn::Sequential>(std::vector<std::shared_ptr<nn::Module>>{
      std::make_shared<nn::MaxPool2d>(graph::MaxPool{3, 2, 1}), std::make_shared<nn::Conv2d>(dilated),
      std::make_shared<nn::SELayer>(16, 4), std::make_shared<nn::ReLU>(),
      std::make_shared<nn::AdaptiveAvgPool2d>(), std::make_shared<nn::Flatten>(),
      std::make_shared<nn::Linear>(16, 10)});
}

std::shared_ptr<nn::Module> linear() {
  return std::make_shared<nn::Sequential>(std::vector<std::shared_ptr<nn::Module>>{
      std::make_shared<nn::AdaptiveAvgPool2d>(), std::make_shared<nn::Flatten>(),
      std::make_shared<nn::Linear>(40, 10)});
}

// The plan of a module in evaluation mode.
Plan plan_of(const std::shared_ptr<nn::Module>& module) {
  module->eval();
  return make_plan(nn::trace_evaluation(*module));
}

// Kernels of no processor: nothing but packing needs them here, and of them only what it calls.
void multiply_add(const ProductTask& task) noexcept {
  for (int64_t row = 0; row < task.rows; ++row) {
    for (int64_t k = 0; k < task.inner; ++k) {
      for (int64_t column = 0; column < task.columns; ++column) {
        task.sums[row * task.sums_pitch + column] +=
            task.left[row * task.inner + k] * task.right[k * task.columns + column];
      }
    }
  }
}

// What a module becomes, step by step. Winograd's algorithm counts as there, its kernels are never called.
struct Lowered {
  explicit Lowered(const std::shared_ptr<nn::Module>& module, bool is_float = true)
      : plan(plan_of(module)), fused(fuse_plan(plan)), placed(place_values(plan, fused, is_float)) {}

  Steps pack() const {
    static const ElementKernels float32 = [] {
      ElementKernels kernels{};
      kernels.winograd_input = [](const WinogradInputTask&) noexcept {};
      return kernels;
    }();
    static const Kernels kernels = {"plain", [] { return true; }, 16, 2, &float32, nullptr,
                                    nullptr, multiply_add};
    return pack_steps(fused, placed, kernels, /*is_float=*/true);
  }

  Plan plan;
  Fused fused;
  Placed placed;
};

void expect_lines(const std::string& actual, const std::string& expected) {
  REQUIRE("\n" + actual == "\n" + expected);
}

TEST_CASE("fuse, a bottleneck") {
  // The excitation comes before the convolution that it scales, and the downsample is part of another.
  expect_lines(to_string(Lowered(bottleneck()).fused),
               "load input: -> %0\n"
               "convolution conv1 1 x 1: %0 -> %1, %5; relu, downsample.0\n"
               "convolution conv2 3 x 3 padding 1 x 1: %1 -> sums of se, %2; relu, sums of se\n"
               "mean se: sums of se -> mean of se\n"
               "convolution se.fc.0 1 x 1: mean of se -> hidden of se; relu\n"
               "convolution se.fc.2 1 x 1: hidden of se -> scale se; sigmoid\n"
               "convolution conv3 1 x 1: %2, scale se, %5 -> %4; scale se, residual, relu\n"
               "store output: %4 ->\n");
}

TEST_CASE("fuse, branches with an average pool before a convolution") {
  expect_lines(to_string(Lowered(std::make_shared<Branches>(16)).fused),
               "load input: -> %0\n"
               "convolution short 1 x 1: %0 -> %1, %2; relu, long_1\n"
               "convolution long_2 3 x 3 padding 1 x 1: %2 -> %3; relu\n"
               "convolution pooled 1 x 1: %0 -> pooled before pool\n"
               "average_pool pool 3 x 3 padding 1 x 1: pooled before pool -> %5; bias, relu\n"
               "concatenate: %1, %5, %3 -> %6\n"
               "store output: %6 ->\n");
}

TEST_CASE("fuse, what is not a convolution of the kernels, and an average that alone reads") {
  expect_lines(to_string(Lowered(head()).fused),
               "load input: -> %0\n"
               "max_pool 0 3 x 3 stride 2 x 2 padding 1 x 1: %0 -> %1\n"
               "convolution 1: %1 -> %2\n"
               "scale 2: %2 -> sums of 2\n"
               "mean 2: sums of 2 -> mean of 2\n"
               "convolution 2.fc.0 1 x 1: mean of 2 -> hidden of 2; relu\n"
               "convolution 2.fc.2 1 x 1: hidden of 2 -> scale 2; sigmoid\n"
               "scale 2: %2, scale 2 -> sums of 4; relu, sums of 4\n"
               "mean 4: sums of 4 -> %4\n"
               "convolution 6 1 x 1: %4 -> %5\n"
               "store output: %5 ->\n");
}

TEST_CASE("fuse, a linear layer") {
  expect_lines(to_string(Lowered(linear()).fused),
               "load input: -> %0\n"
               "scale 0: %0 -> sums of 0\n"
               "mean 0: sums of 0 -> %1\n"
               "convolution 2 1 x 1: %1 -> %2\n"
               "store output: %2 ->\n");
}

// Lowering packs weights where it is told to: the processor will do.
std::string lowered_for_cuda(const std::shared_ptr<nn::Module>& module) {
  return to_string(cuda::lower(plan_of(module), cuda::Type::kHalf, at::kCPU).steps);
}

TEST_CASE("quantize, a bottleneck") {
  // The same units. What lies between convolutions is bytes; the image, the excitation and what leaves are
  // float32.
  const Plan plan = plan_of(bottleneck());
  Fused fused = fuse_plan(plan);
  QuantizationRecord record;
  for (const std::string& name : value_names(fused)) {
    if (!name.empty()) {
      record.values[name] = {0.5f, 3};
    }
  }
  quantize_values(record, find_byte_units(plan, fused, record.keep, record.keep_first), fused);
  expect_lines(to_string(fused),
               "load input: -> %0\n"
               "convolution conv1 1 x 1: %0 -> %1, %5; relu, downsample.0\n"
               "convolution conv2 3 x 3 padding 1 x 1: %1 -> sums of se, %2; relu, sums of se\n"
               "mean se: sums of se -> mean of se\n"
               "convolution se.fc.0 1 x 1: mean of se -> hidden of se; relu\n"
               "convolution se.fc.2 1 x 1: hidden of se -> scale se; sigmoid\n"
               "convolution conv3 1 x 1: %2, scale se, %5 -> %4; scale se, residual, relu\n"
               "store output: %4 ->\n");
  expect_lines(to_string(fused, place_values(plan, fused, /*is_float=*/true)),
               "0: %0; 24 channels of 32, float32\n"
               "1: %1; 16 channels, border 1 x 1, uint8\n"
               "2: %5; 64 channels, uint8\n"
               "3: %2; 16 channels, uint8\n"
               "4: sums of se; 16 channels, 1 x 1, float64 of each thread\n"
               "5: mean of se; 16 channels, 1 x 1, float32\n"
               "6: hidden of se; 16 channels, 1 x 1, float32\n"
               "7: scale se; 64 channels, 1 x 1, float32\n"
               "8: %4; 64 channels, float32\n");
}

TEST_CASE("lower for CUDA, a bottleneck") {
  // As on the processor: the excitation before the convolution that it scales, from the mean of its input.
  expect_lines(lowered_for_cuda(bottleneck()),
               "convolution conv1: %0 -> %1; relu\n"
               "convolution conv2: %1 -> %2; relu\n"
               "convolution downsample.0: %0 -> %5\n"
               "mean se: %2 -> means of se\n"
               "excite se: means of se -> factors of se\n"
               "convolution conv3: %2 -> %4; factors of se, residual, relu\n");
}

TEST_CASE("lower for CUDA, branches, and an excitation behind a 3 x 3 convolution") {
  expect_lines(lowered_for_cuda(std::make_shared<Branches>(16)),
               "convolution short: %0 -> %1\n"
               "convolution long_1: %0 -> %2; relu\n"
               "convolution long_2: %2 -> %3; relu\n"
               "average_pool pool: %0 -> %4\n"
               "convolution pooled: %4 -> %5; relu\n"
               "concatenate: %1 %5 %3 -> %6\n");
  expect_lines(lowered_for_cuda(head()),
               "max_pool 0: %0 -> %1\n"
               "convolution 1: %1 -> %2\n"
               "mean 2: %2 -> means of 2\n"
               "excite 2: means of 2 -> factors of 2\n"
               "pointwise 2: %2 -> %3; factors of 2, relu\n"
               "mean 4: %3 -> means of 4\n"
               "global_average_pool 4: means of 4 -> %4\n"
               "convolution 6: %4 -> %5\n");
}

TEST_CASE("place, a bottleneck") {
  // The sum lies where the residual was.
  const Lowered lowered(bottleneck());
  expect_lines(to_string(lowered.fused, lowered.placed),
               "0: %0; 24 channels of 32, float32\n"
               "1: %1; 16 channels, border 1 x 1, float32\n"
               "2: %4, %5; 64 channels, float32\n"
               "3: %2; 16 channels, float32\n"
               "4: sums of se; 16 channels, 1 x 1, float64 of each thread\n"
               "5: mean of se; 16 channels, 1 x 1, float32\n"
               "6: hidden of se; 16 channels, 1 x 1, float32\n"
               "7: scale se; 64 channels, 1 x 1, float32\n");
}

TEST_CASE("place, branches") {
  const Lowered aligned(std::make_shared<Branches>(16));
  expect_lines(to_string(aligned.fused, aligned.placed),
               "0: %1, %3 from channel 32, %5 from channel 16, %6; 56 channels of 64, float32\n"
               "1: %0; 32 channels, float32\n"
               "2: %2; 16 channels, border 1 x 1, float32\n"
               "3: pooled before pool; 16 channels, float32\n");
  // A part that does not end with a block leaves no place for the next.
  const Lowered ragged(std::make_shared<Branches>(10));
  expect_lines(to_string(ragged.fused, ragged.placed),
               "0: %0; 32 channels, float32\n"
               "1: %1; 10 channels of 16, float32\n"
               "2: %2; 16 channels, border 1 x 1, float32\n"
               "3: %3; 24 channels of 32, float32\n"
               "4: pooled before pool; 16 channels, float32\n"
               "5: %5; 16 channels, float32\n"
               "6: %6; 50 channels of 64, float32\n");
}

TEST_CASE("place, in bfloat16 with logits in float32") {
  const Lowered lowered(head(), /*is_float=*/false);
  expect_lines(to_string(lowered.fused, lowered.placed),
               "0: %0; 16 channels, bfloat16\n"
               "1: %1; 16 channels, bfloat16\n"
               "2: %2, %3; 16 channels, bfloat16\n"
               "3: sums of 2; 16 channels, 1 x 1, float64 of each thread\n"
               "4: mean of 2; 16 channels, 1 x 1, float32\n"
               "5: hidden of 2; 4 channels of 16, 1 x 1, float32\n"
               "6: scale 2; 16 channels, 1 x 1, float32\n"
               "7: sums of 4; 16 channels, 1 x 1, float64 of each thread\n"
               "8: %4; 16 channels, 1 x 1, bfloat16\n"
               "9: %5; 10 channels of 16, 1 x 1, float32\n");
}

TEST_CASE("place, an image of three channels that a convolution alone reads") {
  for (const bool is_float : {true, false}) {
    const Lowered lowered(nn::conv3x3(3, 16), is_float);
    const Buffer& input = lowered.placed.buffer(lowered.plan.input);
    REQUIRE(input.pixel == (is_float ? 3 : 4));
  }
}

TEST_CASE("pack, a bottleneck") {
  const Lowered lowered(bottleneck());
  expect_lines(to_string(lowered.pack()),
               "load input: -> 0\n"
               "convolution conv1: 0 -> 1, 2 (2 panels); relu, downsample.0; clears 1; 10560 bytes\n"
               "convolution conv2: 1 -> 4, 3; relu, winograd, sums of se; 16448 bytes\n"
               "mean se: 4 -> 5\n"
               "convolution se.fc.0: 5 -> 6; relu; 1088 bytes\n"
               "convolution se.fc.2: 6 -> 7 (2 panels); sigmoid; 4352 bytes\n"
               "convolution conv3: 3, 7, 2 -> 2 (2 panels); scale se, residual, relu; 4352 bytes\n"
               "store output: 2 ->\n");
}

TEST_CASE("pack, branches") {
  // Nothing is left of a concatenation in place.
  expect_lines(to_string(Lowered(std::make_shared<Branches>(16)).pack()),
               "load input: -> 1\n"
               "convolution short: 1 -> 0, 2; relu, long_1; clears 2; 4224 bytes\n"
               "convolution long_2: 2 -> 0; relu, winograd; 32896 bytes\n"
               "convolution pooled: 1 -> 3; 2112 bytes\n"
               "average_pool pool: 3 -> 0; bias, relu; 64 bytes\n"
               "store output: 0 ->\n");
  expect_lines(to_string(Lowered(std::make_shared<Branches>(10)).pack()),
               "load input: -> 0\n"
               "convolution short: 0 -> 1, 2; relu, long_1; clears 2; 4224 bytes\n"
               "convolution long_2: 2 -> 3; relu, winograd; 32896 bytes\n"
               "convolution pooled: 0 -> 4; 2112 bytes\n"
               "average_pool pool: 4 -> 5; bias, relu; 64 bytes\n"
               "concatenate: 1, 5, 3 -> 6\n"
               "store output: 6 ->\n");
}

TEST_CASE("pack, a linear layer") {
  expect_lines(to_string(Lowered(linear()).pack()),
               "load input: -> 0\n"
               "squeeze 0: 0 -> 1\n"
               "mean 0: 1 -> 2\n"
               "convolution 2: 2 -> 3; 3136 bytes\n"
               "store output: 3 ->\n");
}

}  // namespace
}  // namespace senet::test
