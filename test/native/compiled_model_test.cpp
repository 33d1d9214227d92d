// CompiledModel: what it refuses, and that it stands on its own once it is made.
#include "modules.h"
#include "support.h"

#include "core/error.h"
#include "inference/compiled_model.h"
#include "inference/cpu/kernel_sets.h"
#include "inference/cpu/program.h"
#include "models/cifar_se_resnet.h"
#include "models/se_inception_v3.h"
#include "models/se_resnet.h"
#include "nn/trace.h"
#include "runtime/threads.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdlib>
#include <new>

namespace senet::test {
namespace {

using namespace inference;

void expect_code(const std::string& code, const std::string& what, const std::function<void()>& work) {
  std::string got = "no error";
  try {
    work();
  } catch (const Error& error) {
    got = error.code();
  }
  REQUIRE_MESSAGE(got == code, what, ": expected ", code, ", got ", got);
}

// SENET_COMPILE_KERNELS while alive; null is unset.
class ChosenKernels {
 public:
  explicit ChosenKernels(const char* name) {
    if (name != nullptr) {
      setenv("SENET_COMPILE_KERNELS", name, 1);
    }
  }
  ~ChosenKernels() {
    unsetenv("SENET_COMPILE_KERNELS");
  }
};

std::shared_ptr<nn::Module> small_network() {
  at::manual_seed(3);
  auto network = std::make_shared<models::CifarSEResNet>(1, 10, 16);
  network->eval();
  return network;
}

at::Tensor draw(at::IntArrayRef shape) {
  return Random(41).tensor(shape, at::kFloat).to(at::kFloat);
}

// The compiled model gives the same, bit by bit, after its source was changed, converted and freed.
void check_independence(const char* kernels, at::ScalarType dtype) {
  const ChosenKernels chosen(kernels);
  runtime::use_threads(2);
  for (const ModuleCase& of : module_cases()) {
    // One of each kind of node and of what is fused.
    const std::vector<std::string> chosen_names = {"BatchNorm2d",
                                                   "Sequential of layers",
                                                   "SEBasicBlock with downsample",
                                                   "SEBottleneck with downsample and stride",
                                                   "CifarSEPreActResNet",
                                                   "InceptionA, SE of the output"};
    if (std::find(chosen_names.begin(), chosen_names.end(), of.name) == chosen_names.end()) {
      continue;
    }
    std::shared_ptr<nn::Module> source = make_module(of);
    const auto model = CompiledModel::compile(*source, dtype);
    const at::Tensor x = draw({2, of.channels, of.sizes.back()[0], of.sizes.back()[1]});
    const at::Tensor before = model->forward(x);
    REQUIRE_MESSAGE((before.isfinite().all().item<bool>() && before.abs().max().item<double>() > 0), of.name,
                    ": no sensible output");
    {
      const at::NoGradGuard no_grad;
      for (const at::Tensor& parameter : source->parameters()) {
        parameter.fill_(std::nan(""));
      }
      for (const at::Tensor& buffer : source->buffers()) {
        buffer.zero_();
      }
    }
    REQUIRE_MESSAGE(same_bytes(before, model->forward(x)), of.name, ": changed with its source");
    source->to(at::kDouble);
    REQUIRE_MESSAGE(same_bytes(before, model->forward(x)), of.name, ": changed as its source was converted");
    source.reset();
    REQUIRE_MESSAGE(same_bytes(before, model->forward(x)), of.name, ": changed as its source was freed");
    REQUIRE_MESSAGE(!model->explain({x.size(2), x.size(3)}).empty(), of.name, ": no steps");
  }
}

TEST_CASE("CompiledModel, dtypes") {
  const auto network = small_network();
  for (const at::ScalarType dtype : {at::kDouble, at::kInt, at::kLong, at::kByte, at::kBool}) {
    expect_code("ERR_SENET_DTYPE", text("compile for ", dtype),
                [&] { CompiledModel::compile(*network, dtype); });
  }
  // Some processors compute with float16; the others say so.
  try {
    const auto model = CompiledModel::compile(*network, at::kHalf);
    REQUIRE_MESSAGE(model->forward(draw({1, 3, 8, 8})).isfinite().all().item<bool>(),
                    "float16: no sensible output");
  } catch (const Error& error) {
    REQUIRE_MESSAGE((std::string(error.code()) == "ERR_SENET_DTYPE" &&
                     std::string(error.what()).find("float16") != std::string::npos),
                    error.code(), ": ", error.what());
  }
  // Weights of any dtype compile.
  const at::Tensor x = draw({2, 3, 9, 7});
  const at::Tensor expected = CompiledModel::compile(*network, at::kFloat)->forward(x);
  network->to(at::kDouble);
  REQUIRE_MESSAGE(same_bytes(expected, CompiledModel::compile(*network, at::kFloat)->forward(x)),
                  "float64 weights of the same values: another output");
}

// Throws in one of its calls, as one does that gets no memory.
class Failing : public StepObserver {
 public:
  Failing(int64_t call, bool is_before) : call_(call), is_before_(is_before) {}

