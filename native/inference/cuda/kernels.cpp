#include "inference/cuda/kernels.h"

#include "core/error.h"
#include "inference/cuda/disk_cache.h"
#include "inference/cuda/kernels_text.h"  // made by embed.cmake

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

namespace senet::inference::cuda {
namespace {

// --- compiling
// ----------------------------------------------------------------------------------------------------

constexpr int kBFloat16Architecture = 80;  // the first that rounds to bfloat16

const char* define_of(Type type) {
  return type == Type::kHalf       ? "-DSENET_HALF"
         : type == Type::kBFloat16 ? "-DSENET_BFLOAT16"
                                   : "-DSENET_FLOAT";
}

std::vector<std::string> compiler_options(int architecture, Type type) {
  if (type == Type::kBFloat16 && architecture < kBFloat16Architecture) {
    throw Error("ERR_SENET_CUDA", "kernels of bfloat16 need a device of compute capability 8.0, got " +
                                      std::to_string(architecture / 10) + '.' +
                                      std::to_string(architecture % 10));
  }
  return {"-std=c++17", "-arch=sm_" + std::to_string(architecture), define_of(type)};
}

class Compilation {
 public:
  explicit Compilation(const Driver& driver) : driver_(driver) {
    const char* const header = kTasksText;
    const char* const name = "inference/cuda/tasks.h";
    check(driver.nvrtcCreateProgram(&program_, kKernelsText, "kernels.cu", 1, &header, &name));
  }
  ~Compilation() {
    driver_.nvrtcDestroyProgram(&program_);
  }
  Compilation(const Compilation&) = delete;
  Compilation& operator=(const Compilation&) = delete;

  std::string run(const std::vector<std::string>& options) {
    std::vector<const char*> pointers;
    for (const std::string& option : options) {
      pointers.push_back(option.c_str());
    }
    check(driver_.nvrtcCompileProgram(program_, static_cast<int>(pointers.size()), pointers.data()));
    size_t size = 0;
    check(driver_.nvrtcGetCUBINSize(program_, &size));
    std::string code(size, '\0');
    check(driver_.nvrtcGetCUBIN(program_, code.data()));
    return code;
  }

  std::string log() const {
    size_t size = 0;
    if (program_ == nullptr || driver_.nvrtcGetProgramLogSize(program_, &size) != 0 || size == 0) {
      return "it says nothing";
    }
    std::string log(size, '\0');
    driver_.nvrtcGetProgramLog(program_, log.data());
    log.resize(size - 1);  // without the zero at its end
    return log;
  }

 private:
  void check(int status) const {
    if (status != 0) {
      throw Error("ERR_SENET_CUDA",
                  "NVRTC does not compile the kernels (status " + std::to_string(status) + "): " + log());
    }
  }

