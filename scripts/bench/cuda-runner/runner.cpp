// The CUDA programs of compiled models without Node and LibTorch: checks every kernel and cuDNN's fused
// convolutions against float64, and times se_resnet50 in the forms V0, V1 and V5 (network.h). `node
// scripts/bench/cuda-runner` builds and runs it; it needs no CUDA header or toolkit, only the libraries at
// run time.
#include "host.h"
#include "network.h"

#include "inference/cuda/lanes.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <future>
#include <thread>

namespace senet::runner {
namespace {

// Of the CUDA runtime (cudaDeviceAttr).
constexpr int kMultiprocessors = 16;
constexpr int kMajor = 75;
constexpr int kMinor = 76;

bool has_failed = false;

void report(const std::string& what, double error, double bound) {
  const bool is_good = error <= bound;
  has_failed = has_failed || !is_good;
  std::printf("%-44s %9.2e  at most %.0e  %s\n", what.c_str(), error, bound, is_good ? "" : "WRONG");
}

// The largest difference, relative to the largest number.
double distance(const std::vector<double>& actual, const std::vector<double>& expected) {
  double difference = 0;
  double largest = 1e-30;
  for (size_t i = 0; i < expected.size(); ++i) {
    difference = std::max(difference, std::abs(actual[i] - expected[i]));
    largest = std::max(largest, std::abs(expected[i]));
  }
  return std::isnan(difference) ? HUGE_VAL : difference / largest;
}

template <class T>
std::vector<double> wide(const std::vector<T>& values) {
  return {values.begin(), values.end()};
}

class Checks {
 public:
  Checks(const Device& device, const Kernels& kernels) : device_(device), kernels_(kernels) {}

  void run() {
    for (const int tile_rows : {64, 128}) {
      for (const bool has_all : {false, true}) {
        conv1x1(tile_rows, has_all);
      }
    }
    dense();
    pointwise();
    mean_and_excite();
    pool();
    unpack_and_export();
  }

 private:
  static constexpr double kBound = 2e-3;  // float16 has 11 bits

  std::vector<double> halves(const std::shared_ptr<void>& memory, size_t count) const {
    return wide(device_.download<Half>(memory.get(), count));
  }

  void conv1x1(int tile_rows, bool has_all) {
    constexpr int64_t kImages = 3, kPixels = 49, kIn = 72, kOut = 136, kRows = kImages * kPixels;
    const auto x = numbers_.halves(kRows * kIn, 1);
    const auto w = numbers_.halves(kOut * kIn, 0.2);
    const auto bias = numbers_.floats(kOut, 1);
    const auto factors = numbers_.halves(kImages * kOut, 1);
    const auto residual = numbers_.halves(kRows * kOut, 1);
    const std::vector<std::shared_ptr<void>> on = {
        device_.upload(x),       device_.upload(w),        device_.upload(bias),
        device_.upload(factors), device_.upload(residual), device_.allocate(kRows * kOut * 2)};
    const Conv1x1 task{on[0].get(),
                       on[1].get(),
                       static_cast<const float*>(on[2].get()),
                       has_all ? on[3].get() : nullptr,
                       has_all ? on[4].get() : nullptr,
                       on[5].get(),
                       kRows,
                       kPixels,
                       kIn,
                       kOut,
                       true};
    kernels_.run(task, tile_rows, nullptr);
    std::vector<double> expected;
    for (int64_t row = 0; row < kRows; ++row) {
      for (int64_t c = 0; c < kOut; ++c) {
        double sum = bias[c];
        for (int64_t k = 0; k < kIn; ++k) {
          sum += static_cast<double>(x[row * kIn + k]) * static_cast<double>(w[c * kIn + k]);
        }
        if (has_all) {
          sum = sum * static_cast<double>(factors[row / kPixels * kOut + c]) +
                static_cast<double>(residual[row * kOut + c]);
        }
        expected.push_back(std::max(0.0, sum));
      }
    }
    report("conv1x1 of " + std::to_string(tile_rows) + (has_all ? ", factors, residual" : ""),
           distance(halves(on[5], expected.size()), expected), kBound);
  }