  void before(const Step&, const Work& work) override {
    look(work, is_before_);
  }
  void after(const Step&, const Work& work) override {
    look(work, !is_before_);
  }
  bool was_called_afterwards() const {
    return was_called_afterwards_;
  }

 private:
  void look(const Work& work, bool counts) {
    if (work.team.index != work.team.size - 1) {
      return;
    }
    was_called_afterwards_ = was_called_afterwards_ || has_failed_;
    if (counts && calls_++ == call_) {
      has_failed_ = true;
      throw std::bad_alloc();
    }
  }

  const int64_t call_;
  const bool is_before_;
  int64_t calls_ = 0;
  bool has_failed_ = false;
  bool was_called_afterwards_ = false;
};

TEST_CASE("a program that is looked into by whom memory fails") {
  const auto network = small_network();
  const Plan plan = make_plan(nn::trace_evaluation(*network));
  const Fused fused = fuse_plan(plan);
  const std::unique_ptr<const ObservableProgram> program = make_observable_program(plan, fused);
  const at::Tensor x = draw({3, 3, 9, 7});
  for (const int threads : {1, 3}) {
    runtime::use_threads(threads);
    for (const bool is_before : {true, false}) {
      for (const int64_t call : {0, 5, 17}) {
        Failing observer(call, is_before);
        CHECK_THROWS_AS(program->observe(x, observer), std::bad_alloc);
        CHECK_FALSE(observer.was_called_afterwards());
      }
    }
    Failing never(-1, true);
    CHECK(program->observe(x, never).isfinite().all().item<bool>());
  }
  runtime::use_threads(2);
}

TEST_CASE("CompiledModel, modules that take no image") {
  const std::vector<std::shared_ptr<nn::Module>> refused = {
      std::make_shared<nn::Linear>(3, 4), std::make_shared<nn::ReLU>(), std::make_shared<nn::Sigmoid>(),
      std::make_shared<nn::Sequential>(
          std::vector<std::shared_ptr<nn::Module>>{std::make_shared<nn::Linear>(3, 4)})};
  for (const auto& module : refused) {
    expect_code("ERR_SENET_COMPILE", module->name(), [&] { CompiledModel::compile(*module, at::kFloat); });
  }
}

TEST_CASE("CompiledModel, inputs") {
  const auto model = CompiledModel::compile(*small_network(), at::kFloat);
  const auto refuse = [&](const char* code, const std::string& what, const at::Tensor& input) {
    expect_code(code, "check_input of " + what, [&] { model->check_input(input); });
    expect_code(code, "forward of " + what, [&] { model->forward(input); });
  };
  for (const at::ScalarType dtype : {at::kDouble, at::kBFloat16, at::kHalf, at::kLong, at::kByte}) {
    refuse("ERR_SENET_DTYPE", text(dtype), at::zeros({1, 3, 8, 8}, dtype));
  }
  for (const std::vector<int64_t>& shape : std::vector<std::vector<int64_t>>{{},
                                                                             {3},
                                                                             {3, 8, 8},
                                                                             {1, 1, 3, 8, 8},
                                                                             {1, 4, 8, 8},
                                                                             {1, 1, 8, 8},
                                                                             {0, 3, 8, 8},
                                                                             {1, 3, 0, 8},
                                                                             {1, 3, 8, 0},
                                                                             {1, 0, 8, 8}}) {
    refuse("ERR_SENET_SHAPE", text("shape ", at::IntArrayRef(shape)), at::zeros(shape));
  }
  refuse("ERR_SENET_SHAPE", "a sparse tensor", at::zeros({1, 3, 8, 8}).to_sparse());

  // A size that a window does not fit in is refused by forward and explain, again and again, and others run
  // on.
  nn::InceptionB block(16);
  block.eval();
  for (const char* kernels : {static_cast<const char*>(nullptr), "libtorch"}) {
    const ChosenKernels chosen(kernels);
    const auto compiled = CompiledModel::compile(block, at::kFloat);
    for (int round = 0; round < 2; ++round) {
      expect_code("ERR_SENET_SHAPE", "explain of 2 x 5", [&] { compiled->explain({2, 5}); });
      if (kernels == nullptr) {
        expect_code("ERR_SENET_SHAPE", "forward of 2 x 5", [&] { compiled->forward(draw({1, 16, 2, 5})); });
      }
      REQUIRE_MESSAGE(compiled->forward(draw({1, 16, 3, 5})).size(3) == 2, "3 x 5: another shape");
    }
  }
}

TEST_CASE("CompiledModel, size of SEInception3") {
  const nn::SkipInitScope no_draws;
  auto network = std::make_shared<models::SEInception3>(models::InceptionOptions{10, false, true},
                                                        nn::Recalibrate::kNone);
  network->eval();
  const auto model = CompiledModel::compile(*network, at::kFloat);
  REQUIRE_MESSAGE((model->usual_size == graph::Size2{299, 299}), "the usual size is not 299 x 299");
  expect_code("ERR_SENET_SHAPE", "forward of 224 x 224", [&] {
    model->forward(at::zeros({1, 3, 224, 224}));
  });
  expect_code("ERR_SENET_SHAPE", "explain of 299 x 298", [&] { model->explain({299, 298}); });
  int64_t multiply_adds = 0;
  for (const StepInfo& step : model->explain({299, 299})) {
    multiply_adds += step.multiply_adds;
  }
  // Inception-v3 has 5.7e9; its SE layers do nothing here.
  REQUIRE_MESSAGE((multiply_adds > 5.6e9 && multiply_adds < 5.8e9), multiply_adds, " multiply-adds");
}

// All of Inception-v3 on a small image, with the change of normalisation in front.
TEST_CASE("CompiledModel, Inception3") {
  at::manual_seed(5);
  auto network = std::make_shared<models::Inception3>(models::InceptionOptions{10, false, true});
  network->eval();
  const at::NoGradGuard no_grad;
  for (const auto& part : network->modules()) {
    if (auto* bn = dynamic_cast<nn::BatchNorm2d*>(part.get())) {
      // As in a trained network, activations neither vanish nor grow without end.
      bn->running_var.uniform_(5, 15);
      bn->running_mean.uniform_(-0.3, 0.3);
    }
  }
  runtime::use_threads(2);
  const at::Tensor x = draw({2, 3, 79, 83});
  const at::Tensor eager = network->forward(x).tensor();
  const auto model = CompiledModel::compile(*network, at::kFloat);
  network->to(at::kDouble);
  const at::Tensor expected = network->forward(x.to(at::kDouble)).tensor();
  const auto error = [&](const at::Tensor& y) {
    return ((y.to(at::kDouble) - expected).norm() / expected.norm()).item<double>();
  };
  const double allowed = std::max(3e-6, 3 * error(eager));
  const double found = error(model->forward(x));
  REQUIRE_MESSAGE(found <= allowed, "relative error ", found, ", allowed ", allowed);
}

// What a caller reads of it.
TEST_CASE("CompiledModel, facts") {
  const auto network = small_network();
  const auto model = CompiledModel::compile(*network, at::kFloat);
  REQUIRE_MESSAGE((model->name == "CifarSEResNet" && model->dtype == at::kFloat && model->device.is_cpu() &&
                   model->in_channels == 3),
                  "other facts than the module's");
  for (const std::string kernels : {"avx2", "avx512", "libtorch"}) {
    const ChosenKernels chosen(kernels.c_str());
    const auto compile = [&] { return CompiledModel::compile(*network, at::kFloat); };
    const bool is_libtorch = kernels == "libtorch";
    if (!is_libtorch && inference::processor_kernels(kernels) == nullptr) {
      expect_code("ERR_SENET_COMPILE", kernels, compile);
      continue;
    }
    const std::string backend = compile()->backend();
    REQUIRE_MESSAGE(backend == (is_libtorch ? "onednn" : kernels), kernels, ": runs on ", backend);
  }
  const ChosenKernels unknown("sse");
  expect_code("ERR_SENET_COMPILE", "unknown kernels", [&] { CompiledModel::compile(*network, at::kFloat); });

  // The convolutions and the linear layers, counted by hand for 32 x 32: stages of 32, 16 and 8 squared.
  int64_t expected = 32 * 32 * 9 * 16 * (3 + 16 + 16) + (16 * 1 + 1 * 16);
  expected += 16 * 16 * (9 * 32 * (16 + 32) + 16 * 32) + (32 * 2 + 2 * 32);
  expected += 8 * 8 * (9 * 64 * (32 + 64) + 32 * 64) + (64 * 4 + 4 * 64);
  expected += 64 * 10;
  int64_t multiply_adds = 0;
  for (const StepInfo& step : model->explain({32, 32})) {
    multiply_adds += step.multiply_adds;
  }
  REQUIRE_MESSAGE(multiply_adds == expected, multiply_adds, " multiply-adds, expected ", expected);
}

TEST_CASE("CompiledModel, on its own") {
  for (const char* kernels : {static_cast<const char*>(nullptr), "libtorch"}) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const std::string name =
          text(kernels == nullptr ? "our kernels" : kernels, dtype == at::kFloat ? " float32" : " bfloat16");
      SUBCASE(name.c_str()) {
        const std::string reason = refusal([&] {
          const ChosenKernels chosen(kernels);
          CompiledModel::compile(*small_network(), dtype);
        });
        if (reason.empty()) {
          check_independence(kernels, dtype);
        } else {
          MESSAGE("SKIPPED: ", name, ": ", reason);
        }
      }
    }
  }
}

}  // namespace
}  // namespace senet::test
