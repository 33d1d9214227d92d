// Batches from the host's memory to answers there, several on their way at once, and no thread that waits for
// the device: a lane is a stream with its sequences. While one lane computes, another's images are copied. A
// batch that finds every lane busy waits in a queue, not on a thread. Knows no LibTorch.
#pragma once

#include "inference/cuda/kept_sequences.h"
#include "inference/cuda/sequence.h"

#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

namespace senet::inference::cuda {

/// A batch on its way. Whoever made it keeps the lanes alive until `done` was called.
struct Request {
  HostImages images;
  Pair size;
  int64_t count;
  /// Puts images [first, first + n) into the host's memory; may compute.
  std::function<void(int64_t first, int64_t n, void* to)> write;
  /// Takes the answers of these, float32, from there; short.
  std::function<void(int64_t first, int64_t n, const float* from)> read;
  /// Called once, on any thread: null when everything was read. The lanes may go then.
  std::function<void(std::exception_ptr)> done;
  /// Runs something soon on a thread that may compute. May throw: then it never will.
  std::function<void(std::function<void()>)> post;
};

/// What a sequence is made for.
struct LaneKey {
  HostImages images;
  Pair size;
  int64_t count;

  bool operator==(const LaneKey&) const = default;
};

class Lanes {
 public:
  using Make = std::function<std::unique_ptr<const Sequence>(const LaneKey&, Stream)>;

  struct Limits {
    size_t lanes;
    int64_t images;    // of one run; a larger batch is several, one after the other
    size_t sequences;  // of all lanes
    int64_t bytes;     // of those
  };

  /// `make` may be called by several threads at once, on which the device is current; `count_of` says for how
  /// many images a run of so many is made.
  Lanes(const Driver& driver, int device, const Limits& limits, std::function<int64_t(int64_t)> count_of,
        Make make);
  /// Nothing is on its way any more.
  ~Lanes();
  Lanes(const Lanes&) = delete;
  Lanes& operator=(const Lanes&) = delete;

  /// Starts it, or lets it wait for a lane. Throws nothing: what goes wrong is told by `done`.
  void run(std::shared_ptr<const Request> request);

 private:
  struct Lane;

  Lane* take_lane(std::shared_ptr<const Request>& request);
  void begin(Lane& lane, const std::shared_ptr<const Request>& request, int64_t first);
  void ended(Lane& lane, const std::shared_ptr<const Request>& request, const Sequence& sequence,
             int64_t first, int64_t images, int status);
  std::exception_ptr post(Lane& lane, const std::shared_ptr<const Request>& request, int64_t first);
  void end(Lane& lane, std::shared_ptr<const Request> request, std::exception_ptr failure);
  std::shared_ptr<const Request> next_for(Lane& lane);

  const Driver& driver_;
  const int device_;
  const Limits limits_;
  const std::function<int64_t(int64_t)> count_of_;
  const Make make_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Lane>> lanes_;            // made when they are needed
  std::deque<std::shared_ptr<const Request>> waiting_;  // for a lane
};

}  // namespace senet::inference::cuda
