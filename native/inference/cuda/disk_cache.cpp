#include "inference/cuda/disk_cache.h"

#include "inference/cuda/whole_file.h"

#include <cstdint>
#include <cstdio>

namespace senet::inference::cuda {
namespace {

// The first line of a file: of what it is, and what the rest must be.
std::string first_line(const std::string& key, const std::string& content) {
  return "senet-torch " + fingerprint(key) + ' ' + fingerprint(content) + '\n';
}

}  // namespace

std::string fingerprint(const std::string& text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : text) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  }
  char digits[17];
  std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(hash));
  return digits;
}

std::string DiskCache::path_of(const std::string& key) const {
  return folder_ + '/' + fingerprint(key);
}

std::string DiskCache::find(const std::string& key) const {
  if (folder_.empty()) {
    return "";
  }
  const std::string file = read_whole_file(path_of(key));
  const size_t end = file.find('\n');
  std::string content = end == std::string::npos ? "" : file.substr(end + 1);
  return end != std::string::npos && file.compare(0, end + 1, first_line(key, content)) == 0 ? content : "";
}

void DiskCache::keep(const std::string& key, const std::string& content) const {
  if (!folder_.empty()) {
    replace_whole_file(path_of(key), first_line(key, content) + content);
  }
}

}  // namespace senet::inference::cuda
