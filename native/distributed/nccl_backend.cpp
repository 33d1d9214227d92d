#ifdef SENET_HAS_C10D

#include "distributed/nccl_backend.h"

#include "core/error.h"
#include "core/names.h"
#include "runtime/cuda_device_scope.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace senet::distributed {
namespace {

using runtime::cuda::check_cuda;
using runtime::cuda::DeviceScope;
using runtime::cuda::Event;

constexpr auto kAsk = std::chrono::microseconds(50);
// What answers no event within this is asked for less often, and for more.
constexpr auto kLong = std::chrono::milliseconds(100);
constexpr auto kAskSlowly = std::chrono::milliseconds(1);
constexpr auto kLookAfter = std::chrono::milliseconds(1000);
// For what the others have still to take, when this rank leaves.
constexpr auto kLeave = std::chrono::seconds(5);
constexpr auto kConnectPause = std::chrono::milliseconds(5);
// As ProcessGroupNCCL names the first communicator of a group.
constexpr const char* kIdKey = "0";

int type_of(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat:
      return kNcclFloat32;
    case at::kDouble:
      return kNcclFloat64;
    case at::kHalf:
      return kNcclFloat16;
    case at::kBFloat16:
      return kNcclBfloat16;
    case at::kChar:
      return kNcclInt8;
    case at::kByte:
      return kNcclUint8;
    case at::kInt:
      return kNcclInt32;
    case at::kLong:
      return kNcclInt64;
    default:
      throw Error("ERR_SENET_DTYPE", std::string("NCCL reduces no ") + dtype_name(dtype));
  }
}

int operation_of(const c10d::ReduceOp& operation) {
  switch (operation) {
    case c10d::ReduceOp::SUM:
      return kNcclSum;
    case c10d::ReduceOp::AVG:
      return kNcclAvg;
    case c10d::ReduceOp::PRODUCT:
      return kNcclProd;
    case c10d::ReduceOp::MIN:
      return kNcclMin;
    case c10d::ReduceOp::MAX:
      return kNcclMax;
    default:
      throw Error("ERR_SENET_DISTRIBUTED", "NCCL has no such reduction");
  }
}

const at::Tensor& only(const std::vector<at::Tensor>& tensors) {
  if (tensors.size() != 1 || !tensors[0].is_contiguous()) {
    throw Error("ERR_SENET_DISTRIBUTED", "a collective of NCCL takes one contiguous tensor");
  }
  return tensors[0];
}

// Has ranks looked after once a wait has taken long, until it is over.
class LongWait {
 public:
  explicit LongWait(const std::function<void(bool)>& look_after) : look_after_(look_after) {}
  ~LongWait() {
    if (looks_) {
      look_after_(false);
    }
  }
  LongWait(const LongWait&) = delete;
  LongWait& operator=(const LongWait&) = delete;

  std::chrono::steady_clock::duration look() {
    const auto waited = std::chrono::steady_clock::now() - since_;
    if (waited > kLookAfter && !looks_) {
      looks_ = true;
      look_after_(true);
    }
    return waited;
  }

 private:
  const std::function<void(bool)>& look_after_;
  const std::chrono::steady_clock::time_point since_ = std::chrono::steady_clock::now();
  bool looks_ = false;
};

}  // namespace

NcclBackend::NcclBackend(Setup setup)
    : Backend(setup.rank, setup.size), setup_(std::move(setup)), thread_(&NcclBackend::run, this) {}

NcclBackend::~NcclBackend() {
  close("the process group was destroyed", Ending::kOrderly);
  join();
}

void NcclBackend::join() {
  if (thread_.joinable()) {
    thread_.join();
  }
}

c10::intrusive_ptr<c10d::Work> NcclBackend::allreduce(std::vector<at::Tensor>& tensors,
                                                      const c10d::AllreduceOptions& options) {
  const at::Tensor& tensor = only(tensors);
  const int type = type_of(tensor.scalar_type());
  const int operation = operation_of(options.reduceOp);
  return enqueue({tensor}, {tensor}, [&](Communicator communicator, runtime::cuda::Stream stream) {
    return setup_.nccl.ncclAllReduce(tensor.const_data_ptr(), tensor.mutable_data_ptr(),
                                     static_cast<size_t>(tensor.numel()), type, operation, communicator,
                                     stream);
  });
}