  const Driver& driver_;
  NvrtcProgram program_ = nullptr;
};

// --- launching
// ----------------------------------------------------------------------------------------------------

// Of CUDA: blocks of a grid along y and z, and bytes of shared memory that need no asking for.
constexpr int64_t kMostBlocks = 65535;
constexpr int64_t kSharedBytes = 48 << 10;
constexpr int kMultiprocessorCount = 16;  // cudaDevAttrMultiProcessorCount
constexpr int kMostSharedBytes = 8;       // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
constexpr int kMatrixArchitecture = 80;   // the first whose copies run ahead

// The stages of a block of conv1x1, and later its sums in their place.
int conv1x1_shared_bytes(int rows) {
  const int stages = kMatrixStages * (rows + kMatrixColumns) * kMatrixDepth * 2;
  const int sums = rows * kMatrixPitch * 4;
  return std::max(stages, sums);
}

int64_t quotient_up(int64_t value, int64_t by) {
  return (value + by - 1) / by;
}

enum KernelIndex {
#define SENET_INDEX(name, Task) kIndexOf_##name,
  SENET_CUDA_KERNELS(SENET_INDEX) SENET_CUDA_MATRIX_KERNELS(SENET_INDEX)
#undef SENET_INDEX
      kKernelCount
};

constexpr const char* kKernelNames[] = {
#define SENET_NAME(name, Task) #name,
    SENET_CUDA_KERNELS(SENET_NAME) SENET_CUDA_MATRIX_KERNELS(SENET_NAME)
#undef SENET_NAME
};

// A kernel is launched with a task of its own only.
template <class Task>
struct Kernel {
  KernelIndex index;
};
namespace kernel {
#define SENET_KERNEL_OF(name, Task) constexpr Kernel<Task> name{kIndexOf_##name};
SENET_CUDA_KERNELS(SENET_KERNEL_OF)
SENET_CUDA_MATRIX_KERNELS(SENET_KERNEL_OF)
#undef SENET_KERNEL_OF
}  // namespace kernel

struct Launch {
  int64_t grid[3];
  int64_t block[2];
  int64_t shared_bytes = 0;
};

// Threads of a block: `x` beside each other along the channels, `y` along the pixels.
struct Block {
  int64_t slabs;  // so many blocks side by side have all channels
  int64_t x, y;
};
Block block_of(int64_t vectors, int64_t most_vectors, int64_t pixels) {
  const int64_t slabs = quotient_up(vectors, most_vectors);
  const int64_t x = quotient_up(vectors, slabs);
  return {slabs, x, std::clamp<int64_t>(pixels, 1, kThreads / x)};
}

bool is_aligned(const void* pointer, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % static_cast<uintptr_t>(bytes) == 0;
}

// All images as one, where it does not matter whose a pixel is.
Activation as_one(Activation x) {
  x.height *= x.n;
  x.n = 1;
  return x;
}

class LoadedKernels final : public Kernels {
 public:
  LoadedKernels(const Driver& driver, int architecture, Type type, const std::string& code)
      : driver_(driver),
        type_(type),
        has_matrix_(type != Type::kFloat && architecture >= kMatrixArchitecture) {
    int device = 0;
    check_cuda(driver, driver.cudaGetDevice(&device), "cudaGetDevice");
    check_cuda(driver, driver.cudaDeviceGetAttribute(&multiprocessors_, kMultiprocessorCount, device),
               "cudaDeviceGetAttribute");
    check_cuda(driver, driver.cuModuleLoadData(&module_, code.data()), "the load of the kernels");
    try {
      for (int i = 0; i < (has_matrix_ ? kKernelCount : kIndexOf_conv1x1_64); ++i) {
        check_cuda(driver, driver.cuModuleGetFunction(&functions_[i], module_, kKernelNames[i]),
                   kKernelNames[i]);
      }
      if (has_matrix_) {
        for (const auto& [index, rows] : {std::pair{kIndexOf_conv1x1_64, 64}, {kIndexOf_conv1x1_128, 128}}) {
          check_cuda(
              driver,
              driver.cuFuncSetAttribute(functions_[index], kMostSharedBytes, conv1x1_shared_bytes(rows)),
              "the shared memory of conv1x1");
        }
      }
    } catch (...) {
      driver.cuModuleUnload(module_);
      throw;
    }
  }
  ~LoadedKernels() override {
    driver_.cuModuleUnload(module_);
  }
  LoadedKernels(const LoadedKernels&) = delete;
  LoadedKernels& operator=(const LoadedKernels&) = delete;

  void run(const Import& task, Stream stream) const override {
    launch_import(task, {kernel::import_vectors, kernel::import_half_vectors, kernel::import_elements},
                  stream);
  }

  void run(const Unpack& task, Stream stream) const override {
    launch_import(task, {kernel::unpack_vectors, kernel::unpack_half_vectors, kernel::unpack_elements},
                  stream);
  }

  void run(const Pointwise& given, Stream stream) const override {
    constexpr int64_t kPixelsOfThread = 4;
    constexpr int64_t kBlocksOfMultiprocessor = 4;
    Pointwise task = given;
    if (task.factors == nullptr) {
      task.x = as_one(task.x);
      task.y = as_one(task.y);
      task.residual = as_one(task.residual);
    }
    const Activation& x = task.x;
    const bool has_residual = task.residual.data != nullptr;
    const int64_t whole = vector_channels();
    const bool by_vectors = fits(x, whole) && fits(task.y, whole) &&
                            (!has_residual || fits(task.residual, whole)) &&
                            is_aligned(task.scale, kVectorBytes) && is_aligned(task.shift, kVectorBytes) &&
                            is_aligned(task.factors, kVectorBytes);
    const int64_t pixels = x.height * x.width;
    const Block block = block_of(x.channels / (by_vectors ? whole : 1), kThreads, pixels);
    // A thread has several pixels if there is enough to do for all.
    int64_t columns = quotient_up(pixels, block.y * kPixelsOfThread);
    if (columns * block.slabs * x.n < kBlocksOfMultiprocessor * multiprocessors_) {
      columns = quotient_up(pixels, block.y);
    }
    const auto chosen =
        has_residual ? by_vectors ? kernel::pointwise_residual_vectors : kernel::pointwise_residual_elements
        : by_vectors ? kernel::pointwise_vectors
                     : kernel::pointwise_elements;
    launch(chosen, {{columns, block.slabs, x.n}, {block.x, block.y}}, task, stream);
  }

