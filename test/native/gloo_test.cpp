// The few types of gloo that native/distributed/declarations declares, against the library: what is laid out
// by them here is as large as what the library lays out by gloo's own headers, and their functions are the
// library's.
#ifdef SENET_HAS_C10D

#include <torch/csrc/distributed/c10d/HashStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include <malloc.h>

#include <string>
#include <thread>
#include <typeinfo>

// LibTorch's logging has one too, which ends the process.
#undef CHECK
#include "doctest/doctest.h"

namespace {

using c10d::ProcessGroupGloo;

// Whose contexts can be reached.
class OpenGloo : public ProcessGroupGloo {
 public:
  using ProcessGroupGloo::ProcessGroupGloo;
  // As gloo_group.cpp ends the connection to the other of two.
  void close() {
    gloo::transport::Pair* pair = contexts_.front()->getPair(1 - getRank()).get();
    REQUIRE(std::string(typeid(*pair).name()) == "N4gloo9transport3tcp4PairE");
    static_cast<gloo::transport::tcp::Pair*>(dynamic_cast<void*>(pair))->signalExceptionExternal("closed");
  }
};

// Of what `new` gave, to what it rounds up at most.
bool is_size_of(const void* object, size_t size) {
  const size_t usable = malloc_usable_size(const_cast<void*>(object));
  return usable >= size && usable < size + 16;
}

c10::intrusive_ptr<ProcessGroupGloo::Options> make_options() {
  return ProcessGroupGloo::Options::create_default(std::chrono::seconds(10));
}

}  // namespace

TEST_CASE("gloo: options and groups are laid out as in the library") {
  const auto options = make_options();
  CHECK(is_size_of(options.get(), sizeof(ProcessGroupGloo::Options)));
  CHECK(options->devices.size() == 1);
  CHECK(options->timeout == std::chrono::seconds(10));

  const auto own = c10::make_intrusive<ProcessGroupGloo>(c10::make_intrusive<c10d::HashStore>(), /*rank=*/0,
                                                         /*size=*/1, options);
  CHECK(own->getSize() == 1);
  const auto parts = make_options();
  const auto by_library = own->split(c10::make_intrusive<c10d::HashStore>(), {0}, parts);
  CHECK(is_size_of(by_library.get(), sizeof(ProcessGroupGloo)));
  CHECK(dynamic_cast<ProcessGroupGloo*>(by_library.get()) != nullptr);
}

TEST_CASE("gloo: who waits for another process fails once the connection is closed") {
  const auto store = c10::make_intrusive<c10d::HashStore>();
  c10::intrusive_ptr<OpenGloo> ranks[2];
  std::thread other([&] { ranks[1] = c10::make_intrusive<OpenGloo>(store, 1, 2, make_options()); });
  ranks[0] = c10::make_intrusive<OpenGloo>(store, 0, 2, make_options());
  other.join();
  std::vector<at::Tensor> values[2] = {{at::ones({3})}, {at::ones({3})}};
  const auto works = {ranks[0]->allreduce(values[0]), ranks[1]->allreduce(values[1])};
  for (const auto& work : works) {
    work->wait();
  }
  CHECK(values[0][0].sum().item<double>() == 6);
  const auto waits = ranks[0]->allreduce(values[0]);
  ranks[0]->close();
  CHECK_THROWS(waits->wait());
}

#endif
