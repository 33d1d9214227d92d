// CUDA's kernels without a GPU: the text that NVRTC compiles, compiled for the processor, launched by
// kernels.cpp through a table of functions of ours, and compared with LibTorch's operators in float64. Then
// what is kept on disk, and, where there is an NVRTC, that it takes the text for every architecture.
#include "core/error.h"
#include "cuda_host.h"
#include "inference/cuda/disk_cache.h"
#include "inference/cuda/kernels.h"
#include "support.h"

#include <ATen/ATen.h>

#include <dlfcn.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

namespace senet::test {

#define SENET_HALF
namespace half_kernels {
#include "inference/cuda/kernels.cu"
}
#undef SENET_HALF
#define SENET_BFLOAT16
namespace bfloat16_kernels {
#include "inference/cuda/kernels.cu"
}
#undef SENET_BFLOAT16
#define SENET_FLOAT
namespace float_kernels {
#include "inference/cuda/kernels.cu"
}
#undef SENET_FLOAT

namespace {

namespace cuda = inference::cuda;
using cuda::Driver;
using cuda::Type;

// --- a table of functions that need no GPU
// --------------------------------------------------------------------------

struct HostKernel {
  const char* name;
  void (*run)(const void* task);
};

#define SENET_HOST_KERNEL(name, Task) \
  HostKernel{#name, [](const void* task) { SENET_SPACE::name(*static_cast<const cuda::Task*>(task)); }},
#define SENET_SPACE half_kernels
constexpr HostKernel kHalfKernels[] = {SENET_CUDA_KERNELS(SENET_HOST_KERNEL)
                                           SENET_CUDA_MATRIX_KERNELS(SENET_HOST_KERNEL)};
#undef SENET_SPACE
#define SENET_SPACE bfloat16_kernels
constexpr HostKernel kBFloat16Kernels[] = {SENET_CUDA_KERNELS(SENET_HOST_KERNEL)
                                               SENET_CUDA_MATRIX_KERNELS(SENET_HOST_KERNEL)};
#undef SENET_SPACE
#define SENET_SPACE float_kernels
constexpr HostKernel kFloatKernels[] = {SENET_CUDA_KERNELS(SENET_HOST_KERNEL)};
#undef SENET_SPACE

struct ElementType {
  Type type;
  const char* name;
  const char* define;
  at::ScalarType dtype;
  double error;  // of an element, relative
  const HostKernel* kernels;
  size_t kernel_count;
};
constexpr double kHalfError = 1.0 / (1 << 11);
constexpr double kHalfLeast = 1.0 / (1 << 25);  // half of its smallest number: the error of tiny ones
const ElementType kTypes[] = {
    {Type::kHalf, "float16", "-DSENET_HALF", at::kHalf, kHalfError, kHalfKernels, std::size(kHalfKernels)},
    {Type::kBFloat16, "bfloat16", "-DSENET_BFLOAT16", at::kBFloat16, kBfloat16Error, kBFloat16Kernels,
     std::size(kBFloat16Kernels)},
    {Type::kFloat, "float32", "-DSENET_FLOAT", at::kFloat, 0, kFloatKernels, std::size(kFloatKernels)},
};

// What the functions of the table know; reset by fake_driver().
struct Fake {
  int multiprocessors = 7;
  unsigned most_shared_bytes = 48 << 10;
  int compilations = 0;
  int compile_status = 0;
  int launch_status = 0;
  std::string code;
  std::vector<std::string> launched;  // names of kernels
} fake;

constexpr char kLog[] = "kernels.cu(1): error: that is wrong";

Driver fake_driver() {
  fake = {};
  Driver driver;
  driver.nvrtc_version = 13000;
  driver.cudaGetErrorString = [](int) { return "as the test said"; };
  driver.cudaGetLastError = [] { return 0; };
  driver.cudaGetDevice = [](int* device) { return *device = 0; };
  driver.cudaDeviceGetAttribute = [](int* value, int attribute, int) {
    *value = fake.multiprocessors;
    return attribute == 16 ? 0 : 1;
  };
  driver.nvrtcCreateProgram = [](cuda::NvrtcProgram* program, const char* text, const char*, int headers,
                                 const char* const*, const char* const*) {
    *program = reinterpret_cast<cuda::NvrtcProgram>(&fake);
    return std::strstr(text, "SENET_KERNEL") != nullptr && headers == 1 ? 0 : 1;
  };
  driver.nvrtcDestroyProgram = [](cuda::NvrtcProgram*) { return 0; };
  // The code is the options that it was compiled with.
  driver.nvrtcCompileProgram = [](cuda::NvrtcProgram, int count, const char* const* options) {
    ++fake.compilations;
    fake.code.clear();
    for (int i = 0; i < count; ++i) {
      fake.code += std::string(options[i]) + '\n';
    }
    return fake.compile_status;
  };
  driver.nvrtcGetCUBINSize = [](cuda::NvrtcProgram, size_t* size) {
    *size = fake.code.size();
    return 0;
  };
  driver.nvrtcGetCUBIN = [](cuda::NvrtcProgram, char* code) {
    std::memcpy(code, fake.code.data(), fake.code.size());
    return 0;
  };
  driver.nvrtcGetProgramLogSize = [](cuda::NvrtcProgram, size_t* size) {
    *size = sizeof kLog;
    return 0;
  };
  driver.nvrtcGetProgramLog = [](cuda::NvrtcProgram, char* log) {
    std::memcpy(log, kLog, sizeof kLog);
    return 0;
  };
  driver.cuModuleLoadData = [](cuda::Module* module, const void* code) {
    for (const ElementType& type : kTypes) {
      if (std::strstr(static_cast<const char*>(code), type.define) != nullptr) {
        *module = reinterpret_cast<cuda::Module>(const_cast<HostKernel*>(type.kernels));
        return 0;
      }
    }
    return 1;
  };
  driver.cuModuleUnload = [](cuda::Module) { return 0; };
  driver.cuModuleGetFunction = [](cuda::Function* function, cuda::Module module, const char* name) {
    const auto* const kernels = reinterpret_cast<const HostKernel*>(module);
    const ElementType& type = *std::find_if(std::begin(kTypes), std::end(kTypes),
                                            [&](const ElementType& each) { return each.kernels == kernels; });
    for (size_t i = 0; i < type.kernel_count; ++i) {
      if (std::string(kernels[i].name) == name) {
        *function = reinterpret_cast<cuda::Function>(const_cast<HostKernel*>(&kernels[i]));
        return 0;
      }
    }
    return 1;
  };
  driver.cuFuncSetAttribute = [](cuda::Function, int attribute, int bytes) {
    fake.most_shared_bytes = static_cast<unsigned>(bytes);
    return attribute == 8 && bytes <= 227 << 10 ? 0 : 1;
  };
  driver.cuLaunchKernel = [](cuda::Function function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                             unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                             cuda::Stream, void** parameters, void**) {
    const auto& kernel = *reinterpret_cast<const HostKernel*>(function);
    fake.launched.push_back(kernel.name);
    const unsigned threads = block_x * block_y * block_z;
    // What CUDA refuses.
    const bool is_good = grid_x > 0 && grid_x <= 0x7fffffff && grid_y > 0 && grid_y <= 65535 && grid_z > 0 &&
                         grid_z <= 65535 && threads > 0 && threads <= 1024 &&
                         shared_bytes <= fake.most_shared_bytes;
    if (is_good && fake.launch_status == 0) {
      launch([&] { kernel.run(parameters[0]); }, {grid_x, grid_y, grid_z}, {block_x, block_y, block_z},
             shared_bytes);
    }
    return is_good ? fake.launch_status : 1;
  };
  return driver;
}

// --- activations
// ----------------------------------------------------------------------------------------------------

// [n, height, width, channels] in the middle of wider pixels, all else in memory being `filling`.
class Batch {
 public:
  Batch(std::array<int64_t, 4> shape, const ElementType& type, double filling, Random& random,
        bool is_packed = false)
      : shape_(shape) {
    const int64_t channels = shape[3];
    first_ = is_packed || random.chance() ? 0 : random.of<int64_t>({1, 8, 16});
    const int64_t rest = is_packed || random.chance() ? 0 : random.of<int64_t>({1, 3, 8});
    memory_ = at::full({shape[0], shape[1], shape[2], first_ + channels + rest}, filling, type.dtype);
  }
  Batch(const at::Tensor& values, const ElementType& type, Random& random, bool is_packed = false)
      : Batch({values.size(0), values.size(2), values.size(3), values.size(1)}, type, std::nan(""), random,
              is_packed) {
    view().copy_(values);
  }

  /// N x C x H x W.
  at::Tensor view() const {
    return memory_.narrow(3, first_, shape_[3]).permute({0, 3, 1, 2});
  }
  cuda::Activation activation() const {
    const auto bytes = static_cast<int64_t>(memory_.element_size());
    return {static_cast<char*>(memory_.mutable_data_ptr()) + first_ * bytes,
            shape_[0],
            shape_[1],
            shape_[2],
            shape_[3],
            memory_.size(3)};
  }
  /// Throws if memory beside the channels is other than `filling`.
  void expect_rest(double filling, const std::string& where) const {
    const at::Tensor copy = memory_.clone();
    copy.narrow(3, first_, shape_[3]).fill_(filling);
    REQUIRE_MESSAGE(same_bytes(copy, at::full_like(copy, filling)), where,
                    ": memory beside the output was written");
  }

 private:
  std::array<int64_t, 4> shape_;
  int64_t first_;
  at::Tensor memory_;
};

constexpr double kUntouched = 7;

void for_each_type(const std::function<void(const ElementType&, const cuda::Kernels&)>& test) {
  for (const ElementType& type : kTypes) {
    SUBCASE(type.name) {
      const Driver driver = fake_driver();
      test(type, *cuda::make_kernels(driver, 90, type.type, ""));
    }
  }
}

at::Tensor draw_values(at::IntArrayRef shape, const ElementType& type, bool special, Random& random) {
  at::Tensor values = random.tensor(shape, type.dtype);
  if (special) {
    for (const double value : {std::nan(""), HUGE_VAL, -HUGE_VAL, 0.0}) {
      values.view(-1)[random.between(0, values.numel() - 1)].fill_(value);
    }
  }
  return values;
}

at::Tensor finite(const at::Tensor& values) {
  return values.nan_to_num(0.0, 0.0, 0.0);
}
// What an element that holds `expected` may be off.
at::Tensor element_error(const ElementType& type, const at::Tensor& expected) {
  return finite(expected).abs() * type.error + (type.type == Type::kHalf ? kHalfLeast : 0);
}

int64_t draw_channels(Random& random) {
  return random.of<int64_t>({1, 2, 3, 4, 5, 8, 10, 16, 24, 64, 72, 264});
}
at::Tensor per_channel(const at::Tensor& vector) {
  return vector.reshape({1, -1, 1, 1});
}

// Both ways through a kernel were taken.
void expect_launched(const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    REQUIRE_MESSAGE(std::find(fake.launched.begin(), fake.launched.end(), name) != fake.launched.end(), name,
                    " was never launched");
  }
}

// --- kernels
// --------------------------------------------------------------------------------------------------------

TEST_CASE("cuda kernels: import") {
  for_each_type([](const ElementType& type, const cuda::Kernels& kernels) {
    for_each_drawn(1000, 120, [&](Random& random, int) {
      const int64_t n = random.between(1, 3);
      const int64_t channels = random.of<int64_t>({1, 2, 3, 5, 9});
      const int64_t height = random.of<int64_t>({1, 2, 7, 20});
      const int64_t width = random.of<int64_t>({1, 3, 16, 33});
      const int64_t padded =
          random.of<int64_t>({channels, channels + 1, (channels + 3) / 4 * 4, (channels + 7) / 8 * 8});
      const auto values = [&](at::IntArrayRef shape) {
        return random.tensor(shape, at::kFloat).to(at::kFloat);
      };
      const std::vector<at::Tensor> forms{
          values({n, channels, height, width}),
          values({n, height, width, channels}).permute({0, 3, 1, 2}),
          values({n, 1, height, width}).expand({n, channels, height, width}),
          values({1, channels, 1, 1}).expand({n, channels, height, width}),
          values({n, channels, width, height}).transpose(2, 3),
          values({n, channels, 2 * height, 3 * width}).slice(2, 1, 2 * height, 2).slice(3, 0, 3 * width, 3),
      };
      const int64_t form = random.between(0, static_cast<int64_t>(forms.size()) - 1);
      at::Tensor x = forms[static_cast<size_t>(form)];
      const Batch to({n, height, width, padded}, type, kUntouched, random, random.chance());
      const std::string where = text("form ", form, " of ", x.sizes(), " to ", padded, " channels");
      const at::IntArrayRef strides = x.strides();
      kernels.run(cuda::Import{x.const_data_ptr<float>(),
                               {strides[0], strides[1], strides[2], strides[3]},
                               channels,
                               to.activation()},
                  nullptr);
      const at::Tensor expected = with_zeros(x.to(at::kDouble), 1, padded);
      expect_near(to.view(), expected, element_error(type, expected), where);
      to.expect_rest(kUntouched, where);
    });
    expect_launched({"import_vectors", "import_half_vectors", "import_elements"});
  });
}

TEST_CASE("cuda kernels: unpack") {
  for_each_type([](const ElementType& type, const cuda::Kernels& kernels) {
    for_each_drawn(1500, 120, [&](Random& random, int) {
      const int64_t n = random.between(1, 3);
      const int64_t channels = random.between(1, cuda::kMostPixelChannels);
      const int64_t height = random.of<int64_t>({1, 2, 7, 20});
      const int64_t width = random.of<int64_t>({1, 3, 16, 33});
      const int64_t padded =
          random.of<int64_t>({channels, channels + 1, (channels + 3) / 4 * 4, (channels + 7) / 8 * 8});
      const auto pixels = [&](at::IntArrayRef shape) {
        return random.tensor(shape, at::kFloat).mul(1000).to(at::kInt).to(at::kByte);
      };
      const std::vector<at::Tensor> forms{
          pixels({n, channels, height, width}),
          pixels({n, height, width, channels}).permute({0, 3, 1, 2}),
          pixels({n, 1, height, width}).expand({n, channels, height, width}),
      };
      const int64_t form = random.between(0, static_cast<int64_t>(forms.size()) - 1);
      const at::Tensor x = forms[static_cast<size_t>(form)];
      const Batch to({n, height, width, padded}, type, kUntouched, random, random.chance());
      const std::string where = text("form ", form, " of ", x.sizes(), " to ", padded, " channels");
      cuda::Unpack task{x.const_data_ptr<uint8_t>(),
                        {x.stride(0), x.stride(1), x.stride(2), x.stride(3)},
                        channels,
                        {},
                        {},
                        to.activation()};
      const at::Tensor mean = at::rand({channels, 1, 1}, at::kFloat);
      const at::Tensor deviation = at::rand({channels, 1, 1}, at::kFloat) + 0.1;
      for (int64_t c = 0; c < channels; ++c) {
        task.mean[static_cast<size_t>(c)] = mean[c].item<float>();
        task.deviation[static_cast<size_t>(c)] = deviation[c].item<float>();
      }
      kernels.run(task, nullptr);
      // As lib/vision/preprocessing.ts: the same bits, in float32.
      const at::Tensor usual = x.to(at::kFloat).div(255).sub(mean).div(deviation);
      REQUIRE_MESSAGE(
          same_bytes(to.view().contiguous(), with_zeros(usual, 1, padded).to(type.dtype).contiguous()),
          where);
      to.expect_rest(kUntouched, where);
    });
    expect_launched({"unpack_vectors", "unpack_half_vectors", "unpack_elements"});
  });
}

TEST_CASE("cuda kernels: pointwise") {
  for_each_type([](const ElementType& type, const cuda::Kernels& kernels) {
    for_each_drawn(2000, 100, [&](Random& random, int) {
      fake.multiprocessors = random.chance() ? 1 : 100;
      const auto [height, width] =
          random.of<std::pair<int64_t, int64_t>>({{1, 1}, {1, 9}, {5, 3}, {14, 14}, {7, 1}});
      const int64_t n = random.between(1, 3);
      const int64_t channels = random.chance(0.05) ? 2056 : draw_channels(random);
      const std::array<int64_t, 4> nchw{n, channels, height, width};
      const bool special = random.chance(0.2);
      const bool has_scale = random.chance();
      const bool has_shift = random.chance();
      const bool has_factors = random.chance();
      const bool has_residual = random.chance();
      const bool in_place = random.chance(0.3);
      const bool is_packed = random.chance();
      const bool relu = random.chance();
      const std::string where =
          text(at::IntArrayRef(nchw), special ? ", special values" : "", has_scale ? ", scale" : "",
               has_shift ? ", shift" : "", has_factors ? ", factors" : "", has_residual ? ", residual" : "",
               in_place ? ", in place" : "", relu ? ", relu" : "");

      const at::Tensor x = draw_values(nchw, type, special, random);
      const at::Tensor residual = draw_values(nchw, type, special, random);
      const at::Tensor factors = random.tensor({n, channels}, type.dtype).abs();
      // Vectors of float32 may lie anywhere.
      const int64_t offset = random.chance() ? 0 : 1;
      const at::Tensor scale =
          random.tensor({channels + offset}, at::kFloat).to(at::kFloat).narrow(0, offset, channels);
      const at::Tensor shift =
          random.tensor({channels + offset}, at::kFloat).to(at::kFloat).narrow(0, offset, channels);
      at::Tensor expected = has_scale ? x * per_channel(scale) : x;
      expected = has_shift ? expected + per_channel(shift) : expected;
      expected = has_factors ? expected * factors.reshape({n, channels, 1, 1}) : expected;
      expected = has_residual ? expected + residual : expected;
      expected = relu ? expected.relu() : expected;

      const Batch input(x, type, random, is_packed);
      const Batch other(residual, type, random, is_packed);
      const Batch output =
          in_place ? input : Batch({n, height, width, channels}, type, kUntouched, random, is_packed);
      const at::Tensor factor_elements = factors.to(type.dtype);
      cuda::Pointwise task{input.activation(), output.activation()};
      task.scale = has_scale ? scale.const_data_ptr<float>() : nullptr;
      task.shift = has_shift ? shift.const_data_ptr<float>() : nullptr;
      task.factors = has_factors ? factor_elements.const_data_ptr() : nullptr;
      task.residual = has_residual ? other.activation() : cuda::Activation{};
      task.relu = relu;
      kernels.run(task, nullptr);
      // Values are at most 1, so there are at most 3 to add.
      expect_near(output.view(), expected, element_error(type, expected) + 3 * sum_error(4), where);
      output.expect_rest(in_place ? std::nan("") : kUntouched, where);
    });
    expect_launched({"pointwise_vectors", "pointwise_elements", "pointwise_residual_vectors",
                     "pointwise_residual_elements"});
  });
}

TEST_CASE("cuda kernels: a copy is one to the bit") {
  for_each_type([](const ElementType& type, const cuda::Kernels& kernels) {
    for_each_drawn(2500, 20, [&](Random& random, int) {
      const int64_t channels = draw_channels(random);
      const at::Tensor x = draw_values({2, channels, 3, 5}, type, false, random);
      x.view(-1)[0].fill_(-0.0);
      const Batch from(x, type, random);
      const Batch to({2, 3, 5, channels}, type, kUntouched, random);
      kernels.copy(from.activation(), to.activation(), nullptr);
      REQUIRE(same_bytes(to.view().contiguous(), x.to(type.dtype)));
      to.expect_rest(kUntouched, "copy");
    });
  });
}

TEST_CASE("cuda kernels: mean") {
  for_each_type([](const ElementType& type, const cuda::Kernels& kernels) {
    for_each_drawn(3000, 60, [&](Random& random, int) {
      const int64_t n = random.between(1, 3);
      const int64_t channels = random.chance(0.1) ? 520 : draw_channels(random);
      const auto [height, width] =
          random.of<std::pair<int64_t, int64_t>>({{1, 1}, {1, 9}, {5, 3}, {14, 14}, {40, 37}});
      const at::Tensor x = random.tensor({n, channels, height, width}, type.dtype);
      const Batch input(x, type, random, random.chance());
      const int64_t count = random.chance()
                                ? cuda::mean_parts(input.activation(), random.of<int>({1, 7, 132}))
                                : random.between(1, std::min<int64_t>(height * width, 9));
      const std::string where = text(x.sizes(), " in ", count, " parts");
      REQUIRE_MESSAGE(count >= 1, where);
      const at::Tensor parts = at::full({n, count, channels}, std::nan(""), at::kFloat);
      kernels.run(cuda::Mean{input.activation(), parts.mutable_data_ptr<float>(), count}, nullptr);
      const at::Tensor pixels = x.flatten(2);
      for (int64_t part = 0; part < count; ++part) {
        const int64_t first = height * width * part / count;
        const int64_t last = height * width * (part + 1) / count;
        const auto share = [&](const at::Tensor& of) {
          return of.slice(2, first, last).sum(2) / static_cast<double>(height * width);
        };
        expect_near(parts.select(1, part), share(pixels), share(pixels.abs()) * sum_error(last - first + 1),
                    text(where, ", part ", part));
      }
    });
    expect_launched({"mean_vectors", "mean_elements"});
  });
}

TEST_CASE("cuda kernels: parts of means keep the processors busy") {
  const auto parts = [](int64_t n, int64_t side, int64_t channels) {
    return cuda::mean_parts({nullptr, n, side, side, channels, channels}, 132);
  };
  REQUIRE(parts(1, 56, 64) > 1);
  REQUIRE(parts(1, 1, 2048) == 1);
  REQUIRE(parts(1024, 56, 64) == 1);
  REQUIRE(parts(8, 28, 512) > 1);
}

// The means that some parts add up to, and those.
at::Tensor draw_parts(int64_t n, int64_t count, int64_t channels, Random& random, at::Tensor& parts) {
  parts = random.tensor({n, count, channels}, at::kFloat).to(at::kFloat);
  return parts.to(at::kDouble).sum(1);
}

TEST_CASE("cuda kernels: excite") {
  for_each_type([](const ElementType& type, const cuda::Kernels& kernels) {
    for_each_drawn(4000, 10, [&](Random& random, int i) {
      fake.multiprocessors = random.of<int>({1, 7, 132});
      const int64_t n = random.of<int64_t>({1, 2, 3, 5, 9});
      const int64_t in = i == 0 ? 4096 : draw_channels(random);
      const int64_t hidden = i == 0 ? 512 : random.of<int64_t>({1, 2, 3, 4, 8, 10, 16, 33, 72});
      const int64_t channels = draw_channels(random);
      const int64_t count = random.of<int64_t>({1, 2, 11});
      const bool has_b1 = random.chance();
      const bool has_b2 = random.chance();
      const std::string where = text(n, " images, ", in, " to ", hidden, " to ", channels, ", ", count,
                                     " parts", has_b1 ? ", first bias" : "", has_b2 ? ", second bias" : "");
      at::Tensor parts;
      const at::Tensor means = draw_parts(n, count, in, random, parts);
      if (random.chance(0.1)) {
        parts[0][0][0] = std::nan("");
        means[0][0] = std::nan("");
      }
      // So large that what is hidden stays about 1.
      const at::Tensor w1 = random.tensor({hidden, in}, type.dtype).div(std::sqrt(in)).to(type.dtype);
      const at::Tensor w2 = random.tensor({channels, hidden}, type.dtype).to(type.dtype);
      const at::Tensor b1 = random.tensor({hidden}, at::kFloat).to(at::kFloat);
      const at::Tensor b2 = random.tensor({channels}, at::kFloat).to(at::kFloat);
      at::Tensor product = at::matmul(means, w1.to(at::kDouble).t());
      const at::Tensor inner = (has_b1 ? product + b1 : product).relu();
      product = at::matmul(inner, w2.to(at::kDouble).t());
      const at::Tensor expected = (has_b2 ? product + b2 : product).sigmoid();

      const at::Tensor factors = at::full({n, channels}, kUntouched, type.dtype);
      cuda::Excite task{};
      task.parts = parts.const_data_ptr<float>();
      task.n = n;
      task.part_count = count;
      task.in_channels = in;
      task.hidden = hidden;
      task.channels = channels;
      task.w1 = w1.const_data_ptr();
      task.b1 = has_b1 ? b1.const_data_ptr<float>() : nullptr;
      task.w2 = w2.const_data_ptr();
      task.b2 = has_b2 ? b2.const_data_ptr<float>() : nullptr;
      task.factors = factors.mutable_data_ptr();
      kernels.run(task, nullptr);
      expect_near(factors, expected, element_error(type, expected) + 4e-6, where);
    });
    expect_launched({"excite_image", "excite_images"});
  });
}

TEST_CASE("cuda kernels: dense") {
  for_each_type([](const ElementType& type, const cuda::Kernels& kernels) {
    for_each_drawn(4100, 10, [&](Random& random, int i) {
      fake.multiprocessors = random.of<int>({1, 7, 132});
      const int64_t n = random.of<int64_t>({1, 2, 3, 5, 9});
      const int64_t in = i == 0 ? 12'000 : draw_channels(random);
      const int64_t channels = draw_channels(random);
      const bool relu = random.chance();
      const std::string where = text(n, " vectors, ", in, " to ", channels, relu ? ", relu" : "");
      const at::Tensor x = random.tensor({n, in}, type.dtype).to(type.dtype);
      const at::Tensor weight = random.tensor({channels, in}, type.dtype).div(std::sqrt(in)).to(type.dtype);
      const at::Tensor bias = random.tensor({channels}, at::kFloat).to(at::kFloat);
      const at::Tensor product = at::matmul(x.to(at::kDouble), weight.to(at::kDouble).t()) + bias;
      const at::Tensor expected = relu ? product.relu() : product;
      const at::Tensor y = at::full({n, channels}, kUntouched, type.dtype);
      kernels.run(cuda::Dense{x.const_data_ptr(), weight.const_data_ptr(), bias.const_data_ptr<float>(),
                              y.mutable_data_ptr(), n, in, channels, relu},
                  nullptr);
      expect_near(y, expected, element_error(type, expected) + 1e-5, where);
    });
    expect_launched({"dense_image", "dense_images"});
  });
}

TEST_CASE("cuda kernels: 1 x 1 convolution") {
  for_each_type([](const ElementType& type, const cuda::Kernels& kernels) {
    cuda::Conv1x1 small{};
    small.in_channels = small.out_channels = 8;
    small.rows = 1;
    REQUIRE(kernels.serves(small) == (type.type != Type::kFloat));
    small.in_channels = 12;
    REQUIRE(!kernels.serves(small));
    if (type.type == Type::kFloat) {
      return;
    }
    for_each_drawn(4200, 12, [&](Random& random, int) {
      const int64_t images = random.of<int64_t>({1, 2, 3, 7});
      const int64_t pixels = random.of<int64_t>({1, 5, 49, 130});
      const int64_t in = random.of<int64_t>({8, 16, 56, 64, 72, 136, 200});
      const int64_t out = random.of<int64_t>({8, 24, 128, 136, 264});
      const int tile = random.of<int>({64, 128});
      const bool has_factors = random.chance();
      const bool has_residual = random.chance();
      const bool relu = random.chance();
      const int64_t rows = images * pixels;
      const std::string where =
          text(images, " images of ", pixels, " pixels, ", in, " to ", out, ", tiles of ", tile,
               has_factors ? ", factors" : "", has_residual ? ", residual" : "", relu ? ", relu" : "");
      const at::Tensor x = random.tensor({rows, in}, type.dtype).to(type.dtype);
      const at::Tensor weight = random.tensor({out, in}, type.dtype).div(std::sqrt(in)).to(type.dtype);
      const at::Tensor bias = random.tensor({out}, at::kFloat).to(at::kFloat);
      const at::Tensor factors = random.tensor({images, out}, type.dtype).to(type.dtype);
      const at::Tensor residual = draw_values({rows, out}, type, has_residual, random).to(type.dtype);
      at::Tensor expected = at::matmul(x.to(at::kDouble), weight.to(at::kDouble).t()) + bias;
      if (has_factors) {
        expected = expected * factors.to(at::kDouble).repeat_interleave(pixels, 0);
      }
      if (has_residual) {
        expected = expected + residual.to(at::kDouble);
      }
      expected = relu ? expected.relu() : expected;
      const at::Tensor y = at::full({rows, out}, kUntouched, type.dtype);
      const cuda::Conv1x1 task{x.const_data_ptr(),
                               weight.const_data_ptr(),
                               bias.const_data_ptr<float>(),
                               has_factors ? factors.const_data_ptr() : nullptr,
                               has_residual ? residual.const_data_ptr() : nullptr,
                               y.mutable_data_ptr(),
                               rows,
                               pixels,
                               in,
                               out,
                               relu};
      REQUIRE(kernels.serves(task));
      kernels.run(task, tile, nullptr);
      expect_near(y, expected, element_error(type, expected) + 2e-5, where);
    });
    expect_launched({"conv1x1_64", "conv1x1_128"});
  });
}

TEST_CASE("cuda kernels: gates along the channels, and means") {
  for_each_type([](const ElementType& type, const cuda::Kernels& kernels) {
    for_each_drawn(5000, 60, [&](Random& random, int) {
      const int64_t n = random.between(1, 3);
      const int64_t channels = random.chance(0.2) ? 520 : draw_channels(random);
      const int64_t count = random.of<int64_t>({1, 2, 11});
      const int64_t size = random.of<int64_t>({0, 1, 3, 5, 9});  // 0: no kernel
      const std::string where = text(n, " x ", channels, ", ", count, " parts, kernel of ", size);
      at::Tensor parts;
      const at::Tensor means = draw_parts(n, count, channels, random, parts);
      const at::Tensor kernel = random.tensor({std::max<int64_t>(size, 1)}, at::kFloat).to(at::kFloat);
      const at::Tensor expected =
          size == 0
              ? means
              : at::conv1d(means.unsqueeze(1), kernel.to(at::kDouble).reshape({1, 1, -1}), {}, 1, size / 2)
                    .squeeze(1)
                    .sigmoid();
      const at::Tensor factors = at::full({n, channels}, kUntouched, type.dtype);
      cuda::Excite task{};
      task.parts = parts.const_data_ptr<float>();
      task.n = n;
      task.part_count = count;
      task.in_channels = task.channels = channels;
      task.kernel = size == 0 ? nullptr : kernel.const_data_ptr<float>();
      task.kernel_size = size;
      task.factors = factors.mutable_data_ptr();
      kernels.run(task, nullptr);
      expect_near(factors, expected, element_error(type, expected) + 4e-6, where);
    });
  });
}

void check_pool(const ElementType& type, const cuda::Kernels& kernels, bool is_max) {
  for_each_drawn(is_max ? 6000 : 7000, 120, [&](Random& random, int) {
    const int64_t n = random.between(1, 3);
    const int64_t channels = draw_channels(random);
    std::array<int64_t, 2> kernel{};
    std::array<int64_t, 2> stride{};
    std::array<int64_t, 2> padding{};
    std::array<int64_t, 2> size{};
    for (size_t axis = 0; axis < 2; ++axis) {
      kernel[axis] = random.between(1, 5);
      stride[axis] = random.between(1, 3);
      padding[axis] = random.between(0, kernel[axis] / 2);
      const int64_t least = std::max<int64_t>(1, kernel[axis] - 2 * padding[axis]);
      size[axis] = random.between(least, least + random.of<int64_t>({0, 1, 9}));
    }
    const bool ceil_mode = random.chance(0.4);
    const bool count_include_pad = is_max || random.chance(0.6);
    const bool special = random.chance(0.3);
    const bool is_packed = random.chance();
    const std::string where = text(
        n, " x ", channels, " x ", at::IntArrayRef(size), ", window ", at::IntArrayRef(kernel), " stride ",
        at::IntArrayRef(stride), " padding ", at::IntArrayRef(padding), ceil_mode ? ", ceil mode" : "",
        count_include_pad ? "" : ", without the padding", special ? ", special values" : "");
    const at::Tensor x = draw_values({n, channels, size[0], size[1]}, type, special, random);
    const auto mean = [&](const at::Tensor& of) {
      return at::avg_pool2d(of, kernel, stride, padding, ceil_mode, count_include_pad);
    };
    const at::Tensor expected = is_max ? at::max_pool2d(x, kernel, stride, padding, 1, ceil_mode) : mean(x);
    const at::Tensor magnitude = is_max ? at::zeros({1}, at::kDouble) : mean(finite(x).abs());
    const Batch input(x, type, random, is_packed);
    const Batch output({n, expected.size(2), expected.size(3), channels}, type, kUntouched, random,
                       is_packed);
    cuda::Pool task{input.activation(), output.activation(), kernel, stride, padding, is_max,
                    count_include_pad};
    kernels.run(task, nullptr);
    expect_near(output.view(), expected,
                element_error(type, expected) + magnitude * sum_error(kernel[0] * kernel[1] + 2), where);
    output.expect_rest(kUntouched, where);
  });
}

TEST_CASE("cuda kernels: max pool") {
  for_each_type([](const ElementType& type, const cuda::Kernels& kernels) {
    check_pool(type, kernels, true);
    expect_launched({"max_pool_vectors", "max_pool_elements"});
  });
}

TEST_CASE("cuda kernels: mean pool") {
  for_each_type([](const ElementType& type, const cuda::Kernels& kernels) {
    check_pool(type, kernels, false);
    expect_launched({"mean_pool_vectors", "mean_pool_elements"});
  });
}

TEST_CASE("cuda kernels: export") {
  for_each_type([](const ElementType& type, const cuda::Kernels& kernels) {
    for_each_drawn(8000, 40, [&](Random& random, int) {
      const int64_t n = random.between(1, 2);
      const int64_t channels = random.of<int64_t>({1, 3, 10, 32, 65, 100});
      const auto [height, width] =
          random.of<std::pair<int64_t, int64_t>>({{1, 1}, {1, 7}, {5, 3}, {14, 14}, {33, 1}});
      const at::Tensor x = draw_values({n, channels, height, width}, type, random.chance(0.3), random);
      const int64_t wanted = random.chance() ? channels : random.between(1, channels);
      const Batch from(x, type, random);
      const at::Tensor to = at::full({n, wanted, height, width}, kUntouched, at::kFloat);
      kernels.run(cuda::Export{from.activation(), wanted, to.mutable_data_ptr<float>()}, nullptr);
      REQUIRE(
          same_bytes(to.nan_to_num(5.0), x.narrow(1, 0, wanted).to(at::kFloat).nan_to_num(5.0).contiguous()));
    });
    expect_launched({"export_channels", "export_tiles"});
  });
}

TEST_CASE("cuda kernels: more images and rows than a grid has blocks") {
  constexpr int64_t kMany = 65535 + 3;
  const ElementType& type = kTypes[2];
  const Driver driver = fake_driver();
  const auto kernels = cuda::make_kernels(driver, 90, type.type, "");
  Random random(9000);
  const at::Tensor x = random.tensor({kMany, 2, 1, 1}, at::kFloat);
  const at::Tensor floats = x.to(at::kFloat);
  const Batch batch({kMany, 1, 1, 2}, type, kUntouched, random, true);
  kernels->run(cuda::Import{floats.const_data_ptr<float>(), {2, 1, 1, 1}, 2, batch.activation()}, nullptr);
  REQUIRE(same_bytes(batch.view().contiguous(), floats));

  cuda::Pointwise doubled{batch.activation(), batch.activation()};
  const at::Tensor factors = at::full({kMany, 2}, 2.0, at::kFloat);
  doubled.factors = factors.const_data_ptr();
  kernels->run(doubled, nullptr);
  const at::Tensor means = at::full({kMany, 1, 2}, kUntouched, at::kFloat);
  kernels->run(cuda::Mean{batch.activation(), means.mutable_data_ptr<float>(), 1}, nullptr);
  const at::Tensor back = at::full({kMany, 2, 1, 1}, kUntouched, at::kFloat);
  kernels->run(cuda::Export{batch.activation(), 2, back.mutable_data_ptr<float>()}, nullptr);
  REQUIRE(same_bytes(back, floats * 2));
  REQUIRE(same_bytes(means.reshape({kMany, 2, 1, 1}), floats * 2));

  // As one image of many rows.
  cuda::Activation rows = batch.activation();
  rows.height = kMany;
  rows.n = 1;
  const Batch pooled({1, kMany, 1, 2}, type, kUntouched, random, true);
  kernels->run(cuda::Pool{rows, pooled.activation(), {1, 1}, {1, 1}, {0, 0}, true}, nullptr);
  REQUIRE(same_bytes(pooled.view().reshape({2, kMany}).t().contiguous(), (floats * 2).reshape({kMany, 2})));
}

TEST_CASE("cuda kernels: nothing is launched for no images, and what fits no block is refused") {
  const Driver driver = fake_driver();
  const auto kernels = cuda::make_kernels(driver, 90, Type::kFloat, "");
  kernels->run(cuda::Pointwise{{nullptr, 0, 5, 5, 8, 8}, {nullptr, 0, 5, 5, 8, 8}}, nullptr);
  kernels->run(cuda::Mean{{nullptr, 0, 5, 5, 8, 8}, nullptr, 1}, nullptr);
  REQUIRE(fake.launched.empty());
  cuda::Excite task{};
  task.n = 1;
  task.in_channels = 12000;
  task.hidden = 1000;
  task.channels = 8;
  task.w1 = task.w2 = &task;
  REQUIRE(refusal([&] { kernels->run(task, nullptr); }) ==
          "excite_image would need 52000 bytes of shared memory for a block; there are 49152");
  fake.launch_status = 1;
  float value = 1;
  const cuda::Activation one{&value, 1, 1, 1, 1, 1};
  REQUIRE(refusal([&] { kernels->copy(one, one, nullptr); }) ==
          "pointwise_elements: as the test said (CUDA status 1)");
}

// --- what is kept on disk
// -------------------------------------------------------------------------------------------

// A folder of its own, gone with it.
class Folder {
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "senet-kernels-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~Folder() {
    std::filesystem::remove_all(path_);
  }
  const std::filesystem::path& path() const {
    return path_;
  }
  std::vector<std::filesystem::path> files() const {
    std::vector<std::filesystem::path> result;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(path_)) {
      if (entry.is_regular_file()) {
        result.push_back(entry.path());
      }
    }
    return result;
  }

