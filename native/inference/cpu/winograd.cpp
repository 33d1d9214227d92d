#include "inference/cpu/winograd.h"

#include <algorithm>

namespace senet::inference {
namespace {

// Coefficients and products of a chunk: about half of a core's second-level cache.
constexpr int64_t kTileBytes = 512 * 1024;
// Tiles that make reading a panel's weights worth it.
constexpr int64_t kLeastTiles = 24;
// With fewer tiles for each member than this, members share out the panels, and all transform the input.
constexpr int64_t kFewTiles = 2 * kLeastTiles;
constexpr int64_t kLeastChannels = 16;
constexpr int64_t kMostWeights = 320 * 256;
// Where a plane of one coefficient is a power of two long, the 16 would fall on the same few lines of the
// cache.
constexpr int64_t kPlanePadding = 16;

int64_t tiles_of(int64_t size) {
  return (size + 1) / 2;
}

// One member's part of a step.
struct Chunks {
  int64_t tiles;     // of a chunk at most
  int64_t in_plane;  // floats from one coefficient to the next
  int64_t out_plane;
  int64_t out_pitch;  // floats of a tile's products
};

Chunks plan_chunks(int64_t in_pixel, int64_t out_channels) {
  Chunks chunks{};
  chunks.out_pitch = padded_channels(out_channels);
  const int64_t tile_bytes =
      kWinogradCoefficients * (in_pixel + chunks.out_pitch) * static_cast<int64_t>(sizeof(float));
  chunks.tiles = std::max(kLeastTiles, kTileBytes / tile_bytes);
  chunks.in_plane = chunks.tiles * in_pixel + kPlanePadding;
  chunks.out_plane = chunks.tiles * chunks.out_pitch + kPlanePadding;
  return chunks;
}

}  // namespace

int64_t winograd_scratch_bytes(const ConvolutionStep& step, const Layout& layout) {
  const Chunks chunks = plan_chunks(layout.buffers[static_cast<size_t>(step.input)].pixel, step.out_channels);
  return kWinogradCoefficients * (chunks.in_plane + chunks.out_plane) * static_cast<int64_t>(sizeof(float));
}

void run_winograd(const ConvolutionStep& step, const Work& work) noexcept {
  const BufferLayout& in = work.buffer_layout(step.input);
  const BufferLayout& out = work.buffer_layout(step.panels.front().output);
  const Chunks chunks = plan_chunks(in.pixel, step.out_channels);
  const int64_t tile_columns = tiles_of(out.width);
  const int64_t image_tiles = tiles_of(out.height) * tile_columns;
  const int64_t tiles = image_tiles * (work.last - work.first);
  const auto [first_panel, last_panel, first_tile, last_tile] = share_out(
      work.team, static_cast<int64_t>(step.panels.size()), tiles, kFewTiles, /*may_be_uneven=*/false);

  for (int64_t image = work.first; image < work.last; ++image) {
    if (step.sums != kNoBuffer) {
      work.clear_partial_sums(step.sums, image);
    }
  }

  auto* const coefficients = reinterpret_cast<float*>(work.scratch);
  float* const products = coefficients + kWinogradCoefficients * chunks.in_plane;
  const uint8_t* packed = step.weights.const_data_ptr<uint8_t>();
  // Calls `body` for the tiles of each image among [begin, end): image, its first and last tile, and where
  // they stand in the chunk.
  const auto for_each_image = [&](int64_t begin, int64_t end, const auto& body) {
    for (int64_t tile = begin; tile < end;) {
      const int64_t image = tile / image_tiles;
      const int64_t first = tile % image_tiles;
      const int64_t last = std::min(image_tiles, first + end - tile);
      body(work.first + image, first, last, tile - begin);
      tile += last - first;
    }
  };

  WinogradInputTask load{};
  load.input_strides = {in.row, in.pixel};
  load.rows = in.height + 2 * step.padding[0];
  load.columns = in.width + 2 * step.padding[1];
  load.plane = chunks.in_plane;
  load.block = chunks.tiles * kChannelBlock;
  load.channels = in.pixel;
  load.width = tile_columns;

  WinogradProductTask multiply{};
  multiply.block = load.block;
  multiply.blocks = in.pixel / kChannelBlock;
  multiply.pitch = chunks.out_pitch;

  WinogradOutputTask store_task{};
  store_task.plane = chunks.out_plane;
  store_task.pitch = chunks.out_pitch;
  store_task.output_height = out.height;
  store_task.output_width = out.width;
  store_task.width = tile_columns;

  const int64_t count = (last_tile - first_tile + chunks.tiles - 1) / chunks.tiles;
  int64_t from = first_tile;
  for (int64_t chunk = 0; chunk < count; ++chunk) {
    const int64_t to = first_tile + (last_tile - first_tile) * (chunk + 1) / count;
    for_each_image(from, to, [&](int64_t image, int64_t first, int64_t last, int64_t at) {
      load.input = reinterpret_cast<const float*>(work.image(step.input, image)) +
                   (in.border[0] - step.padding[0]) * in.row + (in.border[1] - step.padding[1]) * in.pixel;
      load.coefficients = coefficients + at * kChannelBlock;
      load.first = first;
      load.last = last;
      step.kernels->winograd_input(load);
    });
    multiply.tiles = to - from;
    for (int64_t k = 0; k < kWinogradCoefficients; ++k) {
      multiply.coefficients = coefficients + k * chunks.in_plane;
      for (int64_t i = first_panel; i < last_panel; ++i) {
        const Panel& panel = step.panels[static_cast<size_t>(i)];
        multiply.vectors = panel.vectors;
        multiply.weights =
            reinterpret_cast<const float*>(packed + panel.weight_offset + k * step.coefficient_bytes);
        multiply.products = products + k * chunks.out_plane + panel.channel;
        step.kernels->winograd_products(multiply);
      }
    }
    for_each_image(from, to, [&](int64_t image, int64_t first, int64_t last, int64_t at) {
      for (int64_t i = first_panel; i < last_panel; ++i) {
        const Panel& panel = step.panels[static_cast<size_t>(i)];
        const BufferLayout& target = work.buffer_layout(panel.output);
        store_task.products = products + at * chunks.out_pitch + panel.channel;
        store_task.bias = step.bias.data() + panel.channel;
        store_task.activation = panel.activation;
        store_task.sums =
            step.sums == kNoBuffer ? nullptr : work.partial_sums(step.sums, image) + panel.channel;
        store_task.output =
            step.store ? reinterpret_cast<float*>(work.pixels(panel.output, image, panel.output_channel))
                       : nullptr;
        store_task.output_strides = {target.row, target.pixel};
        store_task.channels = panel.vectors * step.vector_channels;
        store_task.first = first;
        store_task.last = last;
        step.kernels->winograd_output(store_task);
      }
    });
    from = to;
  }
}

bool suits_winograd(const ElementKernels& kernels, graph::Size2 window, graph::Size2 stride,
                    int64_t in_channels, int64_t out_channels) {
  return kernels.winograd_input != nullptr && window == graph::Size2{3, 3} && stride == graph::Size2{1, 1} &&
         in_channels >= kLeastChannels && out_channels >= kLeastChannels &&
         in_channels * out_channels <= kMostWeights;
}

}  // namespace senet::inference
