// In place of the other files of this folder, where LibTorch was built without c10d or gloo, or has another
// c10d than these are written for.
#ifndef SENET_HAS_C10D

#include "core/error.h"
#include "distributed/data_parallel.h"
#include "distributed/process_group.h"

namespace senet::distributed {

std::string absence(Carrier) {
  return "the LibTorch that this was built with has no c10d with gloo, or another one than that of PyTorch "
         "2.13";
}

std::shared_ptr<ProcessGroup> connect(const Rendezvous&, const Stop&) {
  throw Error("ERR_SENET_DISTRIBUTED_UNAVAILABLE", absence(Carrier::kGloo));
}

std::shared_ptr<DataParallel> make_data_parallel(const std::shared_ptr<ProcessGroup>&, DataParallelOptions) {
  throw Error("ERR_SENET_DISTRIBUTED_UNAVAILABLE", absence(Carrier::kGloo));
}

}  // namespace senet::distributed

#endif