 private:
  std::filesystem::path path_;
};

std::string content_of(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}
void write_to(const std::filesystem::path& path, const std::string& content) {
  std::ofstream(path, std::ios::binary) << content;
}

TEST_CASE("cuda kernels: compiled ones are kept, each under what it depends on") {
  Driver driver = fake_driver();
  const Folder folder;
  const std::string cache = folder.path() / "not" / "yet";
  const std::string code = cuda::compile_kernels(driver, 90, Type::kHalf, cache);
  REQUIRE(code == "-std=c++17\n-arch=sm_90\n-DSENET_HALF\n");
  REQUIRE(cuda::compile_kernels(driver, 90, Type::kHalf, cache) == code);
  REQUIRE(fake.compilations == 1);
  REQUIRE(folder.files().size() == 1);
  struct stat status {};
  REQUIRE(stat(folder.files().front().c_str(), &status) == 0);
  REQUIRE((status.st_mode & 0777) == 0600);

  cuda::compile_kernels(driver, 80, Type::kHalf, cache);
  cuda::compile_kernels(driver, 90, Type::kFloat, cache);
  driver.nvrtc_version = 13010;
  cuda::compile_kernels(driver, 90, Type::kHalf, cache);
  REQUIRE(fake.compilations == 4);
  REQUIRE(folder.files().size() == 4);
}

