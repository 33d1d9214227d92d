#include "inference/cuda/disk_cache.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <system_error>

namespace senet::inference::cuda {
namespace {

constexpr auto kUnused = std::chrono::hours(24 * 30);

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
  if (end == std::string::npos || file.compare(0, end + 1, first_line(key, content)) != 0) {
    return "";
  }
  utimensat(AT_FDCWD, path_of(key).c_str(), nullptr, 0);  // it was used now
  return content;
}

void drop_unused(const std::string& folder, const std::string& used) {
  if (folder.empty()) {
    return;
  }
  std::error_code ignored;  // another process may do the same
  const auto now = std::filesystem::file_time_type::clock::now();
  for (auto it = std::filesystem::directory_iterator(folder, ignored); it != std::filesystem::end(it);
       it.increment(ignored)) {
    const std::string name = it->path().filename();
    const bool is_ours = name.starts_with("plans-") ||
                         (name.size() == 16 && name.find_first_not_of("0123456789abcdef") == name.npos);
    if (name == used) {
      std::filesystem::last_write_time(it->path(), now, ignored);
    } else if (is_ours && now - it->last_write_time(ignored) > kUnused) {
      std::filesystem::remove_all(it->path(), ignored);
    }
  }
}

void DiskCache::keep(const std::string& key, const std::string& content) const {
  if (!folder_.empty()) {
    replace_whole_file(path_of(key), first_line(key, content) + content);
  }
}

}  // namespace senet::inference::cuda
