// The vector kernels of compiled models, as tables of what the source of each instruction set compiles, of
// which kernel_sets.h makes the sets. Plain pointers and sizes only: those sources are compiled with other
// machine flags than the rest, so that they must share no inline function with it (a linker keeps one copy of
// each, and it might be the one that this processor cannot run). For the same reason they include nothing of
// LibTorch and little of the standard library.
//
// Layout. Activations are channels-last with the channels padded to a multiple of `kChannelBlock` and a
// border of zeros around each image as wide as the padding of the convolutions that read it; so a convolution
// has no special case at the edges, and the elements under one row of its window lie side by side in memory.
// Weights are packed in panels of 1 to `max_vectors` vectors of output channels, see pack_panel.
#pragma once

#include <cstdint>

namespace senet::inference {

/// Channels of an activation are padded with zeros to a multiple of this.
inline constexpr int64_t kChannelBlock = 16;

/// Multiply-adds to one float32 sum, after which a new one begins (the error of a sum grows with the square
/// root of their number): enough that carrying the sums costs nothing beside them.
inline constexpr int64_t kCarryAfter = 256;
/// Where each weight is used once, so that reading the weights takes longer than that.
inline constexpr int64_t kCarryAfterOfVectors = 32;
/// Where an image has few values: their errors do not cancel each other, and they cost little.
inline constexpr int64_t kCarryAfterOfFew = 8;
inline constexpr int64_t kFewValues = 2048;

/// Columns of a window that the kernel for groups walks together.
inline constexpr int32_t kTapsAbreast = 3;

/// What an activation's numbers are.
enum class Element : uint8_t { kFloat, kBfloat16, kByte };

/// What a byte means: scale * (byte - zero).
struct Quantization {
  float scale = 1.0f;
  int32_t zero = 0;  // 0 to 255
};

/// How what was computed becomes an output of bytes (byte kernels, and float32's that write bytes). All is
/// counted in steps of the output's scale, so that the byte is `y` itself, rounded to the nearest even, at
/// least `least` and at most 255; NaN becomes `least`. An output of float32 has the scale 1 and the zero 0.
struct ToBytes {
  float factor = 1.0f;        // of what is in real units: 1 / the output's scale
  float offset = 0.0f;        // is added: the output's zero less what the residual's comes to
  float least = 0.0f;         // the output's zero where there is a ReLU, else 0; of float32 -infinity
  float input_factor = 1.0f;  // scale of the input / the output's
  float input_zero = 0.0f;
  float residual_factor = 1.0f;  // as of the input
};

enum class Activation : uint8_t { kNone, kRelu, kSigmoid };

/// Windows whose elements a matrix unit multiplies at a time: the rows of a tile.
inline constexpr int64_t kTileRows = 16;

/// How a matrix unit walks the windows of a convolution (matrix_unit.h). A run is a row of windows, each
/// ConvTask::input_strides.column behind the one before, of which any kTileRows neighbours are a tile.
struct TileRuns {
  int64_t step_bytes = 0;  // of a tap, that one multiplication takes; 0: the layer does not suit the unit
  int64_t length = 0;      // windows of a run, at least kTileRows
  // Windows from one row of the output to the next: all of the image is one run, and those between the end of
  // a row and the beginning of the next are computed for nothing. 0: each row is a run of its own.
  int64_t pitch = 0;
};

/// Elements from one row and one column to the next.
struct Strides {
  int64_t row = 0;
  int64_t column = 0;
};

/// Pixels [first, last) of one image's output, in the order of rows, for one panel of output channels:
///   y = activation(scale * (weights . window + bias) + residual);  sums += y over the pixels;  output = y
/// Elements are float or bfloat16 as the kernel says; bias and scale are always float, sums float64.
struct ConvTask {
  const void* input;      // window of pixel (0, 0)
  Strides input_strides;  // between the windows of neighbouring output pixels
  const int64_t* taps;    // element offset of each row of the window
  int64_t tap_count;
  int64_t tap_length;    // elements of a row of the window; even for bfloat16
  int64_t carry_after;   // kCarryAfter, or another number
  const void* weights;   // [tap][element][channel], bfloat16: [tap][element / 2][channel][2]
  const float* bias;     // per channel of the panel, as everything below
  const float* scale;    // may be null: 1
  const void* residual;  // pixel (0, 0); may be null: 0
  Strides residual_strides;
  double* sums;  // may be null
  void* output;  // pixel (0, 0); may be null
  Strides output_strides;
  bool prefetch_output;  // worth it where few products are made for each output
  bool output_is_float;  // also when the elements are others
  bool output_is_byte;   // also when the elements are float
  Activation activation;
  int32_t vectors;  // of the panel
  int64_t width;    // pixels of a row of the output
  int64_t first;
  int64_t last;

