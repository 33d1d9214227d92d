#include "runtime/file_reader.h"

#include "core/error.h"
#include "core/names.h"
#include "runtime/allocator.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <c10/core/Storage.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <memory>
#include <string>

namespace senet::runtime {
namespace {

// Where a storage begins in the memory that several share.
constexpr int64_t kStorageAlignment = 64;
// What one thread reads at a time.
constexpr int64_t kChunk = int64_t{4} << 20;
// What headers may take: a file names its own ranges, and they may repeat each other.
constexpr int64_t kMaxHeaderBytes = int64_t{128} << 20;

[[noreturn]] void throw_format(const std::string& message) {
  throw Error("ERR_SENET_CHECKPOINT_FORMAT", message);
}

[[noreturn]] void throw_changed(const std::string& message) {
  throw Error("ERR_SENET_FILE_CHANGED", message);
}

// A sum of lengths, each of which fits the file: a file may name its bytes so often that they do not fit 64
// bits.
void add_length(int64_t& total, int64_t length) {
  if (__builtin_add_overflow(total, length, &total)) {
    throw Error("ERR_SENET_CHECKPOINT_LIMIT", "the ranges of the file are together more than 2^63 bytes");
  }
}

// Memory that several storages share: freed with the last of them.
struct Arena {
  at::DataPtr memory;
  std::vector<uint8_t*> starts;  // of each range
};

std::shared_ptr<Arena> allocate_arena(const std::vector<ByteRange>& ranges) {
  auto arena = std::make_shared<Arena>();
  int64_t total = 0;
  std::vector<int64_t> places;
  for (const auto& range : ranges) {
    places.push_back(total);
    add_length(total, range.length);
    add_length(total, (kStorageAlignment - range.length % kStorageAlignment) % kStorageAlignment);
  }
  arena->memory = allocate_uncached(static_cast<size_t>(total));
  auto* base = static_cast<uint8_t*>(arena->memory.get());
  for (const int64_t place : places) {
    arena->starts.push_back(base + place);
  }
  return arena;
}

struct stat facts_of(int fd) {
  struct stat facts {};
  if (fstat(fd, &facts) != 0) {
    throw Error("ERR_SENET_FILE", std::string("fstat failed: ") + std::strerror(errno));
  }
  return facts;
}

int64_t modified(const struct stat& facts) {
#ifdef __APPLE__
  const timespec& time = facts.st_mtimespec;
#else
  const timespec& time = facts.st_mtim;
#endif
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

void check_identity(int fd, FileIdentity identity) {
  const struct stat now = facts_of(fd);
  if (now.st_size != identity.size) {
    throw_changed("the file had " + std::to_string(identity.size) + " bytes when it was parsed and has " +
                  std::to_string(now.st_size) + " now");
  }
  if (modified(now) != identity.modified_nanoseconds) {
    throw_changed("the file was modified after it was parsed");
  }
}

void read_exactly(int fd, uint8_t* destination, int64_t offset, int64_t length) {
  while (length > 0) {
    const ssize_t got = pread(fd, destination, static_cast<size_t>(length), offset);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      throw Error("ERR_SENET_FILE", std::string("reading failed: ") + std::strerror(errno));
    }
    if (got == 0) {
      throw_changed("the file ends at byte " + std::to_string(offset) + ", before its last tensor");
    }
    destination += got;
    offset += got;
    length -= got;
  }
}

void read_ranges(int fd, const std::vector<ByteRange>& ranges, const std::vector<uint8_t*>& destinations) {
  struct Piece {
    uint8_t* destination;
    int64_t offset;
    int64_t length;
  };
  std::vector<Piece> pieces;
  for (size_t i = 0; i < ranges.size(); ++i) {
    for (int64_t done = 0; done < ranges[i].length; done += kChunk) {
      pieces.push_back(
          {destinations[i] + done, ranges[i].offset + done, std::min(kChunk, ranges[i].length - done)});
    }
  }
  at::parallel_for(0, static_cast<int64_t>(pieces.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Piece& piece = pieces[static_cast<size_t>(i)];
      read_exactly(fd, piece.destination, piece.offset, piece.length);
    }
  });
}

c10::Storage make_storage(uint8_t* start, int64_t length, std::shared_ptr<void> owner) {
  auto* context = new std::shared_ptr<void>(std::move(owner));
  at::DataPtr pointer(
      start, context, [](void* held) { delete static_cast<std::shared_ptr<void>*>(held); },
      c10::Device(c10::DeviceType::CPU));
  return {c10::Storage::use_byte_size_t(), static_cast<size_t>(length), std::move(pointer), nullptr, false};
}

// One storage a range, the views over them. Views of one range share its storage, as they did when they were
// saved.
std::vector<at::Tensor> make_tensors(const std::vector<ByteRange>& ranges,
                                     const std::vector<TensorView>& views,
                                     const std::vector<uint8_t*>& starts,
                                     const std::shared_ptr<void>& owner) {
  std::vector<c10::Storage> storages;
  storages.reserve(ranges.size());
  for (size_t i = 0; i < ranges.size(); ++i) {
    storages.push_back(make_storage(starts[i], ranges[i].length, owner));
  }
  std::vector<at::Tensor> tensors;
  tensors.reserve(views.size());
  std::vector<bool> is_bool(ranges.size(), false);
  for (const auto& view : views) {
    if (view.dtype == at::kBool && !is_bool[view.range]) {
      // A byte that is neither 0 nor 1 is no bool in C++; a file may hold one. Once: a file may have many
      // views.
      is_bool[view.range] = true;
      uint8_t* bytes = starts[view.range];
      std::transform(bytes, bytes + ranges[view.range].length, bytes, [](uint8_t byte) { return byte != 0; });
    }
    at::Tensor tensor = at::empty({0}, at::TensorOptions().dtype(view.dtype).device(at::kCPU));
    tensor.set_(storages[view.range], view.storage_offset, view.shape, view.stride);
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

}  // namespace

int64_t modified_nanoseconds(int fd) {
  return modified(facts_of(fd));
}

void check_views(const std::vector<ByteRange>& ranges, const std::vector<TensorView>& views, int64_t size) {
  for (const auto& range : ranges) {
    if (range.offset < 0 || range.length < 0 || range.offset > size || range.length > size - range.offset) {
      throw_format("the bytes " + std::to_string(range.offset) + " + " + std::to_string(range.length) +
                   " leave the file of " + std::to_string(size) + " bytes");
    }
  }
  for (const auto& view : views) {
    if (view.range >= ranges.size()) {
      throw_format("a tensor names a range that does not exist");
    }
    if (view.shape.size() != view.stride.size()) {
      throw_format("a tensor has as many strides as dimensions or none");
    }
    const auto item = static_cast<__int128>(c10::elementSize(view.dtype));
    // The last element reached, in 128 bits: no product of a file's numbers can wrap.
    __int128 last = view.storage_offset;
    bool empty = false;
    bool valid = view.storage_offset >= 0;
    for (size_t i = 0; i < view.shape.size(); ++i) {
      valid = valid && view.shape[i] >= 0 && view.stride[i] >= 0;
      empty = empty || view.shape[i] == 0;
      last += static_cast<__int128>(view.shape[i] - 1) * view.stride[i];
    }
    const auto elements = static_cast<__int128>(ranges[view.range].length) / item;
    if (!valid || (empty ? view.storage_offset > elements : last >= elements)) {
      throw_format("a tensor of shape " + shape_text(view.shape) + ", strides " + shape_text(view.stride) +
                   " and offset " + std::to_string(view.storage_offset) + " leaves its storage of " +
                   std::to_string(ranges[view.range].length) + " bytes");
    }
  }
}

std::vector<uint8_t> read_bytes(int fd, int64_t size, const std::vector<ByteRange>& ranges) {
  check_views(ranges, {}, size);
  int64_t total = 0;
  for (const auto& range : ranges) {
    add_length(total, range.length);
  }
  if (total > kMaxHeaderBytes) {
    throw_format("headers of " + std::to_string(total) + " bytes");
  }
  std::vector<uint8_t> bytes(static_cast<size_t>(total));
  uint8_t* destination = bytes.data();
  for (const auto& range : ranges) {
    read_exactly(fd, destination, range.offset, range.length);
    destination += range.length;
  }
  return bytes;
}

std::vector<at::Tensor> read_tensors(int fd, FileIdentity identity, const std::vector<ByteRange>& ranges,
                                     const std::vector<TensorView>& views) {
  check_views(ranges, views, identity.size);
  check_identity(fd, identity);
  auto arena = allocate_arena(ranges);
  read_ranges(fd, ranges, arena->starts);
  check_identity(fd, identity);
  return make_tensors(ranges, views, arena->starts, arena);
}

std::vector<at::Tensor> map_tensors(int fd, FileIdentity identity, const std::vector<ByteRange>& ranges,
                                    const std::vector<TensorView>& views) {
  check_views(ranges, views, identity.size);
  check_identity(fd, identity);
  struct Mapping {
    void* start = nullptr;
    size_t length = 0;
    std::shared_ptr<Arena> copies;
    ~Mapping() {
      if (start != nullptr) {
        munmap(start, length);
      }
    }
  };
  auto mapping = std::make_shared<Mapping>();
  std::vector<bool> aligned(ranges.size(), true);
  for (const auto& view : views) {
    // A bool range is written to (see make_tensors), which would copy its pages anyway.
    if (ranges[view.range].offset % static_cast<int64_t>(c10::elementSize(view.dtype)) != 0 ||
        view.dtype == at::kBool) {
      aligned[view.range] = false;
    }
  }
  if (identity.size > 0) {
    mapping->length = static_cast<size_t>(identity.size);
    void* start = mmap(nullptr, mapping->length, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    if (start == MAP_FAILED) {
      throw Error("ERR_SENET_FILE", std::string("mapping failed: ") + std::strerror(errno));
    }
    mapping->start = start;
  }
  std::vector<ByteRange> copied;
  for (size_t i = 0; i < ranges.size(); ++i) {
    if (!aligned[i]) {
      copied.push_back(ranges[i]);
    }
  }
  mapping->copies = allocate_arena(copied);
  read_ranges(fd, copied, mapping->copies->starts);
  std::vector<uint8_t*> starts;
  for (size_t i = 0, next_copy = 0; i < ranges.size(); ++i) {
    starts.push_back(aligned[i] ? static_cast<uint8_t*>(mapping->start) + ranges[i].offset
                                : mapping->copies->starts[next_copy++]);
  }
  return make_tensors(ranges, views, starts, mapping);
}

std::vector<at::Tensor> copy_tensors(const uint8_t* bytes, int64_t size, const std::vector<ByteRange>& ranges,
                                     const std::vector<TensorView>& views) {
  check_views(ranges, views, size);
  auto arena = allocate_arena(ranges);
  for (size_t i = 0; i < ranges.size(); ++i) {
    if (ranges[i].length > 0) {
      std::memcpy(arena->starts[i], bytes + ranges[i].offset, static_cast<size_t>(ranges[i].length));
    }
  }
  return make_tensors(ranges, views, arena->starts, arena);
}

}  // namespace senet::runtime