TEST_CASE("cuda kernels: what is damaged on disk is compiled anew and mended") {
  const Driver driver = fake_driver();
  const Folder folder;
  const std::string code = cuda::compile_kernels(driver, 90, Type::kHalf, folder.path());
  const std::filesystem::path file = folder.files().front();
  const std::string good = content_of(file);
  cuda::compile_kernels(driver, 80, Type::kHalf, folder.path());
  std::string other;
  for (const auto& path : folder.files()) {
    other = path == file ? other : content_of(path);
  }
  std::string flipped = good;
  flipped[flipped.size() - 2] ^= 1;
  for (const std::string& bad :
       {std::string(), good.substr(0, good.size() / 2), good.substr(0, good.find('\n') + 1), good + 'x',
        flipped, 'x' + good, other}) {
    write_to(file, bad);
    fake.compilations = 0;
    REQUIRE(cuda::compile_kernels(driver, 90, Type::kHalf, folder.path()) == code);
    REQUIRE(fake.compilations == 1);
    REQUIRE(content_of(file) == good);
    REQUIRE(cuda::compile_kernels(driver, 90, Type::kHalf, folder.path()) == code);
    REQUIRE(fake.compilations == 1);
  }
  REQUIRE(folder.files().size() == 2);  // nothing is left of the writing
}

