#include "vision/resize.h"

#include "core/error.h"
#include "core/names.h"
#include "vision/resize_passes.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <string>

namespace senet::vision {
namespace {

void resize_plane(const Resizing& how, const Source& from, const Target& to) {
  const Span lines = how.down.span();
  const int64_t left = how.along.begin();
  const int64_t bytes = (how.along.end() - left) * to.column;
  at::Tensor memory;
  const auto rows_between = [&](int64_t rows, int64_t row_bytes) {
    memory = at::empty({rows, row_bytes}, at::kByte);
    return Target{memory.mutable_data_ptr<uint8_t>(), row_bytes, to.column, to.channels};
  };
  if (!how.down.axis().changes()) {
    make_rows(how, from, lines, to);
  } else if (!how.along.axis().changes() && from.is_dense()) {
    const uint8_t* const first = from.data + lines.first * from.row + left * from.column;
    filter_columns(how, first, from.row, bytes, to);
  } else if (how.is_down_first) {
    const int64_t rows = how.down.end() - how.down.begin();
    const Target between = rows_between(rows, how.along.axis().from() * to.column);
    filter_columns(how, from.data + lines.first * from.row, from.row, between.row, between);
    make_rows(how, {between.data, between.row, between.column, between.channels}, {0, rows}, to);
  } else {
    const Target between = rows_between(lines.count, bytes);
    make_rows(how, from, lines, between);
    filter_columns(how, between.data, between.row, bytes, to);
  }
}

void check(const at::Tensor& images, int64_t height, int64_t width, const Rectangle& window) {
  if (images.scalar_type() != at::kByte) {
    throw Error("ERR_SENET_DTYPE",
                std::string("resize: expected uint8 images, got ") + dtype_name(images.scalar_type()));
  }
  if (!images.is_cpu() || images.layout() != at::kStrided) {
    throw Error("ERR_SENET_DEVICE",
                "resize: expected uint8 images on cpu, got them on " + device_name(images.device()));
  }
  const bool is_shaped = images.dim() == 4 && is_side(images.size(2)) && is_side(images.size(3));
  if (!is_shaped) {
    throw Error("ERR_SENET_SHAPE",
                "resize: expected images of N x C x H x W with pixels, got " + shape_text(images.sizes()));
  }
  if (!is_side(height) || !is_side(width) || !is_within(window.top, window.height, height) ||
      !is_within(window.left, window.width, width)) {
    throw Error("ERR_SENET_ARG_RANGE", "resize: expected a part of an image of at least a pixel, got " +
                                           shape_text({window.height, window.width}) + " from " +
                                           shape_text({window.top, window.left}) + " on of " +
                                           shape_text({height, width}));
  }
}

}  // namespace

Filter parse_filter(std::string_view name) {
  if (name == "bilinear") {
    return Filter::kBilinear;
  }
  if (name == "bicubic") {
    return Filter::kBicubic;
  }
  throw Error("ERR_SENET_ARG_RANGE", "interpolation: expected bilinear or bicubic, got " + std::string(name));
}

at::Tensor resize(const at::Tensor& images, int64_t height, int64_t width, const Rectangle& window,
                  Filter filter, Instructions instructions) {
  check(images, height, width, window);
  const int64_t channels = images.size(1);
  const bool is_column = images.size(3) == 1;  // whose stride says nothing
  const bool is_interleaved = (channels == 3 || channels == 4) && images.stride(1) == 1 &&
                              (is_column || images.stride(3) == channels);
  const int64_t together = is_interleaved ? channels : 1;
  const int64_t column = is_column ? together : images.stride(3);
  const bool down_first = is_down_first(images.size(2), images.size(3), height);
  if (down_first && column != together) {
    return resize(images.contiguous(), height, width, window, filter, instructions);
  }
  at::Tensor result =
      at::empty({images.size(0), channels, window.height, window.width},
                at::TensorOptions().dtype(at::kByte).memory_format(
                    is_interleaved ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous));
  const Loops loops = choose_loops(together, instructions);
  const Resizing how{
      Pass({images.size(2), height, filter}, window.top, window.top + window.height, loops.column_group),
      Pass({images.size(3), width, filter}, window.left, window.left + window.width, loops.row_group), loops,
      down_first};
  const auto* const from = images.const_data_ptr<uint8_t>();
  auto* const to = result.mutable_data_ptr<uint8_t>();
  const int64_t planes = channels / together;
  // One plane has all threads; of more, each has one.
  at::parallel_for(0, images.size(0) * planes, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t image = i / planes;
      const int64_t channel = i % planes;
      resize_plane(
          how,
          {from + image * images.stride(0) + channel * images.stride(1), images.stride(2), column, together},
          {to + i * window.height * window.width * together, window.width * together, together, together});
    }
  });
  return result;
}

}  // namespace senet::vision
