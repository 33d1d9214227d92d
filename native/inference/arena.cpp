#include "inference/arena.h"

#include <algorithm>
#include <utility>

namespace senet::inference {

int64_t lay_out(std::vector<ArenaBlock>& blocks) {
  int64_t total = 0;
  for (size_t i = 0; i < blocks.size(); ++i) {
    ArenaBlock& block = blocks[i];
    if (block.life.is_empty()) {
      continue;
    }
    std::vector<std::pair<int64_t, int64_t>> taken;
    for (size_t other = 0; other < i; ++other) {
      const ArenaBlock& there = blocks[other];
      if (!there.life.is_empty() && there.life.meets(block.life)) {
        taken.emplace_back(there.offset, there.offset + there.bytes);
      }
    }
    std::sort(taken.begin(), taken.end());
    block.offset = 0;
    for (const auto& [begin, end] : taken) {
      if (block.offset + block.bytes <= begin) {
        break;
      }
      block.offset = std::max(block.offset, end);
    }
    total = std::max(total, block.offset + block.bytes);
  }
  return total;
}

}  // namespace senet::inference
