#include "inference/cuda/lanes.h"

#include "core/error.h"
#include "inference/cuda/completions.h"
#include "runtime/cuda_device_scope.h"

#include <algorithm>
#include <utility>

namespace senet::inference::cuda {

struct Lanes::Lane {
  Lane(const Driver& driver, int device, const Limits& limits)
      : driver(driver),
        device(device),
        sequences(std::max<size_t>(1, limits.sequences / limits.lanes),
                  limits.bytes / static_cast<int64_t>(limits.lanes)) {
    const DeviceScope scope(driver, device);
    check_cuda(driver, driver.cudaStreamCreateWithFlags(&stream, runtime::kCudaStreamNonBlocking),
               "a lane's stream");
    const int status = driver.cudaEventCreateWithFlags(&event, runtime::kCudaEventDisableTiming);
    if (status != 0) {
      driver.cudaStreamDestroy(stream);
    }
    check_cuda(driver, status, "a lane's event");
  }
  ~Lane() {
    int before = 0;
    driver.cudaGetDevice(&before);
    driver.cudaSetDevice(device);  // which a device that is lost may refuse
    sequences.clear();             // which waits for what they run
    driver.cudaEventDestroy(event);
    driver.cudaStreamDestroy(stream);
    driver.cudaSetDevice(before);
  }
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  const Driver& driver;
  const int device;
  Stream stream = nullptr;
  Event event = nullptr;
  KeptSequences<LaneKey> sequences;
  bool is_busy = true;  // whoever makes it takes it
};

Lanes::Lanes(const Driver& driver, int device, const Limits& limits, std::function<int64_t(int64_t)> count_of,
             Make make)
    : driver_(driver),
      device_(device),
      limits_(limits),
      count_of_(std::move(count_of)),
      make_(std::move(make)) {}

Lanes::~Lanes() = default;

// Null if there is none, and the request waits for one.
Lanes::Lane* Lanes::take_lane(std::shared_ptr<const Request>& request) {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const auto& lane : lanes_) {
    if (!lane->is_busy) {
      lane->is_busy = true;
      return lane.get();
    }
  }
  if (lanes_.size() < limits_.lanes) {
    lanes_.push_back(std::make_unique<Lane>(driver_, device_, limits_));
    return lanes_.back().get();
  }
  waiting_.push_back(std::move(request));
  return nullptr;
}

void Lanes::run(std::shared_ptr<const Request> request) {
  Lane* lane = nullptr;
  try {
    lane = take_lane(request);
  } catch (...) {
    request->done(std::current_exception());
    return;
  }
  if (lane != nullptr) {
    begin(*lane, request, 0);
  }
}

void Lanes::begin(Lane& lane, const std::shared_ptr<const Request>& request, int64_t first) {
  try {
    const DeviceScope scope(driver_, device_);
    const int64_t images = std::min(limits_.images, request->count - first);
    const LaneKey key{request->images, request->size, count_of_(images)};
    const Sequence* sequence = lane.sequences.find(key);
    if (sequence == nullptr) {
      sequence = &lane.sequences.keep(key, make_(key, lane.stream));
    }
    request->write(first, images, sequence->host_input());
    try {
      sequence->run();
      check_cuda(driver_, driver_.cudaEventRecord(lane.event, sequence->stream()), "a lane's event");
      Completions::instance().watch(driver_, device_, lane.event, [=, this, &lane](int status) {
        ended(lane, request, *sequence, first, images, status);
      });
    } catch (...) {
      driver_.cudaStreamSynchronize(sequence->stream());  // what was enqueued uses the lane's memory
      throw;
    }
  } catch (...) {
    end(lane, request, std::current_exception());
  }
}

// On the thread that asks the device.
void Lanes::ended(Lane& lane, const std::shared_ptr<const Request>& request, const Sequence& sequence,
                  int64_t first, int64_t images, int status) {
  try {
    check_cuda(driver_, status, "a compiled model");
    request->read(first, images, sequence.host_output());
  } catch (...) {
    end(lane, request, std::current_exception());
    return;
  }
  const std::exception_ptr failure =
      first + images < request->count ? post(lane, request, first + images) : nullptr;
  if (first + images == request->count || failure) {
    end(lane, request, failure);
  }
}

// Why not, if it cannot be.
std::exception_ptr Lanes::post(Lane& lane, const std::shared_ptr<const Request>& request, int64_t first) {
  try {
    request->post([this, &lane, request, first] { begin(lane, request, first); });
    return nullptr;
  } catch (...) {
    return std::current_exception();
  }
}

// The next one that waits gets the lane. Whoever is told last may let the lanes go.
void Lanes::end(Lane& lane, std::shared_ptr<const Request> request, std::exception_ptr failure) {
  std::vector<std::pair<std::shared_ptr<const Request>, std::exception_ptr>> ended;
  while (request != nullptr) {
    ended.emplace_back(std::move(request), std::move(failure));
    request = next_for(lane);
    failure = request == nullptr ? nullptr : post(lane, request, 0);
    if (!failure) {
      break;
    }
  }
  for (const auto& [one, why] : ended) {
    one->done(why);
  }
}

// Null if none waits: the lane is free then.
std::shared_ptr<const Request> Lanes::next_for(Lane& lane) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (waiting_.empty()) {
    lane.is_busy = false;
    return nullptr;
  }
  std::shared_ptr<const Request> next = std::move(waiting_.front());
  waiting_.pop_front();
  return next;
}

}  // namespace senet::inference::cuda
