#include "core/names.h"

#include "core/error.h"

#include <array>
#include <utility>

namespace senet {
namespace {

constexpr std::array<std::pair<const char*, c10::ScalarType>, 10> kDtypes{{
    {"float32", c10::ScalarType::Float},
    {"float64", c10::ScalarType::Double},
    {"float16", c10::ScalarType::Half},
    {"bfloat16", c10::ScalarType::BFloat16},
    {"int64", c10::ScalarType::Long},
    {"int32", c10::ScalarType::Int},
    {"int16", c10::ScalarType::Short},
    {"int8", c10::ScalarType::Char},
    {"uint8", c10::ScalarType::Byte},
    {"bool", c10::ScalarType::Bool},
}};

}  // namespace

const char* dtype_name(c10::ScalarType dtype) {
  for (const auto& [name, value] : kDtypes) {
    if (value == dtype) {
      return name;
    }
  }
  throw Error("ERR_SENET_DTYPE",
              std::string("the dtype ") + c10::toString(dtype) + " has no counterpart here");
}

bool is_dtype_name(std::string_view name) {
  for (const auto& [known, value] : kDtypes) {
    if (name == known) {
      return true;
    }
  }
  return false;
}

c10::ScalarType parse_dtype(std::string_view name) {
  for (const auto& [known, value] : kDtypes) {
    if (name == known) {
      return value;
    }
  }
  std::string message = "expected a dtype (";
  for (const auto& [known, value] : kDtypes) {
    message += std::string(known) + (value == kDtypes.back().second ? "" : ", ");
  }
  throw Error("ERR_SENET_DTYPE", message + "), got '" + std::string(name) + "'");
}

std::string device_name(const c10::Device& device) {
  return device.str();
}

c10::MemoryFormat parse_memory_format(std::string_view name) {
  if (name == "contiguous") {
    return c10::MemoryFormat::Contiguous;
  }
  if (name == "channels_last") {
    return c10::MemoryFormat::ChannelsLast;
  }
  if (name == "preserve") {
    return c10::MemoryFormat::Preserve;
  }
  throw Error("ERR_SENET_ARG_RANGE", "expected a memory format (contiguous, channels_last, preserve), got '" +
                                         std::string(name) + "'");
}

std::string shape_text(c10::IntArrayRef shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  }
  return text + "]";
}

}  // namespace senet
