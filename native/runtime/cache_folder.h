// Where this library keeps what it can make again.
#pragma once

#include <string>

namespace senet::runtime {

/// The folder `name` in SENET_HOME, else in `senet-torch` of the user's cache; made if it is not there. Empty
/// where there is none and none can be made.
std::string cache_folder(const std::string& name);

}  // namespace senet::runtime