  void run(const Mean& task, Stream stream) const override {
    const Activation& x = task.x;
    const int64_t whole = vector_channels();
    const bool by_vectors = fits(x, whole);
    const int64_t count = by_vectors ? whole : 1;
    const Block block =
        block_of(x.channels / count, kMeanChannels / count, quotient_up(x.height * x.width, task.part_count));
    launch(by_vectors ? kernel::mean_vectors : kernel::mean_elements,
           {{task.part_count, block.slabs, x.n}, {block.x, block.y}}, task, stream);
  }

  void run(const Excite& task, Stream stream) const override {
    if (task.w2 == nullptr) {
      const int64_t neighbours = task.kernel_size / 2 * 2;
      launch(kernel::gate_channels,
             {{quotient_up(task.channels, kThreads), task.n, 1}, {kThreads, 1}, (kThreads + neighbours) * 4},
             task, stream);
      return;
    }
    const int64_t bytes_of_image = (quotient_up(task.in_channels, 4) + quotient_up(task.hidden, 4)) * 16;
    // Blocks of several images read the weights less often; there must be enough of them.
    const bool by_images = task.n >= multiprocessors_ / 2 && kExciteImages * bytes_of_image <= kSharedBytes;
    const int64_t images = by_images ? kExciteImages : 1;
    const int64_t groups = quotient_up(task.n, images);
    // Each slice computes what is hidden anew, which should cost less than its own part.
    const int64_t worth = std::max<int64_t>(1, 4 * task.channels / task.in_channels);
    const int64_t slices = std::clamp<int64_t>(multiprocessors_ / groups, 1, std::min(worth, task.channels));
    launch(by_images ? kernel::excite_images : kernel::excite_image,
           {{slices, groups, 1}, {kExciteThreads, 1}, images * bytes_of_image}, task, stream);
  }

  bool serves(const Conv1x1& task) const override {
    constexpr int64_t kMostRows = int64_t{1} << 31;
    const bool is_aligned_all = is_aligned(task.x, kVectorBytes) && is_aligned(task.weight, kVectorBytes) &&
                                is_aligned(task.bias, kVectorBytes) &&
                                is_aligned(task.factors, kVectorBytes) &&
                                is_aligned(task.residual, kVectorBytes) && is_aligned(task.y, kVectorBytes);
    return has_matrix_ && is_aligned_all && task.in_channels % 8 == 0 && task.out_channels % 8 == 0 &&
           task.rows < kMostRows;
  }

  void run(const Conv1x1& task, int tile_rows, Stream stream) const override {
    const int64_t tiles = quotient_up(task.rows, tile_rows) * quotient_up(task.out_channels, kMatrixColumns);
    launch(tile_rows == 64 ? kernel::conv1x1_64 : kernel::conv1x1_128,
           {{tiles, 1, 1}, {kThreads, 1}, conv1x1_shared_bytes(tile_rows)}, task, stream);
  }

  void run(const Dense& task, Stream stream) const override {
    constexpr int64_t kChannelsOfBlock = 16;  // at least: a warp each
    const int64_t bytes_of_image = quotient_up(task.in_channels, 4) * 16;
    const bool by_images = task.n > 1 && kExciteImages * bytes_of_image <= kSharedBytes;
    const int64_t groups = quotient_up(task.n, by_images ? kExciteImages : 1);
    const int64_t slices = std::clamp<int64_t>(2 * multiprocessors_ / groups, 1,
                                               std::max<int64_t>(1, task.channels / kChannelsOfBlock));
    launch(by_images ? kernel::dense_images : kernel::dense_image,
           {{slices, groups, 1}, {kExciteThreads, 1}, (by_images ? kExciteImages : 1) * bytes_of_image}, task,
           stream);
  }

  void run(const Pool& task, Stream stream) const override {
    const int64_t whole = vector_channels();
    const bool by_vectors = fits(task.x, whole) && fits(task.y, whole);
    const Block block = block_of(task.x.channels / (by_vectors ? whole : 1), kThreads, task.y.width);
    const auto chosen = task.is_max  ? by_vectors ? kernel::max_pool_vectors : kernel::max_pool_elements
                        : by_vectors ? kernel::mean_pool_vectors
                                     : kernel::mean_pool_elements;
    launch(chosen,
           {{quotient_up(task.y.width, block.y) * block.slabs, task.y.height, task.y.n}, {block.x, block.y}},
           task, stream);
  }

  void run(const Export& task, Stream stream) const override {
    constexpr int64_t kFewPixels = 8;
    const int64_t pixels = task.from.height * task.from.width;
    if (pixels < kFewPixels) {
      launch(kernel::export_channels,
             {{quotient_up(task.channels, kThreads), pixels, task.from.n}, {kThreads, 1}}, task, stream);
    } else {
      launch(kernel::export_tiles,
             {{quotient_up(pixels, kTile), quotient_up(task.channels, kTile), task.from.n},
              {kTile, kThreads / kTile}},
             task, stream);
    }
  }

