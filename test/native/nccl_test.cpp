// Collectives on NCCL without NCCL and without a device: ranks are threads, a stand-in of NCCL reduces memory
// of the processor once all have come, and an event has come when what was launched before it is done.
#ifdef SENET_HAS_C10D

#include "core/error.h"
#include "distributed/nccl_backend.h"
#include "distributed/reducer.h"
#include "fake_cuda_driver.h"

#include <torch/torch.h>
#include <torch/csrc/distributed/c10d/HashStore.hpp>

#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

// LibTorch's logging has one too, which ends the process.
#undef CHECK
#include "doctest/doctest.h"

namespace senet::test {
namespace {

using namespace distributed;
using runtime::cuda::Driver;
using runtime::cuda::Event;
using runtime::cuda::Stream;

// What a rank has launched: `run` does it when all have.
struct Launch {
  const void* from;
  void* to;
  Stream stream;
  std::function<void(const std::vector<Launch>&)> run;
  std::string what;
};

struct Rank {
  int rank = -1;
  int size = 0;
  std::vector<Launch> launches;
  bool is_busy = false;  // with a launch that returned at once, until it was asked
  bool is_leaving = false;
};

struct FakeNccl {
  std::mutex mutex;
  std::vector<Rank*> ranks;           // of the one communicator there is
  std::set<Rank*> alive;              // not yet given back
  size_t done = 0;                    // launches that all ranks made
  std::map<Stream, size_t> launched;  // on this stream
  std::map<Event, std::pair<Stream, size_t>> recorded;
  std::set<Stream> waited;  // for the default stream, since the last launch
  int error = 0;            // what the communicator reports of itself
  bool is_slow = false;     // never done with what it began
  int calls = 0;
  int fail_at = -1;
  bool has_failed = false;

