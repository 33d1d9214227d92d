// Operators that ops.call does not run, each group with its reason.
#pragma once

#include <string>

namespace senet::addon {

/// Why the operator (its name without overload, "aten::set_") is refused; empty if it is not.
std::string refusal(const std::string& name);

}  // namespace senet::addon