TEST_CASE("cuda kernels: what nobody used for a month is dropped, and nothing else") {
  const Driver driver = fake_driver();
  const Folder folder;
  const auto long_ago = std::filesystem::file_time_type::clock::now() - std::chrono::hours(24 * 40);
  cuda::compile_kernels(driver, 90, Type::kHalf, folder.path());
  cuda::compile_kernels(driver, 80, Type::kHalf, folder.path());
  for (const char* name : {"plans-old", "plans-new", "plans-used", "of-somebody"}) {
    std::filesystem::create_directories(folder.path() / name);
    write_to(folder.path() / name / "0123456789abcdef", "plan");
  }
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
    if (entry.path().filename() != "plans-new") {
      std::filesystem::last_write_time(entry.path(), long_ago);
    }
  }
  cuda::compile_kernels(driver, 90, Type::kHalf, folder.path());  // which finds it, and so uses it
  REQUIRE(fake.compilations == 2);
  cuda::drop_unused(folder.path(), "plans-used");
  cuda::drop_unused(folder.path(), "plans-used");
  std::vector<std::string> left;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
    left.push_back(entry.path().filename().string().substr(0, 5));
  }
  std::sort(left.begin(), left.end());
  REQUIRE(left.size() == 4);
  REQUIRE(std::count(left.begin(), left.end(), "plans") == 2);  // the new ones and those in use
  REQUIRE(std::filesystem::exists(folder.path() / "of-somebody" / "0123456789abcdef"));
  cuda::compile_kernels(driver, 90, Type::kHalf, folder.path());
  REQUIRE(fake.compilations == 2);
  cuda::drop_unused(folder.path() / "nowhere", "");
  cuda::drop_unused("", "");
}

