#include "runtime/cache_folder.h"

#include <cstdlib>
#include <filesystem>
#include <system_error>

namespace senet::runtime {

std::string cache_folder(const std::string& name) {
  const auto given = [](const char* variable) -> std::filesystem::path {
    const char* const value = std::getenv(variable);
    return value == nullptr ? "" : value;
  };
  std::filesystem::path folder = given("SENET_HOME");
  if (folder.empty()) {
    folder = given("XDG_CACHE_HOME");
    if (folder.empty()) {
      folder = given("HOME");
      if (folder.empty()) {
        return "";
      }
      folder /= ".cache";
    }
    folder /= "senet-torch";
  }
  folder = std::filesystem::absolute(folder) / name;
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  return error ? "" : folder.string();
}

}  // namespace senet::runtime
