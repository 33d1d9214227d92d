// A block and a network that the library does not know: what CONTRIBUTING says of adding one, done. Nothing
// but their classes and two rows names them, and they run, train, compile and are recorded.
#include "modules.h"
#include "support.h"

#include "core/error.h"
#include "inference/compiled_model.h"
#include "models/registry.h"
#include "nn/run.h"
#include "nn/se_layer.h"
#include "runtime/threads.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdlib>
#include <limits>

namespace senet::test {
namespace {

// Two convolutions side by side, Squeeze-and-Excitation of both, and the input added.
class TwinBlock : public nn::Module {
 public:
  explicit TwinBlock(int64_t channels) : Module("TwinBlock"), channels(channels) {
    add_child("wide", wide, nn::conv3x3(channels, channels / 2));
    add_child("bn_wide", bn_wide, std::make_shared<nn::BatchNorm2d>(channels / 2));
    add_child("narrow", narrow, nn::conv1x1(channels, channels / 2));
    add_child("bn_narrow", bn_narrow, std::make_shared<nn::BatchNorm2d>(channels / 2));
    add_child("relu", relu, std::make_shared<nn::ReLU>());
    add_child("se", se, std::make_shared<nn::SELayer>(channels, 4));
  }

  static std::shared_ptr<nn::Module> make(nn::OptionReader& options) {
    const int64_t channels = options.integer("channels", nn::kMaxWidth);
    options.reject_others();
    return std::make_shared<TwinBlock>(channels);
  }

  nn::Value compute(const nn::Value& input) override {
    const nn::Value a = relu->forward(bn_wide->forward(wide->forward(input)));
    const nn::Value b = bn_narrow->forward(narrow->forward(input));
    const nn::Value both = se->forward(apply(graph::Concatenate{}, {a, b}));
    return relu->forward(apply(graph::Add{}, {both, input}));
  }

  void check_input(const nn::Value& input) const override {
    Module::check_input(input);
    check_image(input, channels);
  }

  nn::Width width() const override {
    return {channels, channels};
  }

  const int64_t channels;
  std::shared_ptr<nn::Conv2d> wide, narrow;
  std::shared_ptr<nn::BatchNorm2d> bn_wide, bn_narrow;
  std::shared_ptr<nn::ReLU> relu;
  std::shared_ptr<nn::SELayer> se;
};

class TwinNet : public nn::Module {
 public:
  explicit TwinNet(int64_t num_classes) : Module("TwinNet") {
    add_child("stem", stem, nn::conv3x3(3, 32, 2));
    add_child("bn", bn, std::make_shared<nn::BatchNorm2d>(32));
    add_child("relu", relu, std::make_shared<nn::ReLU>());
    for (const char* name : {"block1", "block2"}) {
      blocks.push_back(register_module(name, std::make_shared<TwinBlock>(32)));
    }
    add_child("avgpool", avgpool, std::make_shared<nn::AdaptiveAvgPool2d>());
    add_head("fc", fc, 32, nn::make_head(32, num_classes));
  }

  static std::shared_ptr<nn::Module> make(nn::OptionReader& options) {
    const int64_t num_classes = options.integer("numClasses", nn::kMaxWidth, 0);
    options.reject_others();
    return std::make_shared<TwinNet>(num_classes);
  }

  nn::Value compute(const nn::Value& input) override {
    nn::Value x = relu->forward(bn->forward(stem->forward(input)));
    for (const auto& block : blocks) {
      x = block->forward(x);
    }
    return fc->forward(apply(graph::Flatten{}, {avgpool->forward(x)}));
  }

  std::shared_ptr<nn::Conv2d> stem;
  std::shared_ptr<nn::BatchNorm2d> bn;
  std::shared_ptr<nn::ReLU> relu;
  std::vector<std::shared_ptr<TwinBlock>> blocks;
  std::shared_ptr<nn::AdaptiveAvgPool2d> avgpool;
  std::shared_ptr<nn::Module> fc;
};

// Its forward asks for numbers, which no trace has.
class Reading : public nn::Module {
 public:
  Reading() : Module("Reading") {
    add_child("conv", conv, nn::conv1x1(3, 3));
  }

  nn::Value compute(const nn::Value& input) override {
    const nn::Value x = conv->forward(input);
    return x.tensor().mean().item<double>() > 0 ? x : input;
  }

