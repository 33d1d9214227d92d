// The public names of dtypes, devices and memory formats, and their LibTorch values.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/MemoryFormat.h>
#include <c10/core/ScalarType.h>

#include <string>
#include <string_view>

namespace senet {

/// The name of a dtype ("float32"); throws ERR_SENET_DTYPE for one that the library does not have.
const char* dtype_name(c10::ScalarType dtype);
/// The dtype of a name; throws ERR_SENET_DTYPE.
c10::ScalarType parse_dtype(std::string_view name);
bool is_dtype_name(std::string_view name);

/// "cpu", "cuda:0".
std::string device_name(const c10::Device& device);
/// "contiguous", "channels_last" or "preserve"; throws ERR_SENET_ARG_RANGE.
c10::MemoryFormat parse_memory_format(std::string_view name);

/// "[2, 3, 224, 224]", for messages.
std::string shape_text(c10::IntArrayRef shape);

}  // namespace senet
