#include "inference/cuda/downloads.h"

#include "inference/cuda/completions.h"
#include "runtime/cuda_device_scope.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

namespace senet::inference::cuda {
namespace {

// Memory that was pinned is kept up to this: making it takes as long as a small batch.
constexpr size_t kLeastBytes = 4096;
constexpr size_t kMostKeptBytes = size_t{64} << 20;

// Where a download goes, and the event behind it. Of one device.
struct Place {
  void* memory = nullptr;
  size_t bytes = 0;
  Event event = nullptr;
};

// Those that nobody uses now.
class Places {
 public:
  static Places& instance() {
    static auto* const instance = new Places;
    return *instance;
  }

  Place take(const Driver& driver, int device, size_t bytes) {
    const size_t wanted = std::max(bytes, kLeastBytes);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      auto& free = free_[{&driver, device}];
      // No more than twice what is needed.
      const auto found = std::find_if(free.begin(), free.end(), [&](const Place& place) {
        return place.bytes >= wanted && place.bytes / 2 <= wanted;
      });
      if (found != free.end()) {
        const Place place = *found;
        free.erase(found);
        kept_ -= place.bytes;
        return place;
      }
    }
    Place place{nullptr, wanted, nullptr};
    check_cuda(driver, driver.cudaHostAlloc(&place.memory, wanted, runtime::kCudaHostAllocPortable),
               "pinned memory of the host");
    const int status = driver.cudaEventCreateWithFlags(&place.event, runtime::kCudaEventDisableTiming);
    if (status != 0) {
      driver.cudaFreeHost(place.memory);
    }
    check_cuda(driver, status, "an event");
    return place;
  }

  void give_back(const Driver& driver, int device, const Place& place) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (kept_ + place.bytes <= kMostKeptBytes) {
        kept_ += place.bytes;
        free_[{&driver, device}].push_back(place);
        return;
      }
    }
    driver.cudaEventDestroy(place.event);
    driver.cudaFreeHost(place.memory);
  }

  void drop_all(const Driver& driver) {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (auto& [key, free] : free_) {
      for (const Place& place : free) {
        if (key.first == &driver) {
          driver.cudaEventDestroy(place.event);
          driver.cudaFreeHost(place.memory);
          kept_ -= place.bytes;
        }
      }
    }
    std::erase_if(free_, [&](const auto& each) { return each.first.first == &driver; });
  }

 private:
  std::mutex mutex_;
  std::map<std::pair<const Driver*, int>, std::vector<Place>> free_;
  size_t kept_ = 0;
};

}  // namespace

void download(const Driver& driver, int device, const void* from, size_t bytes, Downloaded done) {
  Places& places = Places::instance();
  Place place;
  bool is_enqueued = false;
  try {
    const DeviceScope scope(driver, device);
    place = places.take(driver, device, bytes);
    check_cuda(
        driver,
        driver.cudaMemcpyAsync(place.memory, from, bytes, runtime::kCudaMemcpyDeviceToHost, kDefaultStream),
        "a download");
    is_enqueued = true;
    check_cuda(driver, driver.cudaEventRecord(place.event, kDefaultStream), "an event");
    Completions::instance().watch(driver, device, place.event, [=, &driver, &places](int status) {
      std::exception_ptr failure;
      try {
        check_cuda(driver, status, "a download");
      } catch (...) {
        failure = std::current_exception();
      }
      done(failure ? nullptr : place.memory, failure);
      places.give_back(driver, device, place);
    });
  } catch (...) {
    const std::exception_ptr failure = std::current_exception();
    if (is_enqueued) {
      driver.cudaStreamSynchronize(kDefaultStream);
    }
    if (place.memory != nullptr) {
      places.give_back(driver, device, place);
    }
    done(nullptr, failure);
  }
}

void drop_download_memory(const Driver& driver) {
  Places::instance().drop_all(driver);
}

}  // namespace senet::inference::cuda
