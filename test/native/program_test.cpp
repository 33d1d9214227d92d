// Whole programs against the module's own forward in float64: of our kernels for each instruction set, and of
// LibTorch's operators.
#include "modules.h"
#include "support.h"

#include "core/error.h"
#include "inference/aten/program.h"
#include "inference/cpu/program.h"
#include "inference/plan.h"
#include "models/cifar_se_resnet.h"
#include "models/se_inception_v3.h"
#include "models/se_resnet.h"
#include "nn/channel_attention.h"
#include "nn/trace.h"
#include "runtime/threads.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <thread>

namespace senet::test {
namespace {

using namespace inference;
using nn::Recalibrate;

std::shared_ptr<nn::Module> with_se(std::shared_ptr<nn::InceptionBlock> block, Recalibrate where) {
  if (where != Recalibrate::kNone) {
    block->add_se(where);
  }
  return block;
}

// Every layer of the excitation with a bias, as in most networks but the original's.
std::shared_ptr<nn::Module> with_biases(std::shared_ptr<nn::Module> module, nn::SELayer& se) {
  for (const char* name : {"0", "2"}) {
    const nn::Width width = se.fc->find_child(name)->width();
    se.fc->replace_child(name, std::make_shared<nn::Linear>(width.input, width.output));
  }
  return module;
}

nn::BlockOptions block_options(int64_t inplanes, int64_t planes, int64_t stride, int64_t expansion) {
  nn::BlockOptions options{inplanes, planes, stride};
  options.reduction = 4;
  if (stride != 1 || inplanes != planes * expansion) {
    options.downsample = nn::make_downsample(inplanes, planes * expansion, stride);
  }
  return options;
}

}  // namespace

std::vector<ModuleCase> module_cases() {
  const auto conv = [](nn::Conv2dOptions options) { return std::make_shared<nn::Conv2d>(options); };
  using Layers = std::vector<std::shared_ptr<nn::Module>>;
  const auto sequence = [](Layers layers) { return std::make_shared<nn::Sequential>(std::move(layers)); };
  const auto grouped = [](int64_t in, int64_t out, int64_t groups, int64_t stride) {
    nn::Conv2dOptions options{in, out, {3, 3}, {stride, stride}, {1, 1}};
    options.groups = groups;
    options.with_bias = true;
    return std::make_shared<nn::Conv2d>(options);
  };
  std::vector<ModuleCase> cases = {
      {"SELayer", [] { return std::make_shared<nn::SELayer>(40, 8); }, 40, {{1, 1}, {5, 3}}},
      {"SELayer of 17", [] { return std::make_shared<nn::SELayer>(17, 4); }, 17, {{1, 9}}},
      {"SELayer with biases",
       [] {
         auto layer = std::make_shared<nn::SELayer>(40, 8);
         return with_biases(layer, *layer);
       },
       40,
       {{5, 3}}},
      {"BatchNorm2d", [] { return std::make_shared<nn::BatchNorm2d>(19); }, 19, {{3, 5}}},
      {"Conv2d 7 x 1",
       [=] {
         return conv({5, 37, {7, 1}, {1, 1}, {3, 0}});
       },
       5,
       {{1, 9}, {6, 2}}},
      {"Conv2d without padding",
       [=] {
         return conv({33, 9, {3, 2}, {2, 3}});
       },
       33,
       {{3, 2}, {9, 8}}},
      {"Sequential of layers",
       [=] {
         return sequence(
             {conv({3, 20, {3, 3}, {1, 1}, {1, 1}}), std::make_shared<nn::BatchNorm2d>(20),
              std::make_shared<nn::ReLU>(), std::make_shared<nn::MaxPool2d>(graph::MaxPool{3, 2, 1}),
              std::make_shared<nn::BatchNorm2d>(20), conv({20, 30, {1, 1}}), std::make_shared<nn::ReLU>(),
              std::make_shared<nn::Dropout>(), std::make_shared<nn::SELayer>(30, 5),
              std::make_shared<nn::ReLU>(), std::make_shared<nn::AdaptiveAvgPool2d>()});
       },
       3,
       {{1, 1}, {7, 9}}},
      {"Sequential of 1 x 1 convolutions and SELayers",
       [=] {
         return sequence({conv({6, 24, {1, 1}}), conv({24, 50, {1, 1}}), std::make_shared<nn::SELayer>(50, 5),
                          conv({50, 18, {1, 1}}), conv({18, 18, {1, 1}}),
                          std::make_shared<nn::SELayer>(18, 3)});
       },
       6,
       {{1, 1}, {4, 7}}},
      {"SELayer behind a convolution of fewer channels than it reads",
       [=] {
         return sequence({conv({20, 256, {1, 1}}), std::make_shared<nn::ReLU>(), conv({256, 16, {1, 1}}),
                          std::make_shared<nn::SELayer>(16, 2)});
       },
       20,
       {{1, 1}, {4, 5}}},
      {"pools in ceil mode",
       [=] {
         graph::MaxPool max{3, 2};
         max.ceil_mode = true;
         graph::AveragePool average{2, 2};
         average.ceil_mode = true;
         average.count_include_pad = false;
         return sequence({conv({3, 20, {3, 3}, {1, 1}, {1, 1}}), std::make_shared<nn::MaxPool2d>(max),
                          std::make_shared<nn::AvgPool2d>(average), conv({20, 8, {1, 1}})});
       },
       3,
       {{2, 3}, {8, 11}, {9, 6}}},
      {"SEModule", [] { return std::make_shared<nn::SEModule>(40, 8); }, 40, {{1, 1}, {5, 3}}},
      {"EcaModule behind a convolution",
       [=] {
         return sequence({conv({5, 21, {1, 1}}), std::make_shared<nn::EcaModule>(5)});
       },
       5,
       {{1, 1}, {5, 3}}},
      {"EcaModule whose kernel is a channel",
       [=] {
         return sequence({conv({5, 17, {1, 1}}), std::make_shared<nn::EcaModule>(1)});
       },
       5,
       {{1, 1}, {5, 3}}},
      {"EcaModule whose kernel is as wide as the channels",
       [=] {
         return sequence({conv({5, 7, {1, 1}}), std::make_shared<nn::EcaModule>(7)});
       },
       5,
       {{1, 1}, {5, 3}}},
      {"EcaModule whose kernel is wider than the channels",
       [=] {
         return sequence({conv({5, 2, {1, 1}}), std::make_shared<nn::EcaModule>(9)});
       },
       5,
       {{1, 1}, {5, 3}}},
      {"grouped 4 to 4 channels", [=] { return grouped(64, 64, 16, 1); }, 64, {{1, 1}, {5, 7}}},
      {"grouped 8 to 8 channels", [=] { return grouped(64, 64, 8, 1); }, 64, {{3, 17}}},
      {"grouped 8 to 16 channels", [=] { return grouped(48, 96, 6, 1); }, 48, {{2, 7}}},
      {"grouped 8 to 8 channels, stride 2", [=] { return grouped(80, 80, 10, 2); }, 80, {{1, 2}, {9, 6}}},
      {"grouped 32 to 32 channels", [=] { return grouped(96, 96, 3, 1); }, 96, {{4, 3}}},
      {"grouped 5 to 3 channels", [=] { return grouped(35, 21, 7, 1); }, 35, {{1, 1}, {4, 3}}},
      {"grouped 2 to 6 channels", [=] { return grouped(18, 54, 9, 2); }, 18, {{6, 5}}},
      {"grouped 40 to 24 channels", [=] { return grouped(80, 48, 2, 1); }, 80, {{3, 4}}},
      {"depthwise", [=] { return grouped(19, 19, 19, 1); }, 19, {{6, 5}}},
      {"grouped, then SEModule",
       [=] {
         return sequence({conv({6, 64, {1, 1}}), grouped(64, 64, 16, 1),
                          std::make_shared<nn::BatchNorm2d>(64), std::make_shared<nn::ReLU>(),
                          conv({64, 96, {1, 1}}), std::make_shared<nn::SEModule>(96, 8)});
       },
       6,
       {{1, 1}, {5, 4}}},
      {"SEBasicBlock",
       [] { return std::make_shared<nn::SEBasicBlock>(block_options(24, 24, 1, 1)); },
       24,
       {{1, 1}, {5, 3}}},
      {"SEBasicBlock with downsample",
       [] { return std::make_shared<nn::SEBasicBlock>(block_options(17, 40, 2, 1)); },
       17,
       {{1, 1}, {5, 3}, {14, 13}}},
      {"SEBottleneck",
       [] { return std::make_shared<nn::SEBottleneck>(block_options(64, 16, 1, 4)); },
       64,
       {{1, 1}, {7, 5}}},
      {"SEBottleneck, SE with biases",
       [] {
         auto block = std::make_shared<nn::SEBottleneck>(block_options(64, 16, 1, 4));
         return with_biases(block, *block->se);
       },
       64,
       {{7, 5}}},
      {"SEBottleneck with downsample",
       [] { return std::make_shared<nn::SEBottleneck>(block_options(20, 12, 1, 4)); },
       20,
       {{1, 1}, {7, 5}}},
      {"SEBottleneck with downsample and stride",
       [] { return std::make_shared<nn::SEBottleneck>(block_options(36, 20, 2, 4)); },
       36,
       {{1, 1}, {9, 14}}},
      {"CifarSEBasicBlock",
       [] { return std::make_shared<nn::CifarSEBasicBlock>(16, 16, 1, 16); },
       16,
       {{1, 9}, {8, 8}}},
      {"CifarSEBasicBlock with downsample",
       [] { return std::make_shared<nn::CifarSEBasicBlock>(16, 32, 2, 16); },
       16,
       {{1, 1}, {7, 5}}},
      {"BasicConv2d",
       [] {
         return std::make_shared<nn::BasicConv2d>(nn::Conv2dOptions{3, 32, {3, 3}, {2, 2}});
       },
       3,
       {{3, 3}, {15, 12}}},
      {"InceptionAux", [] { return std::make_shared<nn::InceptionAux>(32, 10); }, 32, {{17, 17}}},
      {"CifarSEResNet",
       [] { return std::make_shared<models::CifarSEResNet>(1, 10, 16); },
       3,
       {{1, 1}, {17, 13}}},
      {"CifarSEPreActResNet",
       [] { return std::make_shared<models::CifarSEPreActResNet>(1, 7, 16); },
       3,
       {{1, 1}, {17, 13}}},
      {"ResNet of SEBasicBlock",
       [] {
         return std::make_shared<models::SEBasicResNet>("SEResNet", std::array<int64_t, 4>{1, 1, 1, 1}, 11);
       },
       3,
       {{1, 1}, {17, 13}}},
      {"ResNet of SEBottleneck",
       [] {
         return std::make_shared<models::SEBottleneckResNet>("SEResNet", std::array<int64_t, 4>{1, 1, 1, 1},
                                                             1000);
       },
       3,
       {{1, 1}, {17, 13}}},
  };
  for (const auto& [where, name] :
       {std::pair{Recalibrate::kNone, ""}, std::pair{Recalibrate::kInput, ", SE of the input"},
        std::pair{Recalibrate::kOutput, ", SE of the output"}}) {
    const auto add = [&, where = where, suffix = std::string(name)](const char* type, int64_t channels,
                                                                    graph::Size2 size, auto make) {
      cases.push_back({type + suffix, [where, make] { return with_se(make(), where); }, channels, {size}});
    };
    add("InceptionA", 48, {5, 7}, [] { return std::make_shared<nn::InceptionA>(48, 32); });
    add("InceptionB", 40, {7, 5}, [] { return std::make_shared<nn::InceptionB>(40); });
    add("InceptionC", 32, {3, 4}, [] { return std::make_shared<nn::InceptionC>(32, 16); });
    add("InceptionD", 16, {5, 4}, [] { return std::make_shared<nn::InceptionD>(16); });
    if (where == Recalibrate::kNone) {  // the widest: once is enough
      add("InceptionE", 32, {2, 3}, [] { return std::make_shared<nn::InceptionE>(32); });
    }
  }
  return cases;
}

std::shared_ptr<nn::Module> make_module(const ModuleCase& of) {
  at::manual_seed(7);
  std::shared_ptr<nn::Module> module = of.make();
  const at::NoGradGuard no_grad;
  for (const auto& part : module->modules()) {
    if (auto* bn = dynamic_cast<nn::BatchNorm2d*>(part.get())) {
      bn->weight.uniform_(0.5, 1.5);
      bn->bias.uniform_(-0.3, 0.3);
      bn->running_mean.uniform_(-0.3, 0.3);
      bn->running_var.uniform_(0.5, 1.5);
    }
  }
  module->eval();
  return module;
}

namespace {

constexpr int64_t kMostImages = 33;

// The original's ReLU works in place, on the input too if it comes first.
at::Tensor forward(nn::Module& module, const at::Tensor& input) {
  const at::NoGradGuard no_grad;
  return module.forward(input.clone()).tensor();
}

double relative_error(const at::Tensor& actual, const at::Tensor& expected) {
  const double norm = expected.norm().item<double>();
  return (actual.to(at::kDouble) - expected).norm().item<double>() / (norm == 0 ? 1 : norm);
}

// The same numbers, in another of the layouts that a caller may have.
at::Tensor in_layout(const at::Tensor& batch, int64_t kind) {
  switch (kind % 4) {
    case 1:
      return batch.contiguous(at::MemoryFormat::ChannelsLast);
    case 2:
      return batch.transpose(2, 3).contiguous().transpose(2, 3);
    case 3: {
      const at::Tensor wide =
          at::full({batch.size(0), batch.size(1) + 1, batch.size(2) + 2, batch.size(3) + 1}, std::nan(""),
                   batch.options());
      const at::Tensor part =
          wide.narrow(1, 1, batch.size(1)).narrow(2, 1, batch.size(2)).narrow(3, 0, batch.size(3));
      return part.copy_(batch);
    }
    default:
      return batch.contiguous();
  }
}

// Three images of one size, the middle one with a NaN or an infinity, and what float32 makes of them.
struct SpecialImages {
  double value;
  size_t size;  // index of Subject::inputs
  at::Tensor input;
  at::Tensor output;
};

// A module with what it gives for its inputs, computed once for all programs.
class Subject {
 public:
  explicit Subject(const ModuleCase& of) : source_(make_module(of)) {
    const std::shared_ptr<nn::Module> exact = make_module(of);
    exact->to(at::kDouble);
    Random random(31);
    for (const graph::Size2& size : of.sizes) {
      const at::Tensor x = random.tensor({kMostImages, of.channels, size[0], size[1]}, at::kFloat);
      const at::Tensor y = forward(*exact, x);
      inputs.push_back(x.to(at::kFloat));
      outputs.push_back(y);
      eager_error = std::max(eager_error, relative_error(forward(*source_, inputs.back()), y));
      for (const double value : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
        const at::Tensor input = inputs.back().narrow(0, 0, 3).clone();
        input[1][0][size[0] / 2][size[1] / 2].fill_(value);
        special.push_back({value, inputs.size() - 1, input, forward(*source_, input)});
      }
    }
  }