TEST_CASE("cuda kernels: a folder that cannot be written is no error") {
  const Driver driver = fake_driver();
  const Folder folder;
  write_to(folder.path() / "file", "");
  const std::string cache = folder.path() / "file";  // a file has no files, not even root's
  const std::string code = cuda::compile_kernels(driver, 90, Type::kHalf, cache);
  REQUIRE(cuda::compile_kernels(driver, 90, Type::kHalf, cache) == code);
  REQUIRE(cuda::compile_kernels(driver, 90, Type::kHalf, "") == code);
  REQUIRE(fake.compilations == 3);
  REQUIRE(folder.files().size() == 1);
  // Where a file should be, there is a folder: what was written beside it goes.
  const Folder another;
  cuda::compile_kernels(driver, 90, Type::kHalf, another.path());
  const std::filesystem::path file = another.files().front();
  std::filesystem::remove(file);
  std::filesystem::create_directories(file / "inside");
  REQUIRE(cuda::compile_kernels(driver, 90, Type::kHalf, another.path()) == code);
  REQUIRE(another.files().empty());
}

TEST_CASE("cuda kernels: what NVRTC says of the text is in the error") {
  const Driver driver = fake_driver();
  fake.compile_status = 6;
  const Folder folder;
  REQUIRE(refusal([&] { cuda::compile_kernels(driver, 90, Type::kHalf, folder.path()); }) ==
          text("NVRTC does not compile the kernels (status 6): ", kLog));
  REQUIRE(folder.files().empty());
  REQUIRE(refusal([&] { cuda::compile_kernels(driver, 75, Type::kBFloat16, ""); }) ==
          "kernels of bfloat16 need a device of compute capability 8.0, got 7.5");
}