c10::intrusive_ptr<c10d::Work> NcclBackend::broadcast(std::vector<at::Tensor>& tensors,
                                                      const c10d::BroadcastOptions& options) {
  const at::Tensor& tensor = only(tensors);
  const int root = static_cast<int>(options.rootRank);
  return enqueue({tensor}, {tensor}, [&](Communicator communicator, runtime::cuda::Stream stream) {
    // Bytes: any dtype will do.
    return setup_.nccl.ncclBroadcast(tensor.const_data_ptr(), tensor.mutable_data_ptr(), tensor.nbytes(),
                                     kNcclUint8, root, communicator, stream);
  });
}

c10::intrusive_ptr<c10d::Work> NcclBackend::allgather(std::vector<std::vector<at::Tensor>>& outputs,
                                                      std::vector<at::Tensor>& inputs,
                                                      const c10d::AllgatherOptions&) {
  const at::Tensor& input = only(inputs);
  if (outputs.size() != 1 || outputs[0].size() != static_cast<size_t>(getSize())) {
    throw Error("ERR_SENET_DISTRIBUTED", "allGather: expected an output for each rank");
  }
  const at::Tensor together = at::empty({getSize(), input.numel()}, input.options());
  return enqueue(
      {input, together}, outputs[0],
      [&](Communicator communicator, runtime::cuda::Stream stream) {
        return setup_.nccl.ncclAllGather(input.const_data_ptr(), together.mutable_data_ptr(), input.nbytes(),
                                         kNcclUint8, communicator, stream);
      },
      [together, parts = outputs[0]] {
        const at::NoGradGuard no_grad;
        for (size_t rank = 0; rank < parts.size(); ++rank) {
          parts[rank].copy_(together[static_cast<int64_t>(rank)].view(parts[rank].sizes()));
        }
      });
}

void NcclBackend::close(const std::string& why, Ending ending) {
  fail_all(std::make_exception_ptr(std::runtime_error("NCCL: " + why)), ending);
}

c10::intrusive_ptr<c10d::Work> NcclBackend::enqueue(std::vector<at::Tensor> kept,
                                                    std::vector<at::Tensor> results, const Launch& launch,
                                                    std::function<void()> finish) {
  const runtime::cuda::Driver& driver = setup_.driver;
  const int device = std::max<int>(kept.front().device().index(), 0);
  auto work = c10::make_intrusive<FutureWork>();
  const std::lock_guard order(launch_mutex_);
  if (is_closed_) {
    const std::lock_guard lock(mutex_);
    work->getFuture()->setError(failure_);
    return work;
  }
  Event event = nullptr;
  // From here on every failure ends the backend: the others may have begun what this rank has not.
  try {
    const DeviceScope scope(driver, device);
    connect(device);
    check_cuda(driver, driver.cudaEventCreateWithFlags(&event, runtime::kCudaEventDisableTiming), "an event");
    check_cuda(driver, driver.cudaEventRecord(event, runtime::cuda::kDefaultStream), "an event");
    check_cuda(driver, driver.cudaStreamWaitEvent(stream_, event, 0), "a wait of a stream");
    settle(communicator_, launch(communicator_, stream_), "a collective");
    check_cuda(driver, driver.cudaEventRecord(event, stream_), "an event");
  } catch (...) {
    {
      // What the device may be using is kept until the thread has ended that, and fails the work.
      const std::lock_guard lock(mutex_);
      pending_.push_back({event, std::move(kept), nullptr, {}, work->getFuture(), Clock::now()});
    }
    fail_all(std::current_exception());
    return work;
  }
  {
    const std::lock_guard lock(mutex_);
    pending_.push_back(
        {event, std::move(kept), std::move(finish), std::move(results), work->getFuture(), Clock::now()});
  }
  wake_.notify_all();
  return work;
}