  Plan plan() const {
    return make_plan(nn::trace_evaluation(*source_));
  }

  std::vector<at::Tensor> inputs;  // of the most images
  std::vector<at::Tensor> outputs;
  std::vector<SpecialImages> special;
  double eager_error = 0;  // of float32

 private:
  std::shared_ptr<nn::Module> source_;
};

// Relative to all of the output, and no element far off.
void expect_output(const at::Tensor& actual, const at::Tensor& expected, double error,
                   const std::string& where) {
  REQUIRE_MESSAGE((actual.scalar_type() == at::kFloat), where, ": not float32");
  REQUIRE_MESSAGE(actual.sizes() == expected.sizes(), where, ": expected the shape ", expected.sizes(),
                  ", got ", actual.sizes());
  const double found = relative_error(actual, expected);
  REQUIRE_MESSAGE(found <= error, where, ": relative error ", found, ", allowed ", error);
  expect_near(actual, expected, expected.abs().max() * (10 * error), where);
}

void check_program(const Program& program, const Subject& subject, double error,
                   const std::vector<int>& thread_counts) {
  int64_t layout = 0;
  for (size_t i = 0; i < subject.inputs.size(); ++i) {
    for (const int64_t images : {int64_t{1}, int64_t{2}, kMostImages}) {
      for (const int threads : thread_counts) {
        // Two passes, of 16 and 17 images; those of the first size have seen three threads.
        if (images == kMostImages && thread_counts.size() > 1 && threads == (i == 0 ? 2 : 3)) {
          continue;
        }
        runtime::use_threads(threads);
        const at::Tensor x = in_layout(subject.inputs[i].narrow(0, 0, images), layout++);
        expect_output(program.run(x, nullptr), subject.outputs[i].narrow(0, 0, images), error,
                      text("input ", x.sizes(), ", strides ", x.strides(), ", ", threads, " threads"));
      }
    }
    // One image for all of the batch, which strides of 0 say.
    runtime::use_threads(2);
    const at::Tensor same = subject.inputs[i].narrow(0, 5, 1).expand({3, -1, -1, -1});
    const at::Tensor actual = program.run(same, nullptr);
    const at::Tensor expected = subject.outputs[i].narrow(0, 5, 1).expand_as(actual);
    expect_output(actual, expected, error, text("expanded input ", same.sizes()));
  }
  const at::Tensor& input = subject.inputs.back();
  const at::Tensor x = input.narrow(0, 0, 2);
  StepSeconds seconds;
  const at::Tensor profiled = program.run(x, &seconds);
  expect_output(profiled, subject.outputs.back().narrow(0, 0, 2), error, "profiled");
  const std::vector<StepInfo> steps = program.explain({x.size(2), x.size(3)});
  REQUIRE_MESSAGE(seconds.size() == steps.size(), seconds.size(), " times of ", steps.size(), " steps");
  double sum = 0;
  for (const double of_step : seconds) {
    REQUIRE_MESSAGE(of_step >= 0, "a step took ", of_step, " seconds");
    sum += of_step;
  }
  REQUIRE_MESSAGE(sum > 0, "no step took time");
  int64_t weight_bytes = 0;
  for (const StepInfo& step : steps) {
    weight_bytes += step.weight_bytes;
    REQUIRE_MESSAGE((!step.operation.empty() && step.output.size() == 3 && step.activation_bytes > 0),
                    "step '", step.name, "' is not explained");
  }
  REQUIRE_MESSAGE(weight_bytes == program.weight_bytes(), "the steps have ", weight_bytes,
                  " bytes of weights, the program ", program.weight_bytes());
}

// A NaN or an infinity of one image: NaN wherever the module gives NaN (but for LibTorch's program, whose
// fused ReLU makes 0 of it), and the other images as ever.
void check_special(const Program& program, const Subject& subject, double error, bool keeps_nan) {
  for (const SpecialImages& images : subject.special) {
    for (const int threads : {1, 2}) {
      runtime::use_threads(threads);
      const at::Tensor actual = program.run(images.input, nullptr);
      const std::string where =
          text(images.value, " in an input ", images.input.sizes(), ", ", threads, " threads");
      if (keeps_nan) {
        expect_nan_where(images.output[1], actual[1], where);
      }
      for (const int64_t image : {0, 2}) {
        expect_output(actual[image], subject.outputs[images.size][image], error, where + ", another image");
      }
    }
  }
}

// Different inputs at once, of different sizes, on threads with teams of their own.
void check_concurrency(const Program& program, const Subject& subject, double error) {
  constexpr int kThreads = 4;
  constexpr int kRounds = 4;
  struct Result {
    size_t input;
    int64_t first;
    at::Tensor output;
    std::string problem;
  };
  std::vector<Result> results(kThreads * kRounds);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      runtime::use_threads(1 + t % 3);
      for (int round = 0; round < kRounds; ++round) {
        Result& result = results[static_cast<size_t>(t * kRounds + round)];
        result.input = static_cast<size_t>(t + round) % subject.inputs.size();
        result.first = 4 * t + round;
        const int64_t images = 1 + (t + round) % 4;
        try {
          result.output = program.run(subject.inputs[result.input].narrow(0, result.first, images), nullptr);
        } catch (const std::exception& problem) {
          result.problem = problem.what();
        }
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  for (size_t i = 0; i < results.size(); ++i) {
    const Result& result = results[i];
    const std::string where = text("thread ", i / kRounds, " round ", i % kRounds);
    REQUIRE_MESSAGE(result.problem.empty(), where, ": ", result.problem);
    expect_output(result.output, subject.outputs[result.input].narrow(0, result.first, result.output.size(0)),
                  error, where);
  }
}

// More sizes than layouts are kept, there and back.
void check_sizes(const Program& program, const ModuleCase& of, double error) {
  const std::shared_ptr<nn::Module> exact = make_module(of);
  exact->to(at::kDouble);
  Random random(32);
  std::vector<int64_t> sides;
  for (int64_t side = 1; side <= 12; ++side) {
    sides.push_back(side);
  }
  sides.insert(sides.end(), sides.rbegin(), sides.rend());
  runtime::use_threads(2);
  for (const int64_t side : sides) {
    const at::Tensor x = random.tensor({2, of.channels, side, 13 - side}, at::kFloat);
    expect_output(program.run(x.to(at::kFloat), nullptr), forward(*exact, x), error,
                  text("input ", x.sizes()));
  }
}

// How near a whole model must come is what test/parity says; a step that is wrong is much further off than
// this, on a few images of a few numbers too.
double allowed_error(const Subject& subject, bool is_float) {
  return is_float ? std::max(3e-6, 3 * subject.eager_error) : 2e-2;
}

// A way to make a program.
struct Maker {
  std::string name;
  bool is_float;
  bool is_ours;  // else of LibTorch's operators
  std::function<std::unique_ptr<const Program>(const Plan&)> make;
};

// Runs `test` with each way, in a subcase of its name.
void for_each_maker(const std::function<void(const Maker&)>& test) {
  for_each_variant([&](const Variant& variant) {
    test({variant.name, variant.is_float, true,
          [variant](const Plan& plan) { return make_cpu_program(plan, *variant.kernels, variant.dtype()); }});
  });
  for (const auto& [name, dtype] :
       {std::pair{"LibTorch float32", at::kFloat}, std::pair{"LibTorch bfloat16", at::kBFloat16}}) {
    SUBCASE(name) {
      const Maker maker{name, dtype == at::kFloat, false, [dtype = dtype](const Plan& plan) {
                          return make_aten_program(plan, {at::kCPU, dtype});
                        }};
      const std::string reason = refusal([&] { maker.make(Plan()); });
      if (reason.empty()) {
        test(maker);
      } else {
        MESSAGE("SKIPPED: ", maker.name, ": ", reason);
      }
    }
  }
}

void test_program(const ModuleCase& of, const Subject& subject, const Maker& maker) {
  const bool is_network = of.name.find("ResNet") != std::string::npos;
  const std::unique_ptr<const Program> program = maker.make(subject.plan());
  const double error = allowed_error(subject, maker.is_float);
  check_program(*program, subject, error, maker.is_ours ? std::vector<int>{1, 2, 3} : std::vector<int>{2});
  check_special(*program, subject, error, /*keeps_nan=*/maker.is_ours);
  if (is_network || of.name == "SEBottleneck with downsample and stride" || of.name == "InceptionA") {
    check_concurrency(*program, subject, error);
  }
  if (is_network && of.name.rfind("Cifar", 0) == 0) {
    check_sizes(*program, of, error);
  }
}

// A test for each module, of that name.
const bool kAreAdded = [] {
  for (const ModuleCase& of : module_cases()) {
    // Made by the first subcase.
    add_test("program of " + of.name, [of, subject = std::shared_ptr<const Subject>()]() mutable {
      runtime::use_threads(2);
      if (subject == nullptr) {
        subject = std::make_shared<const Subject>(of);
      }
      REQUIRE_MESSAGE(subject->eager_error < 1e-5, "float32 is off by ", subject->eager_error);
      for_each_maker([&](const Maker& maker) { test_program(of, *subject, maker); });
    });
  }
  return true;
}();

}  // namespace
}  // namespace senet::test
