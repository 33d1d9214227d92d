#include "inference/cpu/place.h"

#include "inference/cpu/packing.h"

#include <algorithm>
#include <utility>

namespace senet::inference {
namespace {

class Placing {
 public:
  Placing(const Plan& plan, const Fused& fused, bool is_float)
      : plan_(plan),
        fused_(fused),
        is_float_(is_float),
        makers_(fused.values.size(), nullptr),
        readers_(fused.values.size()) {
    result_.places.resize(fused.values.size());
    for (size_t i = 0; i < fused.units.size(); ++i) {
      for (const ValueId value : reads_of(fused.units[i])) {
        readers_[index(value)].push_back(i);
      }
      for (const ValueId value : writes_of(fused.units[i])) {
        makers_[index(value)] = &fused.units[i];
      }
    }
  }

  Placed run() {
    for (const Unit& unit : fused_.units) {
      if (unit.kind == Unit::Kind::kConcatenate && can_be_in_place(unit)) {
        place_parts(unit);
      }
    }
    place(plan_.input);
    narrow_input();
    for (size_t i = 0; i < fused_.units.size(); ++i) {
      place_unit(i);
    }
    find_clears();
    return std::move(result_);
  }

 private:
  // Whether all parts can be written where the whole is.
  bool can_be_in_place(const Unit& concatenation) const {
    int64_t channel = 0;
    for (const ValueId part : concatenation.inputs) {
      const Unit* maker = makers_[index(part)];
      const bool writes_anywhere =
          maker != nullptr && (maker->kind == Unit::Kind::kConvolution || maker->kind == Unit::Kind::kPool);
      if (!writes_anywhere || readers_[index(part)].size() != 1 || channel % kChannelBlock != 0) {
        return false;
      }
      channel += fused_.value(part).channels;
    }
    return true;
  }

  void place_parts(const Unit& concatenation) {
    const BufferId whole = place(concatenation.output);
    int64_t channel = 0;
    for (const ValueId part : concatenation.inputs) {
      result_.places[index(part)] = {whole, channel};
      channel += fused_.value(part).channels;
    }
  }

  // Few channels are not padded to a block if only convolutions read them: the stem's window stays short.
  void narrow_input() {
    const auto& readers = readers_[index(plan_.input)];
    const bool only_convolutions = std::all_of(readers.begin(), readers.end(), [&](size_t reader) {
      const Unit& unit = fused_.units[reader];
      return unit.kind == Unit::Kind::kConvolution && unit.residual != plan_.input;
    });
    Buffer& input = buffer(plan_.input);
    if (only_convolutions && input.channels < kChannelBlock) {
      input.pixel = is_float_ ? input.channels : (input.channels + 1) / 2 * 2;
    }
  }

  void place_unit(size_t at) {
    const Unit& unit = fused_.units[at];
    for (const ValueId value : reads_of(unit)) {
      place(value);
    }
    if (unit.kind == Unit::Kind::kConvolution) {
      graph::Size2& border = buffer(unit.inputs.front()).border;
      border = {std::max(border[0], unit.window.padding[0]), std::max(border[1], unit.window.padding[1])};
      // The sum takes the residual's place: its lines are in the cache.
      place_over(at, unit.parts.front().output, unit.residual);
      for (const Part& part : unit.parts) {
        place(part.output);
      }
    } else if (unit.output != kNoValue) {
      if (unit.kind == Unit::Kind::kScale) {
        place_over(at, unit.output, unit.inputs.front());
      }
      place(unit.output);
    }
  }

  // Puts what a unit writes where a value is that it reads once, if it is the last to read that.
  void place_over(size_t at, ValueId output, ValueId value) {
    if (value == kNoValue || value == plan_.input || result_.places[index(output)].buffer != kNoBuffer) {
      return;
    }
    const std::vector<size_t>& readers = readers_[index(value)];
    if (std::count(readers.begin(), readers.end(), at) == 1 && readers.back() == at) {
      result_.places[index(output)] = result_.places[index(value)];
    }
  }

  // In a buffer of its own, if it has none.
  BufferId place(ValueId value) {
    Place& known = result_.places[index(value)];
    if (known.buffer == kNoBuffer) {
      const UnitValue& of = fused_.value(value);
      const bool is_element = of.precision == UnitValue::Precision::kElement;
      known.buffer = static_cast<BufferId>(result_.buffers.size());
      result_.buffers.push_back({of.size_of,
                                 of.channels,
                                 padded_channels(of.channels),
                                 {0, 0},
                                 !is_element || is_float_,
                                 of.precision == UnitValue::Precision::kSums});
    }
    return known.buffer;
  }

  // The border of a buffer is known when all its readers are; the first unit that writes it clears it.
  void find_clears() {
    std::vector<bool> seen(result_.buffers.size(), false);
    for (const Unit& unit : fused_.units) {
      std::vector<BufferId> clears;
      if (unit.kind != Unit::Kind::kConcatenate || !result_.is_in_place(unit)) {
        for (const ValueId value : writes_of(unit)) {
          const BufferId id = result_.place(value).buffer;
          const graph::Size2& border = result_.buffers[static_cast<size_t>(id)].border;
          if (!seen[static_cast<size_t>(id)] && border[0] + border[1] > 0) {
            clears.push_back(id);
          }
          seen[static_cast<size_t>(id)] = true;
        }
      }
      result_.clears.push_back(std::move(clears));
    }
  }

  Buffer& buffer(ValueId value) {
    return result_.buffers[static_cast<size_t>(place(value))];
  }

  static size_t index(ValueId value) {
    return static_cast<size_t>(value);
  }

  const Plan& plan_;
  const Fused& fused_;
  const bool is_float_;
  std::vector<const Unit*> makers_;           // of each value, the unit that writes it
  std::vector<std::vector<size_t>> readers_;  // of each value, the units that read it, once for each reading
  Placed result_;
};

}  // namespace

Placed place_values(const Plan& plan, const Fused& fused, bool is_float) {
  return Placing(plan, fused, is_float).run();
}

}  // namespace senet::inference