// With launch_mutex_ held, as all that it calls.
void NcclBackend::connect(int device) {
  if (communicator_ != nullptr) {
    if (device != device_) {
      throw Error("ERR_SENET_DISTRIBUTED",
                  "this process takes part in the group with cuda:" + std::to_string(device_) +
                      ", and the tensor is of cuda:" + std::to_string(device));
    }
    return;
  }
  const NcclId id = agree_on_id();
  NcclConfig config;
  Communicator communicator = nullptr;
  try {
    const int status = setup_.nccl.ncclCommInitRankConfig(&communicator, getSize(), id, getRank(), &config);
    settle(communicator, status, "connecting");
    if (stream_ == nullptr) {
      check_cuda(setup_.driver,
                 setup_.driver.cudaStreamCreateWithFlags(&stream_, runtime::kCudaStreamNonBlocking),
                 "a stream");
    }
  } catch (...) {
    if (communicator != nullptr) {
      setup_.nccl.ncclCommAbort(communicator);
    }
    throw;
  }
  communicator_ = communicator;
  device_ = device;
  if (getRank() == 0) {
    setup_.store->deleteKey(kIdKey);  // which all have read: a later group finds its own
  }
}

// As ProcessGroupNCCL agrees on it, so that processes of Python's find each other and these.
NcclId NcclBackend::agree_on_id() {
  NcclId id;
  if (getRank() == 0) {
    settle(nullptr, setup_.nccl.ncclGetUniqueId(&id), "an id for the group");
    setup_.store->set(kIdKey, std::vector<uint8_t>(std::begin(id.bytes), std::end(id.bytes)));
    return id;
  }
  LongWait wait(setup_.look_after);
  while (!setup_.store->check({kIdKey})) {
    check_open();
    if (wait.look() > setup_.timeout) {
      throw std::runtime_error("NCCL: timed out waiting for rank 0's first collective");
    }
    std::this_thread::sleep_for(kConnectPause);
  }
  const std::vector<uint8_t> bytes = setup_.store->get(kIdKey);
  if (bytes.size() != sizeof id.bytes) {
    throw Error("ERR_SENET_DISTRIBUTED", "rank 0's id for NCCL has " + std::to_string(bytes.size()) +
                                             " bytes, not " + std::to_string(sizeof id.bytes));
  }
  std::memcpy(id.bytes, bytes.data(), bytes.size());
  return id;
}

// Until a call that returned at once is done.
void NcclBackend::settle(Communicator communicator, int status, const char* what) {
  LongWait wait(setup_.look_after);
  while (status == kNcclInProgress) {
    check_open();
    if (wait.look() > setup_.timeout) {
      throw std::runtime_error(std::string("NCCL: timed out in ") + what);
    }
    std::this_thread::sleep_for(kAsk);
    const int asked = setup_.nccl.ncclCommGetAsyncError(communicator, &status);
    status = asked == kNcclSuccess ? status : asked;
  }
  if (status != kNcclSuccess) {
    throw std::runtime_error("NCCL: " + std::string(what) + ": " + text_of(communicator, status));
  }
}

void NcclBackend::check_open() {
  if (is_closed_) {
    const std::lock_guard lock(mutex_);
    std::rethrow_exception(failure_);
  }
}

std::string NcclBackend::text_of(Communicator communicator, int status) const {
  const char* const text = setup_.nccl.ncclGetErrorString(status);
  const char* const last = setup_.nccl.ncclGetLastError(communicator);
  std::string whole = text == nullptr ? "unknown error" : text;
  if (last != nullptr && *last != '\0') {
    whole += std::string(": ") + last;
  }
  return whole + " (status " + std::to_string(status) + ')';
}

void NcclBackend::fail_all(const std::exception_ptr& failure, Ending ending) {
  {
    const std::lock_guard lock(mutex_);
    if (failure_ == nullptr) {
      failure_ = failure;
      ending_ = ending;
    }
    is_closed_ = true;
  }
  wake_.notify_all();
}

