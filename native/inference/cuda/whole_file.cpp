#include "inference/cuda/whole_file.h"

#include <stdlib.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <system_error>

namespace senet::inference::cuda {
namespace {

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

}  // namespace

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

bool replace_whole_file(const std::string& path, const std::string& content) {
  std::error_code ignored;  // the file then cannot be made either
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), ignored);
  std::string other = path + ".XXXXXX";
  const int file = mkstemp(other.data());  // with rights for this user alone
  if (file < 0) {
    return false;
  }
  const bool is_written = write_all(file, content);
  if (::close(file) == 0 && is_written && std::rename(other.c_str(), path.c_str()) == 0) {
    return true;
  }
  ::unlink(other.c_str());
  return false;
}

}  // namespace senet::inference::cuda