// --- NVRTC
// ----------------------------------------------------------------------------------------------------------

// Null where there is none, which is said.
void* find_nvrtc() {
  const char* const wish = std::getenv("SENET_TEST_NVRTC");
  const std::string name = wish == nullptr ? "libnvrtc.so" : wish;
  void* const handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr && wish == nullptr) {
    MESSAGE("SKIPPED: there is no libnvrtc.so; SENET_TEST_NVRTC may name one");
    return nullptr;
  }
  REQUIRE_MESSAGE(handle != nullptr, name, " does not load");
  return handle;
}

// The number between two words of a line; -1 without the words.
int number_at(const std::string& line, const std::string& before, const std::string& behind) {
  const size_t end = line.find(behind);
  const size_t begin = end == std::string::npos ? end : line.rfind(before, end - 1);
  return begin == std::string::npos ? -1 : std::atoi(line.c_str() + begin + before.size());
}

// What the assembler says of each kernel: none spills, and as many blocks fit a multiprocessor as they are
// launched for.
void check_report(const std::string& report, size_t kernel_count) {
  constexpr int kMostRegisters = 128;  // two blocks of 256 threads, or one of 512
  constexpr int kMostSharedBytes = 12 << 10;
  std::istringstream lines(report);
  std::string kernel;
  size_t kernels = 0, stacks = 0, resources = 0;
  for (std::string line; std::getline(lines, line);) {
    if (const size_t at = line.find("entry function '"); at != std::string::npos) {
      kernel = line.substr(at + 16, line.find('\'', at + 16) - at - 16);
      ++kernels;
    }
    INFO(kernel, ": ", line);
    const int stack = number_at(line, " ", " bytes stack frame");
    const int registers = number_at(line, "Used ", " registers");
    stacks += stack >= 0 ? 1 : 0;
    resources += registers > 0 ? 1 : 0;
    REQUIRE(stack <= 0);
    REQUIRE(number_at(line, " ", " bytes spill stores") <= 0);
    REQUIRE(registers <= kMostRegisters);
    REQUIRE(number_at(line, ", ", " bytes smem") <= kMostSharedBytes);
  }
  REQUIRE(kernels == kernel_count);
  REQUIRE(stacks == kernels);
  REQUIRE(resources == kernels);
}