void NcclBackend::run() {
  while (true) {
    const Pending* first = nullptr;  // they are done in the order of their launches
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return failure_ != nullptr || !pending_.empty(); });
      if (failure_ != nullptr) {
        break;
      }
      first = &pending_.front();  // which only this thread takes out
    }
    if (!serve(*first)) {
      const bool is_long = Clock::now() - first->since > kLong;
      if (is_long) {
        check_progress(*first);
      }
      std::this_thread::sleep_for(is_long ? kAskSlowly : kAsk);
    }
  }
  release();
}

// Whether the device has come to the end of it, or will never.
bool NcclBackend::serve(const Pending& first) {
  const runtime::cuda::Driver& driver = setup_.driver;
  driver.cudaSetDevice(device_);
  const int status = driver.cudaEventQuery(first.event);
  if (status == runtime::kCudaErrorNotReady) {
    driver.cudaGetLastError();
    return false;
  }
  try {
    check_cuda(driver, status, "a collective");
    if (first.finish != nullptr) {
      first.finish();
    }
  } catch (...) {
    fail_all(std::current_exception());
    return true;
  }
  driver.cudaEventDestroy(first.event);
  Pending done;
  {
    const std::lock_guard lock(mutex_);
    done = std::move(pending_.front());
    pending_.pop_front();
  }
  if (looks_after_) {
    looks_after_ = false;
    setup_.look_after(false);
  }
  done.future->markCompleted(done.results);
  return true;
}

void NcclBackend::check_progress(const Pending& first) {
  const auto now = Clock::now();
  if (now - checked_ < kLong) {
    return;
  }
  checked_ = now;
  int status = kNcclSuccess;
  {
    // To ask is to change it too; who launches asks by himself.
    const std::unique_lock order(launch_mutex_, std::try_to_lock);
    if (order.owns_lock()) {
      const int asked = setup_.nccl.ncclCommGetAsyncError(communicator_, &status);
      status = asked == kNcclSuccess ? status : asked;
    }
  }
  if (status != kNcclSuccess && status != kNcclInProgress) {
    fail_all(std::make_exception_ptr(std::runtime_error("NCCL: " + text_of(communicator_, status))));
  } else if (now - first.since > setup_.timeout) {
    fail_all(std::make_exception_ptr(std::runtime_error("NCCL: a collective timed out")));
  } else if (now - first.since > kLookAfter && !looks_after_) {
    looks_after_ = true;
    setup_.look_after(true);
  }
}

// Ends all that waits, and then what runs.
void NcclBackend::release() {
  std::deque<Pending> ended;  // with what the device may be using
  {
    const std::lock_guard order(launch_mutex_);
    const std::lock_guard lock(mutex_);
    ended = std::exchange(pending_, {});
  }
  if (looks_after_) {
    setup_.look_after(false);
  }
  for (const Pending& one : ended) {
    one.future->setError(failure_);
  }
  const std::lock_guard order(launch_mutex_);
  if (ending_ == Ending::kLeave) {
    new std::deque<Pending>(std::move(ended));
    return;
  }
  const runtime::cuda::Driver& driver = setup_.driver;
  if (communicator_ != nullptr) {
    driver.cudaSetDevice(device_);
    if (!ended.empty() || ending_ == Ending::kAbort || !take_leave()) {
      setup_.nccl.ncclCommAbort(communicator_);
    }
    communicator_ = nullptr;
  }
  for (const Pending& one : ended) {
    if (one.event != nullptr) {
      driver.cudaEventDestroy(one.event);
    }
  }
  if (stream_ != nullptr) {
    driver.cudaStreamDestroy(std::exchange(stream_, nullptr));
  }
}

// Whether the communicator is gone, when what it had still to send was sent.
bool NcclBackend::take_leave() {
  const auto until = Clock::now() + kLeave;
  int status = setup_.nccl.ncclCommFinalize(communicator_);
  while (status == kNcclInProgress && Clock::now() < until) {
    std::this_thread::sleep_for(kAskSlowly);
    const int asked = setup_.nccl.ncclCommGetAsyncError(communicator_, &status);
    status = asked == kNcclSuccess ? status : asked;
  }
  return status == kNcclSuccess && setup_.nccl.ncclCommDestroy(communicator_) == kNcclSuccess;
}

}  // namespace senet::distributed

#endif  // SENET_HAS_C10D