 private:
  int64_t vector_channels() const {
    return kVectorBytes / bytes_of(type_);
  }

  // Whether every pixel can be read by so many channels at once.
  bool fits(const Activation& x, int64_t channels) const {
    return x.channels % channels == 0 && x.pitch % channels == 0 &&
           is_aligned(x.data, channels * bytes_of(type_));
  }

  // By as many channels at once as fit: of `kernels`, a whole vector, half of one, or one.
  template <class Task>
  void launch_import(Task task, const std::array<Kernel<Task>, 3>& kernels, Stream stream) const {
    Activation& to = task.to;
    if (task.strides[2] == to.width * task.strides[3]) {  // one long row
      to.width *= to.height;
      to.height = 1;
    }
    const int64_t whole = vector_channels();
    const size_t chosen = fits(to, whole) ? 0 : fits(to, whole / 2) ? 1 : 2;
    launch(kernels[chosen], {{quotient_up(to.width, kThreads), to.height, to.n}, {kThreads, 1}}, task,
           stream);
  }

  template <class Task>
  void launch(Kernel<Task> kernel, const Launch& how, const Task& task, Stream stream) const {
    const char* const name = kKernelNames[kernel.index];
    const bool has_asked = kernel.index >= kIndexOf_conv1x1_64;
    if (how.shared_bytes > kSharedBytes && !has_asked) {
      throw Error("ERR_SENET_CUDA", std::string(name) + " would need " + std::to_string(how.shared_bytes) +
                                        " bytes of shared memory for a block; there are " +
                                        std::to_string(kSharedBytes));
    }
    const auto blocks = [&](int axis) {
      return static_cast<unsigned>(std::min(how.grid[axis], kMostBlocks));
    };
    if (how.grid[0] == 0 || how.grid[1] == 0 || how.grid[2] == 0) {
      return;  // an empty tensor
    }
    void* parameters[] = {const_cast<Task*>(&task)};
    check_cuda(driver_,
               driver_.cuLaunchKernel(functions_[kernel.index], static_cast<unsigned>(how.grid[0]), blocks(1),
                                      blocks(2), static_cast<unsigned>(how.block[0]),
                                      static_cast<unsigned>(how.block[1]), 1,
                                      static_cast<unsigned>(how.shared_bytes), stream, parameters, nullptr),
               name);
  }

  const Driver& driver_;
  const Type type_;
  const bool has_matrix_;
  int multiprocessors_ = 0;
  Module module_ = nullptr;
  std::array<Function, kKernelCount> functions_{};
};

}  // namespace

int64_t mean_parts(const Activation& x, int multiprocessors) {
  constexpr int64_t kBlocksOfMultiprocessor = 4;
  constexpr int64_t kPixelsOfThread = 2;  // at least
  constexpr int64_t kMostParts = 32;      // an excitation adds them up
  const int64_t slabs = quotient_up(x.channels, kMeanChannels);
  const int64_t pixels_at_once = std::max<int64_t>(1, kThreads * 8 / quotient_up(x.channels, slabs));
  const int64_t worth = x.height * x.width / (kPixelsOfThread * pixels_at_once);
  const int64_t wanted =
      quotient_up(kBlocksOfMultiprocessor * multiprocessors, std::max<int64_t>(1, x.n * slabs));
  return std::clamp<int64_t>(std::min(wanted, worth), 1, kMostParts);
}

std::string kernels_version() {
  return kKernelsVersion;
}

std::string compile_kernels(const Driver& driver, int architecture, Type type, const std::string& cache) {
  const std::vector<std::string> options = compiler_options(architecture, type);
  std::string key = "kernels " + std::to_string(driver.nvrtc_version) + ' ' + kKernelsText + kTasksText;
  for (const std::string& option : options) {
    key += ' ' + option;
  }
  const DiskCache known(cache);
  std::string code = known.find(key);
  if (code.empty()) {
    code = Compilation(driver).run(options);
    known.keep(key, code);
  }
  return code;
}

std::string report_kernels(const Driver& driver, int architecture, Type type) {
  std::vector<std::string> options = compiler_options(architecture, type);
  options.push_back("--ptxas-options=-v");
  Compilation compilation(driver);
  compilation.run(options);
  return compilation.log();
}

std::unique_ptr<const Kernels> make_kernels(const Driver& driver, int architecture, Type type,
                                            const std::string& cache) {
  return std::make_unique<const LoadedKernels>(driver, architecture, type,
                                               compile_kernels(driver, architecture, type, cache));
}

}  // namespace senet::inference::cuda
