#ifdef SENET_HAS_C10D

#include "distributed/watch.h"

#include "core/error.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

namespace senet::distributed {
namespace {

constexpr auto kBeat = std::chrono::milliseconds(250);
// A process that is alive writes eight times meanwhile, by a thread that does nothing else.
constexpr auto kQuiet = std::chrono::milliseconds(2000);
// Where nothing has failed, a machine that stands still for a while is not gone.
constexpr auto kQuietWithoutFailure = std::chrono::milliseconds(30'000);
// How long somebody who failed may take to say so, and the last word where nobody is found.
constexpr auto kPatience = std::chrono::milliseconds(4000);
constexpr auto kAcknowledgement = std::chrono::milliseconds(2000);
constexpr const char* kFailed = "senet/failed";

std::string key_of(const char* what, int rank) {
  return std::string("senet/") + what + "/" + std::to_string(rank);
}

std::string listed(const std::vector<int>& ranks, const char* conjunction) {
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  for (size_t i = 0; i < ranks.size(); ++i) {
    text += i == 0 ? "" : i + 1 == ranks.size() ? std::string(" ") + conjunction + " " : ", ";
    text += std::to_string(ranks[i]);
  }
  return text;
}

}  // namespace

std::string first_line(const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const c10::Error& error) {
    const std::string text = error.what_without_backtrace();
    return text.substr(0, text.find('\n'));
  } catch (const std::exception& error) {
    const std::string text = error.what();
    return text.substr(0, text.find('\n'));
  } catch (...) {
    return "an unknown exception";
  }
}

Watch::Watch(c10::intrusive_ptr<c10d::Store> store, int rank, int size, bool hosts_store, bool rank_0_hosts,
             std::function<void()> on_verdict)
    : store_(std::move(store)),
      rank_(rank),
      size_(size),
      hosts_store_(hosts_store),
      rank_0_hosts_(rank_0_hosts),
      on_verdict_(std::move(on_verdict)),
      peers_(static_cast<size_t>(size)),
      thread_(&Watch::run, this) {}

Watch::~Watch() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  wake_.notify_all();
  if (std::this_thread::get_id() == thread_.get_id()) {
    thread_.detach();  // let go of by what it told somebody
  } else {
    thread_.join();
  }
}

void Watch::explain(std::exception_ptr failure, Tell tell) {
  {
    std::unique_lock lock(mutex_);
    questions_.push_back({std::move(failure), std::move(tell), Clock::now()});
  }
  wake_.notify_all();
}

void Watch::look_after(bool looks) {
  const std::lock_guard lock(mutex_);
  looks_after_since_ = looks ? std::optional(Clock::now()) : std::nullopt;
}

void Watch::close(const char* code, const std::string& why) {
  {
    const std::lock_guard lock(mutex_);
    if (!verdict_) {
      verdict_ = Verdict{code, why};
    }
  }
  wake_.notify_all();
}

