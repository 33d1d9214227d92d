#include "addon/refused_operators.h"

#include <map>
#include <string_view>

namespace senet::addon {
namespace {

// Reasons end the sentence "'aten::set_' is refused: ...". Names are those of LibTorch 2.13, without
// overload.
constexpr std::string_view kFile = "it opens files";
constexpr std::string_view kStorage =
    "it changes what storage a tensor views, which other tensors and running jobs rely on";
constexpr std::string_view kPinned = "it needs a pinned or foreign allocation";
// Seen to end the process in scripts/fuzz-operators.js, which lists them anew.
constexpr std::string_view kCrashes = "it crashes the process on some arguments instead of checking them";

const std::map<std::string_view, std::string_view>& refusals() {
  static const auto* table = new std::map<std::string_view, std::string_view>{
      {"aten::from_file", kFile},

      {"aten::_reshape_alias", kStorage},
      {"aten::_resize_output", kStorage},
      {"aten::_resize_output_", kStorage},
      {"aten::as_strided", kStorage},
      {"aten::as_strided_", kStorage},
      {"aten::as_strided_copy", kStorage},
      {"aten::as_strided_scatter", kStorage},
      {"aten::resize", kStorage},
      {"aten::resize_", kStorage},
      {"aten::resize_as", kStorage},
      {"aten::resize_as_", kStorage},
      {"aten::resize_as_sparse", kStorage},
      {"aten::resize_as_sparse_", kStorage},
      {"aten::set", kStorage},
      {"aten::set_", kStorage},
      {"aten::set_data", kStorage},
      {"aten::sparse_resize", kStorage},
      {"aten::sparse_resize_", kStorage},
      {"aten::sparse_resize_and_clear", kStorage},
      {"aten::sparse_resize_and_clear_", kStorage},

      {"aten::_pin_memory", kPinned},
      {"aten::pin_memory", kPinned},

      {"_quantized::linear_prepack_fp16", kCrashes},
      {"aten::_cholesky_solve_helper", kCrashes},
      {"aten::_convert_indices_from_coo_to_csr", kCrashes},
      {"aten::_dyn_quant_matmul_4bit", kCrashes},
      {"aten::_efficientzerotensor", kCrashes},
      {"aten::_fft_r2c", kCrashes},
      {"aten::_foreach_copy", kCrashes},
      {"aten::_nested_from_padded", kCrashes},
      {"aten::_new_zeros_with_same_feature_meta", kCrashes},
      {"aten::_nnpack_spatial_convolution", kCrashes},
      {"aten::_remove_batch_dim", kCrashes},
      {"aten::_slow_conv2d_backward", kCrashes},
      {"aten::_sobol_engine_initialize_state_", kCrashes},
      {"aten::_stack", kCrashes},
      {"aten::_thnn_differentiable_gru_cell_backward", kCrashes},
      {"aten::_thnn_differentiable_lstm_cell_backward", kCrashes},
      {"aten::_transform_bias_rescale_qkv", kCrashes},
      {"aten::_weight_norm", kCrashes},
      {"aten::fbgemm_pack_gemm_matrix_fp16", kCrashes},
      {"aten::quantized_lstm_cell", kCrashes},
      {"aten::range", kCrashes},
      {"aten::reflection_pad1d_backward", kCrashes},
      {"aten::reflection_pad2d_backward", kCrashes},
      {"mkldnn::_reorder_convolution_transpose_weight", kCrashes},
      {"mkldnn::_reorder_mkldnn_rnn_layer_weight", kCrashes},
      {"onednn::linear_prepack_fp16", kCrashes},
      {"quantized::make_quantized_cell_params", kCrashes},
  };
  return *table;
}

}  // namespace

std::string refusal(const std::string& name) {
  if (name.find("unsafe") != std::string::npos) {
    return "it skips the checks that memory safety needs";
  }
  const auto found = refusals().find(name);
  return found == refusals().end() ? "" : std::string(found->second);
}

}  // namespace senet::addon