  // For group_convolution alone.
  const int32_t* lanes;  // of each channel of the panel, where in a tap's elements those of its group begin,
                         // in the kernel's pairs for bfloat16; null: at the first
  int32_t taps_abreast;  // kTapsAbreast, if as many taps in a row are as far apart as the windows of
                         // neighbouring output pixels, else 1

  // Of bytes, whose weights are int8, [tap][element / 4][channel][4]: sums of products begin with `start`,
  // and
  //   y = scale * (multiplier * sum + bias) + residual_factor * residual + offset
  // with `sums` those of the bytes, where the output is bytes.
  const int32_t* start;     // less the input's zero times the weights
  const float* multiplier;  // input scale * weight scale / output scale
  ToBytes to_bytes;         // also of float with an output of bytes

  TileRuns runs;  // for tile_convolution alone
};

/// Pixels [first, last) of one image, `channels` (a multiple of kChannelBlock) each:
///   y = activation(scale * input + shift + residual);  sums += y;  output = y
struct ScaleTask {
  const void* input;
  Strides input_strides;
  const float* scale;    // may be null: 1
  const float* shift;    // may be null: 0
  const void* residual;  // may be null: 0
  Strides residual_strides;
  double* sums;  // may be null
  void* output;  // may be null; may be the input
  Strides output_strides;
  Activation activation;  // kNone or kRelu
  int64_t channels;
  int64_t width;
  int64_t first;
  int64_t last;

  // Of the byte kernel, which takes and gives either; `sums` are those of what it gives.
  bool input_is_float;
  bool residual_is_float;
  bool output_is_float;
  ToBytes to_bytes;
};

/// Pixels [first, last) of one image: the maximum, or the sum times `factor`, of the part of each window that
/// lies in the image; then shift and activation.
struct PoolTask {
  const void* input;  // pixel (0, 0), without the border
  Strides input_strides;
  int64_t input_height;
  int64_t input_width;
  int64_t kernel;
  int64_t stride;
  int64_t padding;
  bool maximum;            // else the mean
  bool count_include_pad;  // of a mean: of the padding's zeros too
  const float* shift;      // may be null: 0
  Activation activation;   // kNone or kRelu
  void* output;
  Strides output_strides;
  int64_t channels;  // a multiple of kChannelBlock
  int64_t width;
  int64_t first;
  int64_t last;

