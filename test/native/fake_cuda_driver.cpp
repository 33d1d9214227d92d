#include "fake_cuda_driver.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <mutex>

namespace senet::test {
namespace {

using namespace runtime::cuda;

std::mutex& mutex = fake_mutex();

// cuDNN's numbers of the attributes that are read.
constexpr int kHeuristicsResults = 202;
constexpr int kGraphHandle = 800;
constexpr int kConfigEngine = 300;
constexpr int kPlanWorkspaceSize = 402;
constexpr int kPlanJson = 405;
constexpr char kPlanText[] = "{}";
constexpr int kEngineIndex = 1301;
constexpr int kHandleStatus = 1;

thread_local int current_device = 0;

// Whether this call goes well; with the mutex held.
bool goes_well(const char* name) {
  FakeDevice& device = fake_device();
  if (device.calls++ == device.fail_at) {
    device.failed = name;
    return false;
  }
  return true;
}

void blame(const std::string& what) {
  if (fake_device().wrong.empty()) {
    fake_device().wrong = what;
  }
}

template <class Pointer>
void make(Pointer* result, const char* name) {
  auto* const made = new std::string(name);
  fake_device().alive.insert(made);
  *result = reinterpret_cast<Pointer>(made);
}

void use(const void* pointer, const char* name) {
  if (fake_device().alive.count(const_cast<void*>(pointer)) == 0) {
    blame(std::string(name) + " uses what is not alive");
  }
}

void drop(void* pointer, const char* name) {
  if (fake_device().alive.erase(pointer) == 0) {
    blame(std::string(name) + " gives back what is not alive");
  } else {
    delete static_cast<std::string*>(pointer);
  }
}

// What must not happen while a stream is captured.
void outside(const char* name) {
  if (fake_device().is_capturing) {
    blame(std::string(name) + " in a capture");
  }
}

#define SENET_CALL(name)                         \
  const std::lock_guard<std::mutex> lock(mutex); \
  if (!goes_well(name)) {                        \
    return kHandleStatus;                        \
  }

// What gives back does so also where it reports a failure.
#define SENET_RELEASE(name, pointer)                      \
  const std::lock_guard<std::mutex> lock(mutex);          \
  const int status = goes_well(name) ? 0 : kHandleStatus; \
  drop(pointer, name);                                    \
  return status;

Driver make_driver() {
  Driver driver;
  driver.cudaGetDevice = [](int* device) {
    *device = current_device;
    return 0;
  };
  driver.cudaSetDevice = [](int device) -> int {
    SENET_CALL("cudaSetDevice")
    current_device = device;
    return 0;
  };
  driver.cudaGetLastError = []() { return 0; };
  driver.cudaStreamCreateWithFlags = [](Stream* stream, unsigned) -> int {
    SENET_CALL("cudaStreamCreateWithFlags")
    make(stream, "stream");
    return 0;
  };
  driver.cudaStreamDestroy = [](Stream stream) -> int { SENET_RELEASE("cudaStreamDestroy", stream) };
  driver.cudaStreamSynchronize = [](Stream stream) -> int {
    SENET_CALL("cudaStreamSynchronize")
    outside("cudaStreamSynchronize");
    if (stream != nullptr) {
      use(stream, "cudaStreamSynchronize");
    }
    return 0;
  };
  driver.cudaStreamBeginCapture = [](Stream stream, int) -> int {
    SENET_CALL("cudaStreamBeginCapture")
    use(stream, "cudaStreamBeginCapture");
    outside("cudaStreamBeginCapture");
    fake_device().is_capturing = true;
    fake_device().log.push_back("begin");
    return 0;
  };
  driver.cudaStreamEndCapture = [](Stream stream, Graph* graph) -> int {
    const std::lock_guard<std::mutex> lock(mutex);
    if (!fake_device().is_capturing) {
      blame("an end of no capture");
    }
    use(stream, "cudaStreamEndCapture");
    fake_device().is_capturing = false;
    if (!goes_well("cudaStreamEndCapture")) {
      *graph = nullptr;
      return kHandleStatus;
    }
    make(graph, "graph");
    fake_device().log.push_back("end");
    return 0;
  };
  driver.cudaGraphInstantiateWithFlags = [](GraphRun* run, Graph graph, unsigned long long) -> int {
    SENET_CALL("cudaGraphInstantiateWithFlags")
    use(graph, "cudaGraphInstantiateWithFlags");
    make(run, "graph run");
    return 0;
  };
  driver.cudaGraphLaunch = [](GraphRun run, Stream) -> int {
    SENET_CALL("cudaGraphLaunch")
    use(run, "cudaGraphLaunch");
    fake_device().log.push_back("launch");
    return 0;
  };
  driver.cudaGraphDestroy = [](Graph graph) -> int { SENET_RELEASE("cudaGraphDestroy", graph) };
  driver.cudaGraphExecDestroy = [](GraphRun run) -> int { SENET_RELEASE("cudaGraphExecDestroy", run) };
  driver.cudaEventCreateWithFlags = [](Event* event, unsigned) -> int {
    SENET_CALL("cudaEventCreateWithFlags")
    make(event, "event");
    return 0;
  };
  driver.cudaEventRecord = [](Event event, Stream) -> int {
    SENET_CALL("cudaEventRecord")
    use(event, "cudaEventRecord");
    return 0;
  };
  driver.cudaEventSynchronize = [](Event event) -> int {
    SENET_CALL("cudaEventSynchronize")
    use(event, "cudaEventSynchronize");
    outside("cudaEventSynchronize");
    return 0;
  };
  driver.cudaEventQuery = [](Event event) -> int {
    SENET_CALL("cudaEventQuery")
    use(event, "cudaEventQuery");
    FakeDevice& device = fake_device();
    return device.holds_events || device.not_ready-- > 0 ? runtime::kCudaErrorNotReady : 0;
  };
  driver.cudaEventElapsedTime = [](float* milliseconds, Event first, Event second) -> int {
    SENET_CALL("cudaEventElapsedTime")
    use(first, "cudaEventElapsedTime");
    use(second, "cudaEventElapsedTime");
    *milliseconds = static_cast<float>(1 + fake_device().calls % 7);
    return 0;
  };
  driver.cudaEventDestroy = [](Event event) -> int { SENET_RELEASE("cudaEventDestroy", event) };
  driver.cudaMemsetAsync = [](void* memory, int byte, size_t bytes, Stream) -> int {
    SENET_CALL("cudaMemsetAsync")
    std::memset(memory, byte, bytes);  // a sanitizer sees where that ends
    return 0;
  };
  driver.cudaMemcpyAsync = [](void* to, const void* from, size_t bytes, int kind, Stream) -> int {
    SENET_CALL("cudaMemcpyAsync")
    // The host's side is touched, not moved: a sanitizer sees where it ends.
    if (kind == 1) {
      std::memset(to, 1, bytes);
      fake_device().log.push_back("upload " + std::to_string(bytes));
    } else {
      std::memset(to, 0, bytes);
      fake_device().log.push_back("download " + std::to_string(bytes));
    }
    fake_device().touched = from == nullptr ? 0 : static_cast<const char*>(from)[bytes - 1];
    return 0;
  };
  driver.cudaHostAlloc = [](void** memory, size_t bytes, unsigned) -> int {
    SENET_CALL("cudaHostAlloc")
    *memory = std::malloc(bytes);
    fake_device().pinned.insert(*memory);
    return 0;
  };
  driver.cudaFreeHost = [](void* memory) -> int {
    const std::lock_guard<std::mutex> lock(mutex);
    const int status = goes_well("cudaFreeHost") ? 0 : kHandleStatus;
    if (fake_device().pinned.erase(memory) == 0) {
      blame("cudaFreeHost of what is not alive");
    } else {
      std::free(memory);
    }
    return status;
  };
  driver.cudaGetErrorString = [](int) { return "an error of the stand-in"; };

  driver.cudnnCreate = [](CudnnHandle* handle) -> int {
    SENET_CALL("cudnnCreate")
    make(handle, "handle");
    return 0;
  };
  driver.cudnnDestroy = [](CudnnHandle handle) -> int { SENET_RELEASE("cudnnDestroy", handle) };
  driver.cudnnSetStream = [](CudnnHandle handle, Stream) -> int {
    SENET_CALL("cudnnSetStream")
    use(handle, "cudnnSetStream");
    return 0;
  };
  driver.cudnnBackendCreateDescriptor = [](int, CudnnDescriptor* descriptor) -> int {
    SENET_CALL("cudnnBackendCreateDescriptor")
    make(descriptor, "descriptor");
    return 0;
  };
  driver.cudnnBackendDestroyDescriptor = [](CudnnDescriptor descriptor) -> int {
    SENET_RELEASE("cudnnBackendDestroyDescriptor", descriptor)
  };
  driver.cudnnBackendFinalize = [](CudnnDescriptor descriptor) -> int {
    SENET_CALL("cudnnBackendFinalize")
    use(descriptor, "cudnnBackendFinalize");
    return 0;
  };
  driver.cudnnBackendSetAttribute = [](CudnnDescriptor descriptor, int attribute, int, int64_t,
                                       const void*) -> int {
    SENET_CALL("cudnnBackendSetAttribute")
    use(descriptor, "cudnnBackendSetAttribute");
    if (attribute == kGraphHandle) {
      fake_device().planners.push_back(std::this_thread::get_id());
    }
    return 0;
  };
  driver.cudnnBackendGetAttribute = [](CudnnDescriptor descriptor, int attribute, int, int64_t requested,
                                       int64_t* count, void* values) -> int {
    SENET_CALL("cudnnBackendGetAttribute")
    use(descriptor, "cudnnBackendGetAttribute");
    int64_t found = 0;
    if (attribute == kHeuristicsResults) {
      found = std::min<int64_t>(requested, fake_device().plans);
    } else if (attribute == kConfigEngine) {
      found = 1;
    } else if (attribute == kEngineIndex || attribute == kPlanWorkspaceSize) {
      found = 1;
      *static_cast<int64_t*>(values) = attribute == kEngineIndex ? fake_device().calls : 4096;
    } else if (attribute == kPlanJson) {
      found = sizeof kPlanText;
      std::copy_n(kPlanText, std::min<int64_t>(requested, found), static_cast<char*>(values));
    }
    *count = found;
    return 0;
  };
  driver.cudnnBackendExecute = [](CudnnHandle handle, CudnnDescriptor plan, CudnnDescriptor pack) -> int {
    SENET_CALL("cudnnBackendExecute")
    for (const void* used : {static_cast<void*>(handle), plan, pack}) {
      use(used, "cudnnBackendExecute");
    }
    fake_device().log.push_back("convolution");
    return 0;
  };
  driver.cudnnGetErrorString = [](int) { return "an error of the stand-in"; };
  driver.cudnnGetVersion = [] { return size_t{90000}; };
  return driver;
}

}  // namespace

std::mutex& fake_mutex() {
  static std::mutex mutex;
  return mutex;
}

FakeDevice& fake_device() {
  static FakeDevice device;
  return device;
}

const Driver& fake_driver() {
  static const Driver driver = make_driver();
  return driver;
}

}  // namespace senet::test