void Watch::fail(const std::string& reason) {
  const auto until = Clock::now() + kAcknowledgement;
  try {
    {
      const std::lock_guard lock(store_mutex_);
      // The first failure is the one that counts.
      store_->compareSet(kFailed, "",
                         std::to_string(rank_) + "\nrank " + std::to_string(rank_) + " failed: " + reason);
    }
    while (hosts_store_ && Clock::now() < until) {
      const std::lock_guard lock(store_mutex_);
      std::vector<std::string> known;
      for (int rank = 0; rank < size_; ++rank) {
        // A process of Python's writes nothing here, and reads nothing.
        if (rank != rank_ && store_->check({key_of("alive", rank)})) {
          known.push_back(key_of("heard", rank));
        }
      }
      if (known.empty() || store_->check(known)) {
        return;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  } catch (const std::exception&) {
    // The store is gone, and with it everybody who could read this.
  }
}

void Watch::beat() {
  store_->set(key_of("alive", rank_), std::to_string(++beats_) + " " + std::to_string(collectives_.load()));
}

void Watch::read_peers() {
  for (int rank = 0; rank < size_; ++rank) {
    if (rank == rank_ || !store_->check({key_of("alive", rank)})) {
      continue;
    }
    const std::string now = store_->get_to_str(key_of("alive", rank));
    Peer& peer = peers_[static_cast<size_t>(rank)];
    if (now != peer.beat) {
      peer = {now, Clock::now()};
    }
  }
}

std::optional<Watch::Verdict> Watch::read_failure() {
  if (acknowledged_ || !store_->check({kFailed})) {
    return std::nullopt;
  }
  const std::string text = store_->get_to_str(kFailed);
  store_->set(key_of("heard", rank_), std::string("1"));
  acknowledged_ = true;
  const size_t end = text.find('\n');
  if (text.substr(0, end) == std::to_string(rank_)) {
    return std::nullopt;  // this very process, which knows better
  }
  return Verdict{"ERR_SENET_RANK_LOST", text.substr(end + 1)};
}

Watch::Verdict Watch::quiet(const std::vector<int>& ranks, const std::exception_ptr& failure) {
  const std::string message =
      listed(ranks, "and") + (ranks.size() == 1 ? " has" : " have") +
      " ended without a word (killed, or the machine or its network is gone): " + first_line(failure);
  try {
    store_->compareSet(kFailed, "", std::to_string(ranks.front()) + "\n" + message);
    if (std::optional<Verdict> agreed = read_failure()) {
      return *agreed;
    }
  } catch (const std::exception&) {
    // as it is, then
  }
  return {"ERR_SENET_RANK_LOST", message};
}

// Whoever is certainly gone.
std::optional<Watch::Verdict> Watch::find_lost(const std::exception_ptr& failure, Clock::time_point since,
                                               std::chrono::milliseconds quiet_for) {
  if (is_store_lost_) {
    return Verdict{"ERR_SENET_RANK_LOST",
                   rank_0_hosts_ ? "rank 0, which has the group's store, has ended: " + first_line(failure)
                                 : "the group's store is gone, and with it whoever started the ranks: " +
                                       first_line(failure)};
  }
  std::vector<int> dead;
  for (int rank = 0; rank < size_; ++rank) {
    const Peer& peer = peers_[static_cast<size_t>(rank)];
    if (rank != rank_ && !peer.beat.empty() && Clock::now() - std::max(peer.changed, since) > quiet_for) {
      dead.push_back(rank);
    }
  }
  return dead.empty() ? std::nullopt : std::optional(quiet(dead, failure));
}

std::optional<Watch::Verdict> Watch::judge(const Question& question) {
  if (std::optional<Verdict> lost = find_lost(question.failure, question.since, kQuiet)) {
    return lost;
  }
  const auto waited = Clock::now() - question.since;
  std::vector<int> unknown;
  std::vector<int> behind;
  for (int rank = 0; rank < size_; ++rank) {
    const Peer& peer = peers_[static_cast<size_t>(rank)];
    if (rank == rank_) {
      continue;
    }
    if (peer.beat.empty()) {
      unknown.push_back(rank);
    } else if (std::stoull(peer.beat.substr(peer.beat.find(' ') + 1)) < collectives_.load()) {
      behind.push_back(rank);
    }
  }
  if (waited < kPatience) {
    return std::nullopt;
  }
  const std::string text = first_line(question.failure);
  if (text.find("imed out") != std::string::npos) {
    return Verdict{
        "ERR_SENET_DISTRIBUTED",
        "a collective waited longer than the group's timeout" +
            (behind.empty() ? std::string() : " for " + listed(behind, "and") + ", which did not call it") +
            ": " + text};
  }
  if (!unknown.empty()) {
    return Verdict{"ERR_SENET_RANK_LOST", listed(unknown, "or") + " has ended: " + text};
  }
  return Verdict{"ERR_SENET_DISTRIBUTED", "a collective failed, though every rank is there: " + text};
}

void Watch::settle(std::unique_lock<std::mutex>& lock) {
  while (verdict_ && !questions_.empty()) {
    const Question question = std::move(questions_.back());
    questions_.pop_back();
    const auto error = std::make_exception_ptr(Error(verdict_->code, verdict_->message));
    lock.unlock();
    question.tell(error);
    lock.lock();
  }
}

void Watch::run() {
  std::unique_lock lock(mutex_);
  bool told = false;
  while (!stopped_) {
    std::optional<Question> question;
    if (!questions_.empty()) {
      question = questions_.front();
    }
    const bool is_open = !verdict_;
    const auto looks_after_since = looks_after_since_;
    lock.unlock();
    std::optional<Verdict> found;
    try {
      const std::lock_guard store_lock(store_mutex_);
      if (!is_store_lost_) {
        beat();
        found = read_failure();
        if (!found && (question || looks_after_since) && is_open) {
          read_peers();
        }
      }
    } catch (const std::exception&) {
      is_store_lost_ = true;
    }
    if (!found && is_open && (question || looks_after_since)) {
      const std::lock_guard store_lock(store_mutex_);
      if (question) {
        found = judge(*question);
      } else {
        found = find_lost(std::make_exception_ptr(std::runtime_error("it is no longer heard of")),
                          *looks_after_since, kQuietWithoutFailure);
      }
    }
    lock.lock();
    if (found && !verdict_) {
      verdict_ = found;
    }
    if (verdict_ && !told) {
      told = true;
      lock.unlock();
      on_verdict_();
      lock.lock();
    }
    settle(lock);
    if (stopped_) {
      break;
    }
    wake_.wait_for(lock, kBeat, [&] { return stopped_ || (verdict_ && (!told || !questions_.empty())); });
  }
  if (!verdict_) {
    verdict_ = Verdict{"ERR_SENET_DISTRIBUTED", "the process group was destroyed"};
  }
  settle(lock);
}

}  // namespace senet::distributed

#endif
