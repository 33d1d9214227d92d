// c10d::Reducer as Python's DistributedDataParallel makes it, of whichever version of LibTorch.
#pragma once

#include "distributed/data_parallel.h"

#include <torch/csrc/distributed/c10d/reducer.hpp>

#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace senet::distributed {

using Buckets = std::vector<std::vector<size_t>>;
using Group = c10::intrusive_ptr<c10d::ProcessGroup>;

// Later versions have more arguments; these are their defaults in Python.
template <class Reducer = c10d::Reducer>
std::unique_ptr<Reducer> make_reducer(const DataParallelOptions& options, Buckets buckets,
                                      const Group& group) {
  const std::vector<bool> sparse(options.parameters.size(), false);
  std::unordered_map<size_t, std::string> names;
  for (size_t i = 0; i < options.names.size(); ++i) {
    names[i] = options.names[i];
  }
  const int64_t bytes = options.bucket_bytes;
  // Smaller where nobody chose a size, so that the first of them is on its way sooner.
  const int64_t first =
      bytes == c10d::kDefaultBucketBytesCap ? int64_t{c10d::kDefaultFirstBucketBytes} : bytes;
  const bool unused = options.find_unused_parameters;
  const auto& parameters = options.parameters;
  if constexpr (requires {
                  Reducer(parameters, buckets, group, sparse, bytes, unused, false, names, first, false,
                          false, std::vector<int64_t>{}, false);
                }) {
    return std::make_unique<Reducer>(parameters, std::move(buckets), group, sparse, bytes, unused, false,
                                     names, first, false, false, std::vector<int64_t>{}, false);
  } else if constexpr (requires {
                         Reducer(parameters, buckets, group, sparse, bytes, unused, false, names, first,
                                 false, false);
                       }) {
    return std::make_unique<Reducer>(parameters, std::move(buckets), group, sparse, bytes, unused, false,
                                     names, first, false, false);
  } else {
    return std::make_unique<Reducer>(parameters, std::move(buckets), group, sparse, bytes, unused, false,
                                     names, first);
  }
}

}  // namespace senet::distributed
