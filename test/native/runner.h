// Runs tests one after the other and counts them. A test is a function that throws when something is wrong;
// `expect` throws for it. Nothing of the library is known here.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <functional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>

namespace senet::test {

template <class... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream stream;
  (stream << ... << parts);
  return stream.str();
}

template <class... Parts>
void expect(bool is_true, const Parts&... otherwise) {
  if (!is_true) {
    throw std::runtime_error(text(otherwise...));
  }
}

class Runner {
 public:
  /// Only tests whose name contains `filter` run.
  explicit Runner(std::string filter) : filter_(std::move(filter)) {}

  void test(const std::string& name, const std::function<void()>& body) {
    if (!is_wanted(name)) {
      return;
    }
    const auto start = std::chrono::steady_clock::now();
    std::string problem;
    try {
      body();
    } catch (const std::exception& error) {
      problem = error.what();
    }
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    ++(problem.empty() ? passed_ : failed_);
    std::printf("%s %s (%.1f s)\n", problem.empty() ? "ok  " : "FAIL", name.c_str(), taken.count());
    if (!problem.empty()) {
      std::printf("     %s\n", problem.c_str());
    }
    std::fflush(stdout);
  }

  void skip(const std::string& name, const std::string& reason) {
    if (is_wanted(name)) {
      ++skipped_;
      std::printf("skip %s: %s\n", name.c_str(), reason.c_str());
    }
  }

  /// Prints the counts; the exit status of the program. No test at all is a failure.
  int finish() const {
    std::printf("%d passed, %d failed", passed_, failed_);
    if (skipped_ > 0) {
      std::printf(", %d skipped", skipped_);
    }
    std::printf("\n");
    return failed_ == 0 && passed_ > 0 ? 0 : 1;
  }

 private:
  bool is_wanted(const std::string& name) const {
    return name.find(filter_) != std::string::npos;
  }

  const std::string filter_;
  int passed_ = 0;
  int failed_ = 0;
  int skipped_ = 0;
};

}  // namespace senet::test
