// Who of a group is alive. Every process writes into the store that it is, a few times a second; one that
// fails leaves there what ended it, and when a connection breaks or nobody comes, the rank that has gone
// quiet is named. The first to find out writes it down, so that all say the same. A thread of its own does
// this, with a connection of its own.
#pragma once

#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace senet::distributed {

/// The first line of what went wrong, without LibTorch's backtrace.
std::string first_line(const std::exception_ptr& failure);

class Watch {
 public:
  using Tell = std::function<void(std::exception_ptr)>;

  /// `on_verdict` is called once, on the watch's thread, when a rank is known to be lost.
  Watch(c10::intrusive_ptr<c10d::Store> store, int rank, int size, bool hosts_store, bool rank_0_hosts,
        std::function<void()> on_verdict);
  ~Watch();
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  /// Another collective has begun here.
  void count() {
    ++collectives_;
  }
  /// Gives `tell` an error that says why a collective failed, from any thread, within seconds.
  void explain(std::exception_ptr failure, Tell tell);
  /// Whether a rank that goes quiet is to be found out although nothing has failed here: for who waits for
  /// others without a connection that would break.
  void look_after(bool looks);
  /// Writes down that this rank has failed; the one that hosts the store waits for the others to read it.
  void fail(const std::string& reason);
  /// From now on whatever fails here does so with this.
  void close(const char* code, const std::string& why);

 private:
  using Clock = std::chrono::steady_clock;
  struct Verdict {
    const char* code;
    std::string message;
  };
  struct Peer {
    std::string beat;
    Clock::time_point changed{};
  };
  struct Question {
    std::exception_ptr failure;
    Tell tell;
    Clock::time_point since;
  };

  void run();
  // One round; with store_mutex_ held.
  void beat();
  void read_peers();
  std::optional<Verdict> read_failure();
  std::optional<Verdict> find_lost(const std::exception_ptr& failure, Clock::time_point since,
                                   std::chrono::milliseconds quiet_for);
  std::optional<Verdict> judge(const Question& question);
  Verdict quiet(const std::vector<int>& ranks, const std::exception_ptr& failure);
  void settle(std::unique_lock<std::mutex>& lock);

  const c10::intrusive_ptr<c10d::Store> store_;
  const int rank_;
  const int size_;
  const bool hosts_store_;
  const bool rank_0_hosts_;
  const std::function<void()> on_verdict_;
  std::atomic<uint64_t> collectives_ = 0;

  std::mutex store_mutex_;  // around the store, peers_ and what is known of it
  uint64_t beats_ = 0;
  bool is_store_lost_ = false;
  bool acknowledged_ = false;
  std::vector<Peer> peers_;

  std::mutex mutex_;  // around the rest
  std::condition_variable wake_;
  bool stopped_ = false;
  std::optional<Verdict> verdict_;
  std::vector<Question> questions_;
  std::optional<Clock::time_point> looks_after_since_;
  std::thread thread_;
};

}  // namespace senet::distributed