  std::shared_ptr<nn::Conv2d> conv;
};

std::shared_ptr<nn::Module> make_network() {
  static const bool registered = [] {
    models::add_factory("TwinBlock", TwinBlock::make);
    models::add_factory("TwinNet", TwinNet::make);
    return true;
  }();
  REQUIRE_MESSAGE(registered, "not registered");
  at::manual_seed(11);
  return models::create_module("TwinNet", {{"numClasses", int64_t{5}}});
}

at::Tensor draw(at::IntArrayRef shape) {
  return Random(7).tensor(shape, at::kFloat).to(at::kFloat);
}

TEST_CASE("a registered network, compiled") {
  const std::shared_ptr<nn::Module> network = make_network();
  network->eval();
  const at::NoGradGuard no_grad;
  runtime::use_threads(2);
  const at::Tensor x = draw({3, 3, 17, 15});
  const at::Tensor eager = nn::run(*network, x).logits;
  for (const char* kernels : {static_cast<const char*>(nullptr), "libtorch"}) {
    if (kernels != nullptr) {
      setenv("SENET_COMPILE_KERNELS", kernels, 1);
    }
    const auto model = inference::CompiledModel::compile(*network, at::kFloat);
    unsetenv("SENET_COMPILE_KERNELS");
    const double error = ((model->forward(x) - eager).norm() / eager.norm()).item<double>();
    REQUIRE_MESSAGE(error < 1e-5, "relative error ", error);
    int64_t excitations = 0;
    for (const inference::StepInfo& step : model->explain({17, 15})) {
      excitations += std::count(step.fused.begin(), step.fused.end(), "residual");
    }
    REQUIRE_MESSAGE(excitations == 2, excitations, " sums with the residual in another step, expected 2");
  }
}

// Gradients of a fused step are those of the layers one by one.
TEST_CASE("a registered network, trained") {
  const std::shared_ptr<nn::Module> networks[] = {make_network(), make_network()};
  const at::Tensor x = draw({4, 3, 16, 16});
  std::vector<std::vector<at::Tensor>> gradients;
  for (const auto& network : networks) {
    network->train();
    const bool fused = gradients.empty();
    const at::Tensor input = fused ? x.contiguous(at::MemoryFormat::ChannelsLast) : x;
    const at::Tensor logits = fused ? nn::run(*network, input).logits : network->forward(input).tensor();
    logits.pow(2).sum().backward();
    gradients.emplace_back();
    for (const at::Tensor& parameter : network->parameters()) {
      REQUIRE_MESSAGE(parameter.grad().defined(), "a parameter without a gradient");
      gradients.back().push_back(parameter.grad());
    }
  }
  double largest = 0;
  for (const at::Tensor& gradient : gradients[1]) {
    largest = std::max(largest, gradient.abs().max().item<double>());
  }
  for (size_t i = 0; i < gradients[0].size(); ++i) {
    const double error = (gradients[0][i] - gradients[1][i]).abs().max().item<double>() / largest;
    REQUIRE_MESSAGE(error < 1e-5, "gradient ", i, " is off by ", error);
  }
}

TEST_CASE("a registered network, recorded") {
  const std::shared_ptr<nn::Module> network = make_network();
  network->eval();
  nn::Recording recording;
  {
    const at::NoGradGuard no_grad;
    const nn::RecordingScope scope(recording);
    nn::run(*network, draw({1, 3, 16, 16}));
  }
  const auto of_type = [&](const std::string& type) {
    return std::count_if(recording.calls.begin(), recording.calls.end(),
                         [&](const nn::ModuleCall& call) { return call.module->name() == type; });
  };
  REQUIRE_MESSAGE((of_type("TwinBlock") == 2 && of_type("SELayer") == 2 && of_type("TwinNet") == 1),
                  "other calls than the forward's");
}

TEST_CASE("a registered network, looked into") {
  const std::shared_ptr<nn::Module> network = make_network();
  network->eval();
  const at::NoGradGuard no_grad;
  const at::Tensor x = draw({1, 3, 16, 16});
  const at::Tensor plain = nn::run(*network, x).logits;
  at::Tensor instead = at::full_like(plain, std::numeric_limits<double>::quiet_NaN());
  instead.flatten()[0] = 7;
  nn::Recording recording;
  recording.replacements[network.get()] = instead;
  recording.outputs[network.get()];
  at::Tensor output;
  {
    const nn::RecordingScope scope(recording);
    output = nn::run(*network, x).logits;
  }
  REQUIRE_MESSAGE(output.flatten()[0].item<double>() == 7, "the number is not what replaces it");
  REQUIRE_MESSAGE(at::equal(output.flatten().slice(0, 1), plain.flatten().slice(0, 1)),
                  "NaN does not leave what was computed");
  output.zero_();
  REQUIRE_MESSAGE(recording.outputs[network.get()].flatten()[0].item<double>() == 7,
                  "what was kept changed with what went on");
}

TEST_CASE("a forward that reads numbers") {
  Reading reading;
  reading.eval();
  std::string message;
  try {
    inference::CompiledModel::compile(reading, at::kFloat);
  } catch (const Error& error) {
    message = text(error.code(), " ", error.what());
  }
  REQUIRE_MESSAGE(message.find("ERR_SENET_COMPILE compile: Reading cannot be compiled") == 0,
                  "refused with '", message, "'");
  reading.train();  // a fused step is given up before anything is computed
  REQUIRE_MESSAGE(nn::run(reading, draw({2, 3, 5, 5})).logits.dim() == 4, "no output");
}

}  // namespace
}  // namespace senet::test