  void dense() {
    constexpr int64_t kImages = 5, kIn = 256, kOut = 40;
    const auto x = numbers_.halves(kImages * kIn, 1);
    const auto w = numbers_.halves(kOut * kIn, 0.1);
    const auto bias = numbers_.floats(kOut, 1);
    const std::vector<std::shared_ptr<void>> on = {device_.upload(x), device_.upload(w), device_.upload(bias),
                                                   device_.allocate(kImages * kOut * 2)};
    kernels_.run(Dense{on[0].get(), on[1].get(), static_cast<const float*>(on[2].get()), on[3].get(), kImages,
                       kIn, kOut, false},
                 nullptr);
    std::vector<double> expected;
    for (int64_t n = 0; n < kImages; ++n) {
      for (int64_t c = 0; c < kOut; ++c) {
        double sum = bias[c];
        for (int64_t k = 0; k < kIn; ++k) {
          sum += static_cast<double>(x[n * kIn + k]) * static_cast<double>(w[c * kIn + k]);
        }
        expected.push_back(sum);
      }
    }
    report("dense", distance(halves(on[3], expected.size()), expected), kBound);
  }

  void pointwise() {
    constexpr int64_t kImages = 2, kSide = 9, kChannels = 24, kAll = kImages * kSide * kSide * kChannels;
    const auto x = numbers_.halves(kAll, 1);
    const auto factors = numbers_.halves(kImages * kChannels, 1);
    const auto residual = numbers_.halves(kAll, 1);
    const std::vector<std::shared_ptr<void>> on = {device_.upload(x), device_.upload(factors),
                                                   device_.upload(residual), device_.allocate(kAll * 2)};
    const auto as = [&](const std::shared_ptr<void>& memory) {
      return Activation{memory.get(), kImages, kSide, kSide, kChannels, kChannels};
    };
    Pointwise task{as(on[0]), as(on[3])};
    task.factors = on[1].get();
    task.residual = as(on[2]);
    task.relu = true;
    kernels_.run(task, nullptr);
    std::vector<double> expected;
    for (int64_t i = 0; i < kAll; ++i) {
      const int64_t image = i / (kSide * kSide * kChannels);
      expected.push_back(std::max(
          0.0, static_cast<double>(x[i]) * static_cast<double>(factors[image * kChannels + i % kChannels]) +
                   static_cast<double>(residual[i])));
    }
    report("pointwise: factors, residual, ReLU", distance(halves(on[3], kAll), expected), kBound);
  }

  void mean_and_excite() {
    constexpr int64_t kImages = 3, kSide = 14, kChannels = 64, kHidden = 16, kOut = 256;
    constexpr int64_t kPixels = kSide * kSide, kParts = 4;
    const auto x = numbers_.halves(kImages * kPixels * kChannels, 1);
    const auto w1 = numbers_.halves(kHidden * kChannels, 1);
    const auto w2 = numbers_.halves(kOut * kHidden, 1);
    const auto b1 = numbers_.floats(kHidden, 1);
    const auto b2 = numbers_.floats(kOut, 1);
    const std::vector<std::shared_ptr<void>> on = {device_.upload(x),
                                                   device_.upload(w1),
                                                   device_.upload(b1),
                                                   device_.upload(w2),
                                                   device_.upload(b2),
                                                   device_.allocate(kImages * kParts * kChannels * 4),
                                                   device_.allocate(kImages * kOut * 2)};
    kernels_.run(Mean{{on[0].get(), kImages, kSide, kSide, kChannels, kChannels},
                      static_cast<float*>(on[5].get()),
                      kParts},
                 nullptr);
    Excite task{};
    task.parts = static_cast<const float*>(on[5].get());
    task.n = kImages;
    task.part_count = kParts;
    task.in_channels = kChannels;
    task.hidden = kHidden;
    task.channels = kOut;
    task.w1 = on[1].get();
    task.b1 = static_cast<const float*>(on[2].get());
    task.w2 = on[3].get();
    task.b2 = static_cast<const float*>(on[4].get());
    task.factors = on[6].get();
    kernels_.run(task, nullptr);
    std::vector<double> expected;
    for (int64_t n = 0; n < kImages; ++n) {
      std::vector<double> means(kChannels);
      for (int64_t i = 0; i < kPixels * kChannels; ++i) {
        means[i % kChannels] += static_cast<double>(x[n * kPixels * kChannels + i]) / kPixels;
      }
      std::vector<double> hidden;
      for (int64_t h = 0; h < kHidden; ++h) {
        double sum = b1[h];
        for (int64_t c = 0; c < kChannels; ++c) {
          sum += means[c] * static_cast<double>(w1[h * kChannels + c]);
        }
        hidden.push_back(std::max(0.0, sum));
      }
      for (int64_t c = 0; c < kOut; ++c) {
        double sum = b2[c];
        for (int64_t h = 0; h < kHidden; ++h) {
          sum += hidden[h] * static_cast<double>(w2[c * kHidden + h]);
        }
        expected.push_back(1 / (1 + std::exp(-sum)));
      }
    }
    report("mean and excitation", distance(halves(on[6], expected.size()), expected), kBound);
  }

