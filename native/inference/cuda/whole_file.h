// Files that several processes read and write, each of which is there whole or not at all. Knows no LibTorch.
#pragma once

#include <string>

namespace senet::inference::cuda {

/// What is in the file; empty if it cannot be read.
std::string read_whole_file(const std::string& path);

/// Writes another file beside it that then takes its place, for this user alone; makes the folder if need be.
/// False if that cannot be done: what was there before stays.
bool replace_whole_file(const std::string& path, const std::string& content);

}  // namespace senet::inference::cuda
