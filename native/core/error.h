// The one exception type of this library. It knows codes and messages; which JavaScript class a code becomes
// is decided in lib/errors.ts.
#pragma once

#include <stdexcept>
#include <string>

namespace senet {

/// An error with a stable code of lib/errors.ts.
class Error : public std::runtime_error {
 public:
  /// `code` must be a string literal.
  Error(const char* code, const std::string& message) : std::runtime_error(message), code_(code) {}
  const char* code() const noexcept {
    return code_;
  }

 private:
  const char* code_;
};

}  // namespace senet