  void pool() {
    constexpr int64_t kSide = 11, kOutSide = 6, kChannels = 16;
    const auto x = numbers_.halves(kSide * kSide * kChannels, 1);
    const std::vector<std::shared_ptr<void>> on = {device_.upload(x),
                                                   device_.allocate(kOutSide * kOutSide * kChannels * 2)};
    kernels_.run(Pool{{on[0].get(), 1, kSide, kSide, kChannels, kChannels},
                      {on[1].get(), 1, kOutSide, kOutSide, kChannels, kChannels},
                      {3, 3},
                      {2, 2},
                      {1, 1},
                      true},
                 nullptr);
    std::vector<double> expected;
    for (int64_t i = 0; i < kOutSide * kOutSide * kChannels; ++i) {
      const int64_t row = i / kChannels / kOutSide, column = i / kChannels % kOutSide;
      double most = -HUGE_VAL;
      for (int64_t h = std::max<int64_t>(0, 2 * row - 1); h < std::min(kSide, 2 * row + 2); ++h) {
        for (int64_t w = std::max<int64_t>(0, 2 * column - 1); w < std::min(kSide, 2 * column + 2); ++w) {
          most = std::max(most, static_cast<double>(x[(h * kSide + w) * kChannels + i % kChannels]));
        }
      }
      expected.push_back(most);
    }
    report("max pool", distance(halves(on[1], expected.size()), expected), 0);
  }

  void unpack_and_export() {
    constexpr int64_t kImages = 2, kSide = 33, kPitch = 8, kPixels = kSide * kSide;
    std::vector<unsigned char> pixels;
    for (int64_t i = 0; i < kImages * kPixels * 3; ++i) {
      pixels.push_back(static_cast<unsigned char>(i * 37 % 256));
    }
    const std::vector<std::shared_ptr<void>> on = {device_.upload(pixels),
                                                   device_.allocate(kImages * kPixels * kPitch * 2),
                                                   device_.allocate(kImages * kPixels * 3 * 4)};
    const Array<float, 4> mean = {0.485f, 0.456f, 0.406f, 0}, deviation = {0.229f, 0.224f, 0.225f, 1};
    const Activation to{on[1].get(), kImages, kSide, kSide, kPitch, kPitch};
    kernels_.run(Unpack{static_cast<const unsigned char*>(on[0].get()),
                        {kPixels * 3, 1, kSide * 3, 3},
                        3,
                        mean,
                        deviation,
                        to},
                 nullptr);
    kernels_.run(Export{to, 3, static_cast<float*>(on[2].get())}, nullptr);
    const auto actual = device_.download<float>(on[2].get(), kImages * kPixels * 3);
    std::vector<double> expected;
    for (int64_t i = 0; i < kImages * kPixels * 3; ++i) {
      const int64_t image = i / (3 * kPixels), c = i / kPixels % 3, pixel = i % kPixels;
      expected.push_back((pixels[(image * kPixels + pixel) * 3 + c] / 255.0 - mean[c]) / deviation[c]);
    }
    report("unpack and export", distance(wide(actual), expected), kBound);
  }

  const Device& device_;
  const Kernels& kernels_;
  Numbers numbers_;
};

class RunnerHost : public Host {
 public:
  explicit RunnerHost(const Device& device) : device_(device) {}
  std::shared_ptr<void> allocate(int64_t bytes) const override {
    return device_.allocate(static_cast<size_t>(bytes));
  }
  void operate(const Step& step, const std::vector<Activation>&, const Activation&) const override {
    throw std::runtime_error("no kernel serves " + step.name);
  }

