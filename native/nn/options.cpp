#include "nn/options.h"

#include "core/error.h"

namespace senet::nn {

template <class T>
T OptionReader::get(const std::string& name, const char* expected) {
  const auto found = options_.find(name);
  if (found == options_.end()) {
    fail("ERR_SENET_ARG_MISSING", name, "is required");
  }
  const T* value = std::get_if<T>(&found->second);
  if (value == nullptr) {
    fail("ERR_SENET_ARG_TYPE", name, std::string("must be ") + expected);
  }
  read_.insert(name);
  return *value;
}

int64_t OptionReader::integer(const std::string& name, int64_t max, int64_t min) {
  const auto value = get<int64_t>(name, "an integer");
  check_range(name, value, max, min);
  return value;
}

double OptionReader::number(const std::string& name, double min, double max) {
  const auto found = options_.find(name);
  const bool is_integer = found != options_.end() && std::holds_alternative<int64_t>(found->second);
  const double value =
      is_integer ? static_cast<double>(get<int64_t>(name, "a number")) : get<double>(name, "a number");
  if (!(value >= min && value <= max)) {
    fail("ERR_SENET_ARG_RANGE", name,
         "must be a number from " + std::to_string(min) + " to " + std::to_string(max) + ", got " +
             std::to_string(value));
  }
  return value;
}

Size2 OptionReader::pair(const std::string& name, int64_t max, int64_t min) {
  const auto values = get<std::vector<int64_t>>(name, "an array of two integers");
  if (values.size() != 2) {
    fail("ERR_SENET_ARG_RANGE", name, "must have two integers, got " + std::to_string(values.size()));
  }
  for (const int64_t value : values) {
    check_range(name, value, max, min);
  }
  return {values[0], values[1]};
}

bool OptionReader::boolean(const std::string& name) {
  return get<bool>(name, "a boolean");
}

std::string OptionReader::string(const std::string& name) {
  return get<std::string>(name, "a string");
}

std::array<int64_t, 4> OptionReader::depths(const std::string& name) {
  const auto values = get<std::vector<int64_t>>(name, "an array of four integers");
  if (values.size() != 4) {
    fail("ERR_SENET_ARG_RANGE", name, "must have four integers, got " + std::to_string(values.size()));
  }
  std::array<int64_t, 4> depths{};
  for (size_t i = 0; i < depths.size(); ++i) {
    check_range(name + "[" + std::to_string(i) + "]", values[i], kMaxDepth);
    depths[i] = values[i];
  }
  return depths;
}

int64_t OptionReader::reduction(int64_t channels) {
  return integer("reduction", channels);
}

bool OptionReader::has(const std::string& name) const {
  return options_.count(name) != 0;
}

std::shared_ptr<Module> OptionReader::module(const std::string& name) {
  return get<std::shared_ptr<Module>>(name, "a module");
}

std::vector<std::shared_ptr<Module>> OptionReader::modules(const std::string& name) {
  return get<std::vector<std::shared_ptr<Module>>>(name, "an array of modules");
}

void OptionReader::fail(const char* code, const std::string& name, const std::string& what) const {
  throw Error(code, type_ + ": " + name + " " + what);
}

void OptionReader::reject_others() const {
  for (const auto& [name, value] : options_) {
    if (read_.count(name) == 0) {
      throw Error("ERR_SENET_UNKNOWN_OPTION", type_ + " has no option '" + name + "'");
    }
  }
}

void OptionReader::check_range(const std::string& name, int64_t value, int64_t max, int64_t min) const {
  if (value >= min && value <= max) {
    return;
  }
  fail("ERR_SENET_ARG_RANGE", name,
       "must be an integer from " + std::to_string(min) + " to " + std::to_string(max) + ", got " +
           std::to_string(value));
}

}  // namespace senet::nn
