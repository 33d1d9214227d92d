// Built and linked while a build is configured, never into the addon: whether this LibTorch has the c10d that the files of
// this folder use.
#include "distributed/reducer.h"

#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

int main(int count, char**) {
  if (count > 100) {  // linked, not run
    c10d::TCPStore store("localhost");
    auto options = c10d::ProcessGroupGloo::Options::create_default();
    static_cast<gloo::transport::tcp::Pair*>(nullptr)->signalExceptionExternal("");
    senet::distributed::make_reducer({}, std::get<0>(c10d::compute_bucket_assignment_by_size({}, {})), {});
    return store.getPort() + options->threads;
  }
  return 0;
}
