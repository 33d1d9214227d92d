#include "graph/collective.h"

#include <mutex>

namespace senet::graph {
namespace {

std::mutex mutex;

// Leaked: a forward may look here while the process ends.
std::shared_ptr<Collective>& current() {
  static auto* collective = new std::shared_ptr<Collective>();
  return *collective;
}

}  // namespace

std::shared_ptr<Collective> collective() {
  const std::lock_guard lock(mutex);
  return current();
}

void set_collective(std::shared_ptr<Collective> collective) {
  const std::lock_guard lock(mutex);
  current() = std::move(collective);
}

}  // namespace senet::graph
