#include "runtime/cuda_failure.h"

#include "core/error.h"
#include "runtime/cuda_library.h"
#include "runtime/cuda_numbers.h"

#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <map>
#include <mutex>
#include <string_view>
#include <vector>

namespace senet::runtime {
namespace {

// Of the CUDA runtime (cudaError_t).
constexpr int kFirstOfCapture = 900;  // what a stream that is captured refuses
constexpr int kLastOfCapture = 908;
// Those that end the context: ECC, NVLink, contained, illegal address, launch timeout, context destroyed,
// assert, hardware stack, illegal instruction, misaligned address, address space, program counter, launch
// failure, tensor memory leak.
constexpr std::array kEnding = {214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721};

// How LibTorch's messages begin when a library of CUDA failed.
constexpr std::array<std::string_view, 7> kBeginnings = {
    "CUDA error: ",  "CUDA driver error: ", "CUDA NVRTC error: ",    "cuDNN error: ",
    "cuFFT error: ", "cusolver error: ",    "cuDNN Frontend error: "};

struct Lost {
  std::mutex mutex;
  std::atomic<bool> any = false;
  std::map<int, std::string> why;  // device -> the first line of the error
};

Lost& lost() {
  static auto* const instance = new Lost;
  return *instance;
}

bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

std::string first_line(const std::string& text) {
  return text.substr(0, text.find('\n'));
}

bool ends_context(const std::string& message) {
  return std::any_of(kEnding.begin(), kEnding.end(),
                     [&](int status) { return contains(message, cuda_error_text(status)); });
}

// Whether a device whose context is made answers to a question that has nothing to do with what it runs.
bool answers(int index) {
  auto* const set_device = find_in_cuda_runtime<int(int)>("cudaSetDevice");
  auto* const ask = find_in_cuda_runtime<int(size_t*, size_t*)>("cudaMemGetInfo");
  if (set_device == nullptr || ask == nullptr) {
    return true;
  }
  size_t free = 0;
  size_t total = 0;
  int status = set_device(index);
  if (status == kCudaSuccess) {
    status = ask(&free, &total);
  }
  return status == kCudaSuccess || status == kCudaErrorNotReady ||
         (status >= kFirstOfCapture && status <= kLastOfCapture);
}

bool is_used(int index) {
  try {
    return at::detail::getCUDAHooks().hasPrimaryContext(static_cast<c10::DeviceIndex>(index));
  } catch (const c10::Error&) {
    return true;  // the driver does not tell: the question that follows will
  }
}

struct Devices {
  std::vector<int> used;
  std::vector<int> silent;  // of those
};

Devices ask_devices() {
  Devices devices;
  auto* const get_device = find_in_cuda_runtime<int(int*)>("cudaGetDevice");
  auto* const set_device = find_in_cuda_runtime<int(int)>("cudaSetDevice");
  auto* const clear_error = find_in_cuda_runtime<int()>("cudaGetLastError");
  int current = 0;
  const bool is_known = get_device != nullptr && get_device(&current) == kCudaSuccess;
  for (int index = 0, count = cuda_device_count(); index < count; ++index) {
    if (is_used(index)) {
      devices.used.push_back(index);
      if (!answers(index)) {
        devices.silent.push_back(index);
      }
    }
  }
  if (set_device != nullptr && is_known) {
    set_device(current);
  }
  if (clear_error != nullptr) {
    clear_error();  // of this thread, which LibTorch would take for its next call's
  }
  return devices;
}

std::string lost_message(int index, const std::string& why) {
  return "the device cuda:" + std::to_string(index) + " is lost to this process (" + why +
         "): CUDA ends what a process has on a device after such an error, its memory included. Restart the "
         "process; "
         "CUDA_LAUNCH_BLOCKING=1 lets the call that caused it report it";
}

}  // namespace

bool is_cuda_message(const std::string& message) {
  return std::any_of(kBeginnings.begin(), kBeginnings.end(), [&](std::string_view beginning) {
    return std::string_view(message).substr(0, beginning.size()) == beginning;
  });
}

CudaFailure cuda_failure(const std::string& message) {
  Devices devices = ask_devices();
  if (devices.silent.empty() && ends_context(message)) {
    devices.silent = devices.used;  // one of them; which, nobody says
  }
  if (!devices.silent.empty()) {
    Lost& remembered = lost();
    const std::lock_guard lock(remembered.mutex);
    for (const int index : devices.silent) {
      remembered.why.emplace(index, first_line(message));
    }
    remembered.any = true;
    const int index = devices.silent.front();
    return {"ERR_SENET_CUDA_LOST", lost_message(index, remembered.why.at(index))};
  }
  const bool is_memory = contains(message, "CUBLAS_STATUS_ALLOC_FAILED") ||
                         contains(message, "CUDA error: " + cuda_error_text(kCudaErrorMemoryAllocation));
  return {is_memory ? "ERR_SENET_OUT_OF_MEMORY" : "ERR_SENET_CUDA", message};
}

void check_not_lost(int index) {
  Lost& remembered = lost();
  if (!remembered.any.load(std::memory_order_relaxed)) {
    return;
  }
  const std::lock_guard lock(remembered.mutex);
  const auto found = remembered.why.find(std::max(index, 0));
  if (found != remembered.why.end()) {
    throw Error("ERR_SENET_CUDA_LOST", lost_message(found->first, found->second));
  }
}

}  // namespace senet::runtime