TEST_CASE("cuda kernels: NVRTC compiles them for every architecture, and none spills") {
  cuda::Libraries libraries;
  libraries.nvrtc.handle = find_nvrtc();
  if (libraries.nvrtc.handle == nullptr) {
    return;
  }
  const Driver driver = cuda::find_functions(libraries);
  using Architectures = int (*)(int*);
  const auto find = [&](const char* function) {
    return reinterpret_cast<Architectures>(dlsym(libraries.nvrtc.handle, function));
  };
  int count = 0;
  REQUIRE(find("nvrtcGetNumSupportedArchs")(&count) == 0);
  std::vector<int> architectures(static_cast<size_t>(count));
  REQUIRE(find("nvrtcGetSupportedArchs")(architectures.data()) == 0);
  for (const int architecture : architectures) {
    for (const ElementType& type : kTypes) {
      if (architecture >= (type.type == Type::kBFloat16 ? 80 : 75)) {
        INFO("sm_", architecture, ", ", type.name);
        // Those of matrix units are for 80 and later.
        const size_t expected = architecture < 80 ? std::size(kFloatKernels) : type.kernel_count;
        check_report(cuda::report_kernels(driver, architecture, type.type), expected);
      }
    }
  }
  REQUIRE(cuda::compile_kernels(driver, architectures.back(), Type::kHalf, "")
              .compare(0, 4,
                       "\x7f"
                       "ELF") == 0);
}

}  // namespace
}  // namespace senet::test
