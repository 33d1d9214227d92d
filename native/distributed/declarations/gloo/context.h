// gloo::Context: the connections of a group. Only called and held by pointer, never laid out here.
#pragma once

#include "gloo/transport/device.h"

#include <chrono>
#include <memory>

namespace gloo {

class Context {
 public:
  std::unique_ptr<transport::Pair>& getPair(int rank);
  void setTimeout(std::chrono::milliseconds timeout);
};

}  // namespace gloo
