// The loop without Node that binding.js compares with: senet_loop MODEL THREADS WARM_UP_SECONDS SECONDS prints the
// median milliseconds of a forward of a compiled model (float32, batch 1), as JSON.
#include "inference/compiled_model.h"
#include "models/registry.h"
#include "runtime/allocator.h"
#include "runtime/threads.h"

#include <ATen/ops/randn.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

using namespace senet;

namespace {

std::shared_ptr<nn::Module> create(const std::string& model) {
  if (model == "se_resnet20") {
    return models::create_module("CifarSEResNet", {{"nSize", int64_t{3}},
                                                   {"inChannels", int64_t{3}},
                                                   {"numClasses", int64_t{10}},
                                                   {"reduction", int64_t{16}}});
  }
  return models::create_module("SEResNet", {{"block", std::string("SEBottleneck")},
                                            {"layers", std::vector<int64_t>{3, 4, 6, 3}},
                                            {"inChannels", int64_t{3}},
                                            {"numClasses", int64_t{1000}}});
}

std::vector<double> repeat(const inference::CompiledModel& model, const at::Tensor& x, double seconds) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> milliseconds;
  const Clock::time_point begin = Clock::now();
  while (std::chrono::duration<double>(Clock::now() - begin).count() < seconds) {
    const Clock::time_point start = Clock::now();
    model.forward(x);
    milliseconds.push_back(std::chrono::duration<double, std::milli>(Clock::now() - start).count());
  }
  return milliseconds;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 5) {
    std::fprintf(stderr, "usage: senet_loop se_resnet50|se_resnet20 THREADS WARM_UP_SECONDS SECONDS\n");
    return 2;
  }
  runtime::install_cpu_allocator();
  runtime::use_threads(std::atoi(arguments[2]));
  const std::string name = arguments[1];
  const std::shared_ptr<nn::Module> module = create(name);
  module->eval();
  const auto model = inference::CompiledModel::compile(*module, at::kFloat);
  const int64_t side = name == "se_resnet20" ? 32 : 224;
  const at::Tensor x = at::randn({1, 3, side, side});
  repeat(*model, x, std::atof(arguments[3]));
  std::vector<double> milliseconds = repeat(*model, x, std::atof(arguments[4]));
  const auto middle = milliseconds.begin() + static_cast<std::ptrdiff_t>(milliseconds.size() / 2);
  std::nth_element(milliseconds.begin(), middle, milliseconds.end());
  std::printf("{\"milliseconds\": %.6f, \"runs\": %zu}\n", *middle, milliseconds.size());
  return 0;
}
