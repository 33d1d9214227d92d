// Indices that a kernel on a device takes on trust. On the CPU an operator refuses one that is out of range;
// on a GPU the kernel asserts, and the device is lost to the process. To look at indices that lie on a device
// would mean to wait for it, so what is checked is what came from here: the least and the greatest of
// integers are noted when they are copied to a device, and hold as long as nothing changes the copy in place.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <cstdint>
#include <optional>
#include <utility>

namespace senet::addon {

/// Notes what `copy`, on a device, was made from: `source`, on the CPU. Nothing for other devices, or dtypes
/// that are no indices.
void note_indices(const at::Tensor& copy, const at::Tensor& source);

/// The least and the greatest of the integers of a tensor on a device that are not `ignored`; none if nothing
/// is known of them, or there are none.
std::optional<std::pair<int64_t, int64_t>> known_range(const at::Tensor& tensor,
                                                       std::optional<int64_t> ignored);

/// Throws ERR_SENET_ARG_RANGE if an argument of this call is known to hold an index that is out of range.
void check_index_arguments(const c10::OperatorHandle& op, const torch::jit::Stack& stack);

}  // namespace senet::addon
