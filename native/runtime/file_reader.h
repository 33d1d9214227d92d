// Bytes of a file, or of memory, as tensors. Trusts nothing that the caller computed: every view is checked
// against its range, and every range against the file.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace senet::runtime {

/// Bytes [offset, offset + length) that become one storage.
struct ByteRange {
  int64_t offset;
  int64_t length;
};

/// A tensor as a view of ranges[range]; stride and storage_offset count elements.
struct TensorView {
  size_t range;
  at::ScalarType dtype;
  std::vector<int64_t> shape;
  std::vector<int64_t> stride;
  int64_t storage_offset;
};

/// The file before it was parsed. A difference is ERR_SENET_FILE_CHANGED.
struct FileIdentity {
  int64_t size;
  int64_t modified_nanoseconds;
};

/// When an open file was last modified. Only this is compared with itself: other runtimes round what they
/// tell of a file's times, and a preloaded library may show each reader another clock.
int64_t modified_nanoseconds(int fd);

/// Throws ERR_SENET_CHECKPOINT_FORMAT if a view leaves its range, or a range the `size` bytes behind it.
void check_views(const std::vector<ByteRange>& ranges, const std::vector<TensorView>& views, int64_t size);

/// Reads small ranges, one after the other, into one run of bytes: headers that lie between the tensors of a
/// file.
std::vector<uint8_t> read_bytes(int fd, int64_t size, const std::vector<ByteRange>& ranges);

/// Reads each range once with pread, in parallel, into one block of memory that the tensors share.
std::vector<at::Tensor> read_tensors(int fd, FileIdentity identity, const std::vector<ByteRange>& ranges,
                                     const std::vector<TensorView>& views);

/// Maps the file privately (a write copies the page). Ranges that do not start at a multiple of their
/// elements are read instead. Another process that truncates the file kills this one with SIGBUS.
std::vector<at::Tensor> map_tensors(int fd, FileIdentity identity, const std::vector<ByteRange>& ranges,
                                    const std::vector<TensorView>& views);

/// Copies the ranges out of memory.
std::vector<at::Tensor> copy_tensors(const uint8_t* bytes, int64_t size, const std::vector<ByteRange>& ranges,
                                     const std::vector<TensorView>& views);

}  // namespace senet::runtime
