// The sequences that are kept, those used last: bounded in number and in bytes of the device.
#pragma once

#include "inference/cuda/sequence.h"

#include <cstdint>
#include <iterator>
#include <list>
#include <memory>
#include <utility>

namespace senet::inference::cuda {

template <class Key>
class KeptSequences {
 public:
  /// The last one is always kept.
  KeptSequences(size_t most, int64_t most_bytes) : most_(most), most_bytes_(most_bytes) {}

  /// Null if it is not there.
  const Sequence* find(const Key& key) {
    for (auto it = kept_.begin(); it != kept_.end(); ++it) {
      if (it->first == key) {
        kept_.splice(kept_.begin(), kept_, it);
        return it->second.get();
      }
    }
    return nullptr;
  }

  const Sequence& keep(const Key& key, std::unique_ptr<const Sequence> sequence) {
    kept_.emplace_front(key, std::move(sequence));
    int64_t bytes = 0;
    size_t count = 0;
    for (auto it = kept_.begin(); it != kept_.end(); ++count) {
      bytes += it->second->bytes();
      const bool is_over = count > 0 && (count >= most_ || bytes > most_bytes_);
      it = is_over ? kept_.erase(it) : std::next(it);
    }
    return *kept_.front().second;
  }

  void clear() {
    kept_.clear();
  }

 private:
  const size_t most_;
  const int64_t most_bytes_;
  std::list<std::pair<Key, std::unique_ptr<const Sequence>>> kept_;  // the latest first
};

}  // namespace senet::inference::cuda
