// Numbers from a device to the host without a thread that waits for them: copied behind what was enqueued
// before, into memory that the device writes by itself. Knows no LibTorch.
#pragma once

#include "runtime/cuda_driver.h"

#include <cstddef>
#include <exception>
#include <functional>

namespace senet::inference::cuda {

using namespace runtime::cuda;

/// Called once, on any thread: the bytes, valid until it returns, or what went wrong.
using Downloaded = std::function<void(const void* data, std::exception_ptr failure)>;

/// Copies `bytes` from `from` on `device`, in the order of the default stream. `from` stays until then.
/// Throws nothing. `driver` is for ever.
void download(const Driver& driver, int device, const void* from, size_t bytes, Downloaded done);

/// Gives the memory that is kept for the next downloads back: for tests.
void drop_download_memory(const Driver& driver);

}  // namespace senet::inference::cuda