  bool goes_well() {
    has_failed |= calls == fail_at;
    return calls++ != fail_at;
  }
};

FakeNccl& fake() {
  static FakeNccl fake;
  return fake;
}

void clear() {
  fake_device().clear();
  const std::lock_guard lock(fake().mutex);
  fake().ranks.clear();
  fake().alive.clear();
  fake().launched.clear();
  fake().recorded.clear();
  fake().waited.clear();
  fake().has_failed = false;
  fake().done = 0;
  fake().error = 0;
  fake().is_slow = false;
  fake().calls = 0;
  fake().fail_at = -1;
}

Rank* rank_of(Communicator communicator) {
  return reinterpret_cast<Rank*>(communicator);
}

int launch(Communicator communicator, Launch one) {
  const std::lock_guard lock(fake().mutex);
  if (!fake().goes_well()) {
    return 1;
  }
  Rank* const own = rank_of(communicator);
  CHECK(!own->is_busy);
  CHECK(fake().waited.erase(one.stream) == 1);
  own->is_busy = true;
  ++fake().launched[one.stream];
  own->launches.push_back(std::move(one));
  while (!fake().is_slow && std::all_of(fake().ranks.begin(), fake().ranks.end(), [](const Rank* rank) {
    return rank->launches.size() > fake().done;
  })) {
    std::vector<Launch> all;
    for (const Rank* rank : fake().ranks) {
      all.push_back(rank->launches[fake().done]);
      CHECK(all.back().what == all.front().what);
    }
    all.front().run(all);
    ++fake().done;
  }
  return kNcclInProgress;  // as a communicator that does not block may
}

at::ScalarType dtype_of(int type) {
  const std::map<int, at::ScalarType> dtypes = {{kNcclInt8, at::kChar},      {kNcclUint8, at::kByte},
                                                {kNcclInt32, at::kInt},      {kNcclInt64, at::kLong},
                                                {kNcclFloat16, at::kHalf},   {kNcclFloat32, at::kFloat},
                                                {kNcclFloat64, at::kDouble}, {kNcclBfloat16, at::kBFloat16}};
  return dtypes.at(type);
}

void reduce(const std::vector<Launch>& all, size_t count, int type, int operation) {
  const auto values = [&](const void* memory) {
    return at::from_blob(const_cast<void*>(memory), {static_cast<int64_t>(count)}, dtype_of(type));
  };
  at::Tensor result = values(all[0].from).clone();
  for (size_t i = 1; i < all.size(); ++i) {
    const at::Tensor other = values(all[i].from);
    result = operation == kNcclProd  ? result * other
             : operation == kNcclMax ? at::maximum(result, other)
             : operation == kNcclMin ? at::minimum(result, other)
                                     : result + other;
  }
  if (operation == kNcclAvg) {
    result = result / static_cast<double>(all.size());
  }
  for (const Launch& one : all) {
    values(one.to).copy_(result);
  }
}

Nccl make_nccl() {
  Nccl nccl;
  nccl.ncclGetUniqueId = [](NcclId* id) -> int {
    const std::lock_guard lock(fake().mutex);
    std::fill(std::begin(id->bytes), std::end(id->bytes), 'n');
    return fake().goes_well() ? 0 : 1;
  };
  nccl.ncclCommInitRankConfig = [](Communicator* communicator, int size, NcclId id, int rank,
                                   NcclConfig* config) -> int {
    const std::lock_guard lock(fake().mutex);
    CHECK(id.bytes[127] == 'n');
    CHECK(config->blocking == 0);
    if (!fake().goes_well()) {
      return 1;
    }
    auto* const made = new Rank{rank, size, {}};
    fake().ranks.push_back(made);
    std::sort(fake().ranks.begin(), fake().ranks.end(),
              [](const Rank* a, const Rank* b) { return a->rank < b->rank; });
    fake().alive.insert(made);
    *communicator = reinterpret_cast<Communicator>(made);
    return kNcclInProgress;
  };
  nccl.ncclCommGetAsyncError = [](Communicator communicator, int* state) -> int {
    const std::lock_guard lock(fake().mutex);
    Rank* const own = rank_of(communicator);
    const bool have_all_come = fake().ranks.size() == static_cast<size_t>(own->size);
    const bool was_busy = std::exchange(own->is_busy, false);
    *state = fake().error != 0 ? fake().error : have_all_come && !was_busy ? kNcclSuccess : kNcclInProgress;
    return fake().goes_well() ? 0 : 1;
  };
  nccl.ncclCommFinalize = [](Communicator communicator) -> int {
    const std::lock_guard lock(fake().mutex);
    rank_of(communicator)->is_leaving = true;
    return fake().goes_well() ? kNcclInProgress : 1;
  };
  nccl.ncclCommDestroy = [](Communicator communicator) -> int {
    const std::lock_guard lock(fake().mutex);
    CHECK(rank_of(communicator)->is_leaving);
    if (!fake().goes_well()) {
      return 1;
    }
    CHECK(fake().alive.erase(rank_of(communicator)) == 1);
    return 0;
  };
  nccl.ncclCommAbort = [](Communicator communicator) -> int {
    const std::lock_guard lock(fake().mutex);
    rank_of(communicator)->launches.clear();  // what was not done never will be
    CHECK(fake().alive.erase(rank_of(communicator)) == 1);
    return 0;
  };
  nccl.ncclAllReduce = [](const void* from, void* to, size_t count, int type, int operation,
                          Communicator communicator, Stream stream) -> int {
    return launch(communicator, {from, to, stream,
                                 [=](const std::vector<Launch>& all) { reduce(all, count, type, operation); },
                                 "all reduce " + std::to_string(count)});
  };
  nccl.ncclBroadcast = [](const void* from, void* to, size_t count, int, int root, Communicator communicator,
                          Stream stream) -> int {
    return launch(communicator, {from, to, stream,
                                 [=](const std::vector<Launch>& all) {
                                   for (const Launch& one : all) {
                                     std::memmove(one.to, all[static_cast<size_t>(root)].from, count);
                                   }
                                 },
                                 "broadcast " + std::to_string(count)});
  };
  nccl.ncclAllGather = [](const void* from, void* to, size_t count, int, Communicator communicator,
                          Stream stream) -> int {
    return launch(communicator, {from, to, stream,
                                 [=](const std::vector<Launch>& all) {
                                   for (const Launch& one : all) {
                                     for (size_t i = 0; i < all.size(); ++i) {
                                       std::memcpy(static_cast<char*>(one.to) + i * count, all[i].from,
                                                   count);
                                     }
                                   }
                                 },
                                 "all gather " + std::to_string(count)});
  };
  nccl.ncclGetErrorString = [](int) { return "an error of the stand-in"; };
  nccl.ncclGetLastError = [](Communicator) { return "its reason"; };
  return nccl;
}

Driver make_driver() {
  Driver driver = fake_driver();
  driver.cudaEventRecord = [](Event event, Stream stream) -> int {
    const int status = fake_driver().cudaEventRecord(event, stream);
    const std::lock_guard lock(fake().mutex);
    fake().recorded[event] = {stream, fake().launched[stream]};
    return status;
  };
  driver.cudaStreamWaitEvent = [](Stream stream, Event event, unsigned) -> int {
    const std::lock_guard lock(fake().mutex);
    fake().waited.insert(stream);
    CHECK(fake().recorded.at(event).first == runtime::cuda::kDefaultStream);
    return fake().goes_well() ? 0 : 1;
  };
  driver.cudaEventQuery = [](Event event) -> int {
    const int status = fake_driver().cudaEventQuery(event);
    const std::lock_guard lock(fake().mutex);
    const bool has_come = fake().recorded.at(event).second <= fake().done;
    return status != 0 ? status : has_come ? 0 : runtime::kCudaErrorNotReady;
  };
  return driver;
}

const Nccl kNccl = make_nccl();
const Driver kDriver = make_driver();

struct World {
  c10::intrusive_ptr<c10d::HashStore> store = c10::make_intrusive<c10d::HashStore>();
  std::atomic<int> looks = 0;
  std::vector<c10::intrusive_ptr<NcclBackend>> ranks;

