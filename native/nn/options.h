// The options that a module is made from, as they come from JavaScript: nothing is trusted.
#pragma once

#include "nn/module.h"

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <variant>
#include <vector>

namespace senet::nn {

using OptionValue = std::variant<int64_t, double, bool, std::string, std::vector<int64_t>,
                                 std::shared_ptr<Module>, std::vector<std::shared_ptr<Module>>>;
using Options = std::map<std::string, OptionValue>;

// Bounds that keep the byte count of every weight far inside int64; memory ends long before.
inline constexpr int64_t kMaxWidth = 1 << 24;
inline constexpr int64_t kMaxDepth = 1000;
inline constexpr int64_t kMaxKernel = 1 << 12;

/// Takes options one by one with their checks; what was not asked for is unknown. Throws
/// ERR_SENET_ARG_MISSING, ERR_SENET_ARG_TYPE or ERR_SENET_ARG_RANGE.
class OptionReader {
 public:
  /// `type` is what is made, for messages. `options` must outlive it.
  OptionReader(std::string type, const Options& options) : type_(std::move(type)), options_(options) {}

  int64_t integer(const std::string& name, int64_t max, int64_t min = 1);
  double number(const std::string& name, double min, double max);
  Size2 pair(const std::string& name, int64_t max, int64_t min = 1);
  bool boolean(const std::string& name);
  std::string string(const std::string& name);
  std::array<int64_t, 4> depths(const std::string& name);
  /// The reduction of an SELayer on `channels`: at most that many, or its hidden layer would be empty.
  int64_t reduction(int64_t channels);
  bool has(const std::string& name) const;
  std::shared_ptr<Module> module(const std::string& name);
  std::vector<std::shared_ptr<Module>> modules(const std::string& name);

  [[noreturn]] void fail(const char* code, const std::string& name, const std::string& what) const;
  /// Throws ERR_SENET_UNKNOWN_OPTION if there is an option that nobody asked for.
  void reject_others() const;

 private:
  template <class T>
  T get(const std::string& name, const char* expected);
  void check_range(const std::string& name, int64_t value, int64_t max, int64_t min = 1) const;

  const std::string type_;
  const Options& options_;
  std::set<std::string> read_;
};

/// Makes a module: reads all its options, rejects the others, then builds.
using Factory = std::shared_ptr<Module> (*)(OptionReader&);

}  // namespace senet::nn
