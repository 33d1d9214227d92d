// A ProcessGroup on c10d's, for the files of this folder that use c10d themselves.
#pragma once

#include "distributed/process_group.h"

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

namespace senet::distributed {

/// The c10d group behind one that connect() gave.
c10::intrusive_ptr<c10d::ProcessGroup> c10d_group(const ProcessGroup& group);

}  // namespace senet::distributed