  explicit World(int size, std::chrono::milliseconds timeout = std::chrono::seconds(20)) {
    for (int rank = 0; rank < size; ++rank) {
      ranks.push_back(c10::make_intrusive<NcclBackend>(NcclBackend::Setup{
          kNccl, kDriver, store, rank, size, timeout, [this](bool look) { looks += look ? 1 : -1; }}));
    }
  }

  // Does it on every rank, on a thread each; gives what each threw.
  std::vector<std::string> on_all(const std::function<void(NcclBackend&, int)>& act) {
    std::vector<std::string> failures(ranks.size());
    std::vector<std::thread> threads;
    for (size_t rank = 0; rank < ranks.size(); ++rank) {
      threads.emplace_back([&, rank] {
        try {
          act(*ranks[rank], static_cast<int>(rank));
        } catch (const std::exception& error) {
          failures[rank] = error.what();
        }
      });
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
    return failures;
  }
};

at::Tensor reduced(NcclBackend& backend, const at::Tensor& tensor,
                   c10d::ReduceOp::RedOpType operation = c10d::ReduceOp::SUM) {
  std::vector<at::Tensor> values{tensor.clone()};
  c10d::AllreduceOptions options;
  options.reduceOp = operation;
  backend.allreduce(values, options)->wait();
  return values[0];
}

bool contains(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

// Everything was given back, once.
void check_books() {
  const std::lock_guard device(fake_mutex());
  CHECK(fake_device().wrong == "");
  CHECK(fake_device().alive.empty());
  const std::lock_guard lock(fake().mutex);
  CHECK(fake().alive.empty());
}

TEST_CASE("nccl: ranks reduce, broadcast and gather, in the order of their calls") {
  clear();
  {
    World world(3);
    const auto failures = world.on_all([](NcclBackend& backend, int rank) {
      const auto own = [&](at::ScalarType dtype) { return at::full({5}, rank + 1, dtype); };
      for (const auto dtype :
           {at::kFloat, at::kDouble, at::kHalf, at::kBFloat16, at::kLong, at::kInt, at::kChar, at::kByte}) {
        CHECK(reduced(backend, own(dtype)).equal(at::full({5}, 6, dtype)));
      }
      CHECK(reduced(backend, own(at::kFloat), c10d::ReduceOp::AVG).equal(at::full({5}, 2.f)));
      CHECK(reduced(backend, own(at::kFloat), c10d::ReduceOp::PRODUCT).equal(at::full({5}, 6.f)));
      CHECK(reduced(backend, own(at::kFloat), c10d::ReduceOp::MIN).equal(at::full({5}, 1.f)));
      CHECK(reduced(backend, own(at::kFloat), c10d::ReduceOp::MAX).equal(at::full({5}, 3.f)));

      std::vector<at::Tensor> values{at::full({2, 3}, rank == 1, at::kBool)};
      c10d::BroadcastOptions from;
      from.rootRank = 1;
      backend.broadcast(values, from)->wait();
      CHECK(values[0].all().item<bool>());

      std::vector<at::Tensor> inputs{own(at::kDouble).view({5, 1})};
      std::vector<std::vector<at::Tensor>> outputs(1);
      for (int i = 0; i < 3; ++i) {
        outputs[0].push_back(at::zeros({5, 1}, at::kDouble));
      }
      const auto work = backend.allgather(outputs, inputs, {});
      work->wait();
      for (int i = 0; i < 3; ++i) {
        CHECK(outputs[0][static_cast<size_t>(i)].equal(at::full({5, 1}, i + 1., at::kDouble)));
      }
      CHECK(work->result().size() == 3);

      // Many that nobody waits for in between.
      std::vector<c10::intrusive_ptr<c10d::Work>> works;
      std::vector<std::vector<at::Tensor>> many;
      for (int i = 0; i < 50; ++i) {
        many.push_back({at::full({i + 1}, static_cast<float>(i))});
        works.push_back(backend.allreduce(many.back(), {}));
      }
      for (int i = 0; i < 50; ++i) {
        works[static_cast<size_t>(i)]->wait();
        CHECK(many[static_cast<size_t>(i)][0].equal(at::full({i + 1}, 3.f * static_cast<float>(i))));
      }
    });
    for (const std::string& failure : failures) {
      CHECK(failure == "");
    }
    CHECK(world.looks == 0);
  }
  check_books();
}

TEST_CASE("nccl: what it does not reduce is refused, before anybody waits") {
  clear();
  World world(2);
  std::vector<at::Tensor> bools{at::ones({2}, at::kBool)};
  CHECK_THROWS_WITH_AS(world.ranks[0]->allreduce(bools, {}), doctest::Contains("bool"), Error);
  std::vector<at::Tensor> gappy{at::ones({4, 4}).t()};
  CHECK_THROWS_WITH_AS(world.ranks[0]->allreduce(gappy, {}), doctest::Contains("contiguous"), Error);
}

TEST_CASE("nccl: a rank that does not come ends the wait, by the timeout or by whoever finds it gone") {
  for (const bool is_found : {false, true}) {
    CAPTURE(is_found);
    clear();
    {
      World world(2, std::chrono::milliseconds(is_found ? 60'000 : 4000));
      world.on_all([](NcclBackend& backend, int) { reduced(backend, at::ones({3})); });
      std::string failure;
      std::atomic<bool> has_ended = false;
      std::thread waits([&] {
        try {
          reduced(*world.ranks[0], at::ones({3}));
        } catch (const std::exception& error) {
          failure = error.what();
        }
        has_ended = true;
      });
      while (world.looks == 0 && !has_ended) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      }
      if (is_found) {
        world.ranks[0]->close("rank 1 has ended", NcclBackend::Ending::kAbort);
      }
      waits.join();
      CHECK(contains(failure, is_found ? "rank 1 has ended" : "timed out"));
      // And so does whatever is called later.
      std::vector<at::Tensor> values{at::ones({3})};
      CHECK_THROWS_WITH(world.ranks[0]->allreduce(values, {})->wait(), failure.c_str());
      world.ranks[0]->join();
      CHECK(world.looks == 0);
    }
    check_books();
  }
}

TEST_CASE("nccl: connecting ends when it takes too long, and when the group is closed") {
  for (const int rank : {0, 1}) {
    CAPTURE(rank);
    clear();
    {
      World world(2, std::chrono::milliseconds(200));
      std::vector<at::Tensor> values{at::ones({3})};
      CHECK_THROWS_WITH(world.ranks[static_cast<size_t>(rank)]->allreduce(values, {})->wait(),
                        doctest::Contains("timed out"));
    }
    check_books();
    clear();
    {
      World world(2);
      std::thread closes([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
        world.ranks[static_cast<size_t>(rank)]->close("enough", NcclBackend::Ending::kOrderly);
      });
      std::vector<at::Tensor> values{at::ones({3})};
      CHECK_THROWS_WITH(world.ranks[static_cast<size_t>(rank)]->allreduce(values, {})->wait(),
                        doctest::Contains("enough"));
      closes.join();
    }
    check_books();
  }
}

TEST_CASE("nccl: what NCCL reports of itself ends what runs") {
  clear();
  {
    World world(2);
    world.on_all([](NcclBackend& backend, int) { reduced(backend, at::ones({3})); });
    {
      const std::lock_guard lock(fake().mutex);
      fake().is_slow = true;
    }
    std::thread breaks([] {
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
      const std::lock_guard lock(fake().mutex);
      fake().error = 6;
    });
    const auto failures = world.on_all([](NcclBackend& backend, int) { reduced(backend, at::ones({3})); });
    breaks.join();
    for (const std::string& failure : failures) {
      CHECK(contains(failure, "an error of the stand-in: its reason (status 6)"));
    }
  }
  check_books();
}

TEST_CASE("nccl: any call that fails is told, and everything is given back") {
  int of_device_failed = 0;
  int of_nccl_failed = 0;
  for (int call = 0; call < 40; ++call) {
    for (const bool of_device : {false, true}) {
      CAPTURE(call);
      CAPTURE(of_device);
      clear();
      if (of_device) {
        fake_device().clear(call);
      } else {
        fake().fail_at = call;
      }
      {
        // Who is left alone ends soon.
        World world(2, std::chrono::milliseconds(300));
        const auto failures = world.on_all([](NcclBackend& backend, int) {
          for (int i = 0; i < 2; ++i) {
            const at::Tensor sum = reduced(backend, at::ones({3}));
            CHECK(sum.equal(at::full({3}, 2.f)));
          }
        });
        const bool is_told = std::any_of(failures.begin(), failures.end(),
                                         [](const std::string& failure) { return failure != ""; });
        const std::lock_guard device(fake_mutex());
        const std::string& failed = fake_device().failed;
        // A question, and what gives back, may fail without harm to what was computed.
        if (of_device && failed != "" && failed != "cudaSetDevice" && failed != "cudaEventDestroy") {
          CHECK(is_told);
          ++of_device_failed;
        }
        if (!of_device && fake().has_failed) {
          CHECK(is_told);
          ++of_nccl_failed;
        }
      }
      check_books();
    }
  }
  CHECK(of_device_failed >= 10);
  CHECK(of_nccl_failed >= 10);
}

TEST_CASE("nccl: c10d's reducer averages gradients over it") {
  clear();
  {
    World world(2);
    const auto failures = world.on_all([&](NcclBackend&, int rank) {
      const auto group =
          c10::make_intrusive<c10d::ProcessGroup>(world.store, rank, static_cast<int>(world.ranks.size()));
      group->setDefaultBackend(c10d::ProcessGroup::BackendType::NCCL);
      group->setBackend(c10::DeviceType::CPU, c10d::ProcessGroup::BackendType::NCCL,
                        world.ranks[static_cast<size_t>(rank)]);
      DataParallelOptions options;
      for (int i = 0; i < 3; ++i) {
        options.names.push_back(std::to_string(i));
        options.parameters.push_back(at::full({4}, i + 1., at::kDouble).requires_grad_());
      }
      options.bucket_bytes = 40;
      options.find_unused_parameters = false;
      auto reducer = make_reducer(options, {{2}, {1}, {0}}, group);
      for (int step = 0; step < 3; ++step) {
        reducer->prepare_for_forward();
        reducer->rebuild_buckets();
        at::Tensor loss = at::zeros({}, at::kDouble);
        for (const at::Tensor& parameter : options.parameters) {
          parameter.mutable_grad() = at::Tensor();
          loss = loss + (parameter * parameter).sum() * (rank + 1);
        }
        reducer->prepare_for_backward({});
        loss.backward();
        for (int i = 0; i < 3; ++i) {
          // The mean of 2 w and 4 w.
          CHECK(options.parameters[static_cast<size_t>(i)].grad().equal(
              at::full({4}, 3. * (i + 1), at::kDouble)));
        }
      }
    });
    for (const std::string& failure : failures) {
      CHECK(failure == "");
    }
  }
  check_books();
}

TEST_CASE("nccl: a library that lacks functions is named, and so is none") {
  CHECK(find_nccl(nullptr).missing == "no libnccl");
  void* const other = dlopen("libm.so.6", RTLD_LAZY);
  REQUIRE(other != nullptr);
  CHECK(contains(find_nccl(other).missing, "ncclCommInitRankConfig of libnccl"));
}

}  // namespace
}  // namespace senet::test

#endif
