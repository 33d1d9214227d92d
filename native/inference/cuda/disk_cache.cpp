#include "inference/cuda/disk_cache.h"

#include <stdlib.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <system_error>

namespace senet::inference::cuda {
namespace {

// FNV-1a of 64 bits, as 16 digits.
std::string fingerprint(const std::string& text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : text) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  }
  char digits[17];
  std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(hash));
  return digits;
}

// The first line of a file: of what it is, and what the rest must be.
std::string first_line(const std::string& key, const std::string& content) {
  return "senet-torch " + fingerprint(key) + ' ' + fingerprint(content) + '\n';
}

bool write_all(int file, const std::string& content) {
  for (size_t done = 0; done < content.size();) {
    const ssize_t count = ::write(file, content.data() + done, content.size() - done);
    if (count <= 0) {
      return false;
    }
    done += static_cast<size_t>(count);
  }
  return true;
}

// What is in the file; empty if it cannot be read.
std::string read_whole_file(const std::string& path) {
  std::FILE* const file = std::fopen(path.c_str(), "rb");
  if (file == nullptr) {
    return "";
  }
  std::string content;
  char part[16384];
  for (size_t count; (count = std::fread(part, 1, sizeof part, file)) > 0;) {
    content.append(part, count);
  }
  const bool is_whole = std::ferror(file) == 0;
  std::fclose(file);
  return is_whole ? content : "";
}

// Writes another file beside it that then takes its place, for this user alone; makes the folder if need be.
// What was there before stays if that cannot be done.
void replace_whole_file(const std::string& path, const std::string& content) {
  std::error_code ignored;  // the file then cannot be made either
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), ignored);
  std::string other = path + ".XXXXXX";
  const int file = mkstemp(other.data());  // with rights for this user alone
  if (file < 0) {
    return;
  }
  const bool is_written = write_all(file, content);
  if (::close(file) != 0 || !is_written || std::rename(other.c_str(), path.c_str()) != 0) {
    ::unlink(other.c_str());
  }
}

}  // namespace

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
