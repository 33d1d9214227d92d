// Weights as the kernels read them (kernels.h): folded in float64, rounded once, and written straight from
// the module's own tensors into the packed panels. Of contiguous float32 weights nothing in between is larger
// than a few hundred kilobytes: the pages of larger temporaries would cost more than what is computed on
// them.
#pragma once

#include "inference/cpu/kernel_sets.h"
#include "inference/plan.h"

#include <cstdint>
#include <vector>

namespace senet::inference {

inline constexpr int64_t kWinogradCoefficients = 16;

/// The channels of an activation with its padding.
inline int64_t padded_channels(int64_t channels) {
  return (channels + kChannelBlock - 1) / kChannelBlock * kChannelBlock;
}

int64_t packed_bytes(int64_t out_channels, int64_t window, int64_t pixel, bool is_float);

/// Splits channels into panels of nearly equal size, at most `max_vectors` each.
std::vector<int32_t> split_panels(int64_t channels, int32_t vector_channels, int32_t max_vectors);

/// How the output channels of a grouped convolution are shared out to panels that each read `slice` channels
/// of the input, from one on: those of the groups that its outputs belong to.
struct Grouping {
  struct Panel {
    int32_t vectors;
    int64_t channel;        // of the output
    int64_t input_channel;  // the first that it reads
  };
  int64_t slice;
  std::vector<Panel> panels;
};

/// The widest panels that read no more than the narrowest. `pixel` channels lie in the input, and what a
/// panel reads begins and ends at multiples of `step`.
Grouping choose_grouping(int64_t groups, int64_t in_channels, int64_t out_channels, int64_t pixel,
                         int64_t step, const Kernels& kernels);

/// The output channels [first, first + count) of a grouped convolution, or as many as there are, as a dense
/// one of the input channels [first_input, first_input + inputs).
Linearised ungroup(const Linearised& linear, int64_t groups, int64_t first, int64_t count,
                   int64_t first_input, int64_t inputs);

/// Packs one panel, the output channels from `first`, with the input's channels (of a group, where there are
/// several) padded to `pixel` and the output's, where fewer than `channels` are left, to these. `to` has room
/// for packed_bytes().
void pack_panel(const Linearised& linear, int64_t first, int64_t pixel, bool is_float, int64_t channels,
                uint8_t* to);

/// As pack_panel, of bytes (ConvTask): `weight` is int8, [out, in, height, width] on the CPU, contiguous.
void pack_byte_panel(const at::Tensor& weight, int64_t first, int64_t pixel, int64_t channels, uint8_t* to);
int64_t packed_byte_bytes(int64_t out_channels, int64_t window, int64_t pixel);
/// The output channels [first, first + count) of a grouped convolution, or as many as there are, as a dense
/// one of int8.
at::Tensor ungroup_bytes(const at::Tensor& weight, int64_t groups, int64_t first, int64_t count,
                         int64_t first_input, int64_t inputs);

/// Packs one panel of a 3 x 3 window for Winograd's step, float32: for each of the kWinogradCoefficients k a
/// panel of a 1 x 1 window at `to + k * coefficient_bytes`.
void pack_winograd_panel(const Linearised& linear, int64_t first, int64_t pixel, int64_t channels,
                         int64_t coefficient_bytes, uint8_t* to);

/// sums += left . right: [rows, in] (float64, contiguous) += [rows, out] . [out, in, 1, 1].
void add_product(const at::Tensor& left, const Linearised& right, const Kernels& kernels,
                 const at::Tensor& sums);

}  // namespace senet::inference