  // Of the byte kernel.
  bool output_is_float;
  ToBytes to_bytes;
};

/// Rows [first, last) of one image: float planes with any strides become pixels of `pixel_channels` elements.
struct LoadTask {
  const float* input;
  int64_t channel_stride;
  int64_t row_stride;
  int64_t column_stride;
  void* output;  // pixel (0, 0)
  Strides output_strides;
  int64_t channels;
  int64_t pixel_channels;  // at least `channels`; the rest become zeros
  int64_t width;
  int64_t first;
  int64_t last;
  ToBytes to_bytes;  // of the byte kernel
};

/// Tiles [first, last) of one image's output, each 2 x 2 pixels, in the order of rows: their 4 x 4 windows of
/// the input, transformed for Winograd's minimal filtering (cpu/winograd.h), float32. Channels go in blocks
/// of kChannelBlock: coefficient k of a tile's block b lies at coefficients[k * plane + b * block + (tile -
/// first) * kChannelBlock].
struct WinogradInputTask {
  const float* input;  // window of tile (0, 0), which begins `padding` pixels before pixel (0, 0)
  Strides input_strides;
  int64_t rows;  // of pixels from there on that may be read, and columns: what lies beyond does not matter
  int64_t columns;
  float* coefficients;
  int64_t plane;
  int64_t block;
  int64_t channels;  // a multiple of kChannelBlock
  int64_t width;     // tiles of a row
  int64_t first;
  int64_t last;
};

/// The products of one coefficient for a panel of output channels: for each tile, weights . input channels.
struct WinogradProductTask {
  const float* coefficients;  // as above, of the first tile
  int64_t block;
  int64_t blocks;        // of input channels
  const float* weights;  // [channel of the input][channel of the panel]
  int32_t vectors;       // of the panel
  float* products;       // of the first tile
  int64_t pitch;         // floats from one tile's products to the next's
  int64_t tiles;
};

/// The way back, for some of the output channels: y = activation(what the products give + bias); sums += y;
/// output = y. Coefficient k of a tile's channel lies at products[k * plane + (tile - first) * pitch +
/// channel].
struct WinogradOutputTask {
  const float* products;
  int64_t plane;
  int64_t pitch;
  const float* bias;
  Activation activation;  // kNone or kRelu
  double* sums;           // may be null
  float* output;          // pixel (0, 0); may be null
  Strides output_strides;
  int64_t output_height;
  int64_t output_width;
  int64_t channels;  // a multiple of a vector's
  int64_t width;     // tiles of a row
  int64_t first;
  int64_t last;
};

/// What `convolution` does, by a matrix unit, for tasks whose `runs` suit it, of the same packed weights. A
/// thread prepares the unit for a layer before its first task, and releases it after the last: nothing else
/// on the thread may use the unit meanwhile.
struct TileKernels {
  void (*begin)(const ConvTask&) noexcept;
  void (*convolution)(const ConvTask&) noexcept;
  void (*end)() noexcept;
};

/// The kernels for one element type.
struct ElementKernels {
  void (*convolution)(const ConvTask&) noexcept;
  // Of a panel of one vector, whose channels belong to several groups (`lanes`): `tap_length` elements of
  // each are multiplied, and a vector of elements is read at each tap. Of one group: only with kTapsAbreast.
  void (*group_convolution)(const ConvTask&) noexcept;
  void (*scale)(const ScaleTask&) noexcept;
  void (*pool)(const PoolTask&) noexcept;
  void (*load)(const LoadTask&) noexcept;
  void (*winograd_input)(const WinogradInputTask&) noexcept;  // these three are null for bfloat16
  void (*winograd_products)(const WinogradProductTask&) noexcept;
  void (*winograd_output)(const WinogradOutputTask&) noexcept;
  const TileKernels* tiles = nullptr;  // null without a matrix unit
};

/// sums += left . right, all float64: [rows, columns] += [rows, inner] . [inner, columns].
struct ProductTask {
  const double* left;   // contiguous
  const double* right;  // contiguous
  double* sums;
  int64_t sums_pitch;  // doubles from one row to the next
  int64_t rows;
  int64_t inner;
  int64_t columns;
};

// --- what the sources of the instruction sets compile, each with the flags of its own; null where the
// compiler had no such instructions

/// float32 and bytes.
struct VectorKernels {
  int32_t vector_channels;
  int32_t max_vectors;
  ElementKernels float32;
  ElementKernels bytes;
  void (*multiply_add)(const ProductTask&) noexcept;
};
const VectorKernels* scalar_vectors();
const VectorKernels* avx2_vectors();
const VectorKernels* avx512_vectors();

/// Beside those, for processors with more.
const ElementKernels* avx512_bfloat16();
const ElementKernels* avx512_vnni_bytes();
const ElementKernels* avx2_vnni_bytes();
const ElementKernels* scalar_bfloat16();

struct UnitKernels {
  TileKernels bfloat16;
  TileKernels bytes;
};
const UnitKernels* amx_unit();
/// For any processor: the code of AMX's, over a unit that is computed, exactly and slowly.
const UnitKernels* emulated_unit();

}  // namespace senet::inference