 private:
  const Device& device_;
};

double milliseconds(const std::function<void()>& work, const Device& device, int runs) {
  const auto synchronize = [&] {
    check_cuda(device.driver(), device.driver().cudaStreamSynchronize(nullptr), "the runs");
  };
  for (int i = 0; i < 5; ++i) {
    work();
  }
  synchronize();
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < runs; ++i) {
    work();
  }
  synchronize();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count() / runs;
}

// From pixels in the host's memory to logits there, by lanes: images a second.
double lanes_rate(const Device& device, const Machine& machine, const Host& host, const Network& network,
                  int64_t batch, size_t count) {
  auto lanes = std::make_shared<Lanes>(
      device.driver(), 0, Lanes::Limits{count, 256, 16, int64_t{6} << 30}, [](int64_t n) { return n; },
      [&](const LaneKey& key, Stream stream) {
        return make_sequence(machine, host, network.steps, network.sizes, key.count, {stream, &key.images});
      });
  const std::vector<unsigned char> pixels(static_cast<size_t>(batch) * 224 * 224 * 3, 100);
  std::atomic<int> left = 0;
  const auto submit = [&] {
    auto request = std::make_shared<Request>();
    request->images = {true, false, 3, {0.485f, 0.456f, 0.406f}, {0.229f, 0.224f, 0.225f}};
    request->size = {224, 224};
    request->count = batch;
    request->write = [&](int64_t, int64_t, void* to) { std::memcpy(to, pixels.data(), pixels.size()); };
    request->read = [](int64_t, int64_t, const float*) {};
    request->done = [&, keep = lanes](std::exception_ptr failure) mutable {
      keep.reset();
      if (failure) {
        std::rethrow_exception(failure);
      }
      --left;
    };
    request->post = [](std::function<void()> work) { std::thread(std::move(work)).detach(); };
    ++left;
    lanes->run(std::move(request));
  };
  const auto run = [&](int runs) {
    for (int i = 0; i < runs; ++i) {
      while (left >= static_cast<int>(count)) {
        std::this_thread::sleep_for(std::chrono::microseconds(10));
      }
      submit();
    }
    while (left > 0) {
      std::this_thread::sleep_for(std::chrono::microseconds(10));
    }
  };
  run(static_cast<int>(3 * count));
  const int runs = batch >= 32 ? 60 : 300;
  const auto start = std::chrono::steady_clock::now();
  run(runs);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return static_cast<double>(runs) * static_cast<double>(batch) / seconds;
}

int main_of(const std::string& folder) {
  std::unique_ptr<Device> device;
  try {
    device = std::make_unique<Device>(folder);
  } catch (const std::exception& error) {
    std::printf("Nothing was run: %s\n", error.what());
    return 2;
  }
  const int architecture = 10 * device->attribute(kMajor) + device->attribute(kMinor);
  const int multiprocessors = device->attribute(kMultiprocessors);
  const Driver& driver = device->driver();
  std::printf("%s, sm_%d, %d multiprocessors, cuDNN %zu, NVRTC %d\n\n", device->name().c_str(), architecture,
              multiprocessors, driver.cudnn_version, driver.nvrtc_version);
  const auto cache = std::filesystem::temp_directory_path() / "senet-cuda-runner";
  const auto kernels = make_kernels(driver, architecture, Type::kHalf, cache);
  Checks(*device, *kernels).run();

  CudnnHandle handle = nullptr;
  std::vector<CudnnHandle> planners(std::clamp<unsigned>(std::thread::hardware_concurrency(), 1, 16));
  check_cudnn(driver, driver.cudnnCreate(&handle), "cudnnCreate");
  for (CudnnHandle& planner : planners) {
    check_cudnn(driver, driver.cudnnCreate(&planner), "cudnnCreate");
  }
  std::mutex handle_mutex;
  const DiskCache plans(cache / ("plans-" + std::to_string(driver.cudnn_version) + '-' + kernels_version()));
  const Machine machine{driver, *kernels,     0,        multiprocessors, Type::kHalf,       false,
                        handle, handle_mutex, planners, plans,           kMostMeasuredPlans};
  const RunnerHost host(*device);

  std::printf("\nse_resnet50, float16, ms a batch\n%-6s%10s%10s%10s%10s\n", "", "b1", "b8", "b32", "b128");
  for (const auto& [name, form] : {std::pair{"V0", Form::kV0}, {"V1", Form::kV1}, {"V5", Form::kV5}}) {
    const Network network(*device, form, 224);
    std::printf("%-6s", name);
    for (const int64_t batch : {1, 8, 32, 128}) {
      const auto sequence = make_sequence(machine, host, network.steps, network.sizes, batch);
      std::printf("%10.3f", milliseconds([&] { sequence->run(); }, *device, batch >= 32 ? 30 : 200));
      std::fflush(stdout);
    }
    std::printf("\n");
  }
  std::printf("V6, V7: not written\n\nfrom pixels on the host to logits there, images a second\n%-8s",
              "lanes");
  for (const int64_t batch : {1, 8, 32, 128}) {
    std::printf("%9s%ld", "b", static_cast<long>(batch));
  }
  std::printf("\n");
  const Network network(*device, Form::kV5, 224);
  for (const size_t lanes : {1, 2, 3}) {
    std::printf("%-8zu", lanes);
    for (const int64_t batch : {1, 8, 32, 128}) {
      std::printf("%10.0f", lanes_rate(*device, machine, host, network, batch, lanes));
      std::fflush(stdout);
    }
    std::printf("\n");
  }
  return has_failed ? 1 : 0;
}

}  // namespace
}  // namespace senet::runner

int main(int count, char** arguments) {
  try {
    return senet::runner::main_of(count > 1 ? arguments[1] : "");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
