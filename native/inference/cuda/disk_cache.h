// What took long to make, kept on disk for the next process: compiled kernels, and cuDNN's fastest plan for a
// convolution with its code. One file each, written whole or not at all; what is damaged is as nothing. Knows
// no LibTorch.
#pragma once

#include <string>
#include <utility>

namespace senet::inference::cuda {

/// May be used by several threads and processes.
class DiskCache {
 public:
  /// `folder` may be empty: then nothing is kept. Files hold code that a device will run, so they are for
  /// this user alone.
  explicit DiskCache(std::string folder) : folder_(std::move(folder)) {}

  /// What was kept under this key; empty if nothing was, or it is damaged.
  std::string find(const std::string& key) const;
  /// What cannot be written is not kept, in silence.
  void keep(const std::string& key, const std::string& content) const;

 private:
  std::string path_of(const std::string& key) const;

  std::string folder_;
};

/// What nobody used for a month goes: kernels, and folders of plans, in `folder`, which is DiskCache's alone.
/// `used` is the name of the one that is in use now. Reading a file that was kept counts as its use.
void drop_unused(const std::string& folder, const std::string& used);

}  // namespace senet::inference::cuda
