#include "addon/refused_operators.h"

#include <array>
#include <string_view>

namespace senet::addon {
namespace {

struct Group {
  std::string_view reason;
  std::array<std::string_view, 24> names;
};

constexpr std::array kGroups{
    Group{"it opens files", {"aten::from_file", "aten::_save_for_backward"}},
    Group{"it changes what storage a tensor views, which other tensors and running jobs rely on",
          {"aten::set_", "aten::set", "aten::resize_", "aten::resize", "aten::resize_as_", "aten::resize_as",
           "aten::resize_as_sparse_", "aten::as_strided", "aten::as_strided_", "aten::as_strided_copy",
           "aten::as_strided_scatter", "aten::set_data", "aten::_reshape_alias", "aten::_resize_output_",
           "aten::_resize_output", "aten::sparse_resize_", "aten::sparse_resize_and_clear_",
           "aten::swap_storage"}},
    Group{"it needs a pinned or foreign allocation", {"aten::pin_memory", "aten::_pin_memory"}},
};

}  // namespace

std::string refusal(const std::string& name) {
  if (name.find("unsafe") != std::string::npos) {
    return "it skips the checks that memory safety needs";
  }
  for (const Group& group : kGroups) {
    for (const std::string_view refused : group.names) {
      if (!refused.empty() && name == refused) {
        return std::string(group.reason);
      }
    }
  }
  return "";
}

}  // namespace senet::addon
