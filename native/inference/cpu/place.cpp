#include "inference/cpu/place.h"

#include "inference/cpu/packing.h"

#include <algorithm>
#include <utility>

namespace senet::inference {
namespace {

// The units that read each value, once for each reading.
std::vector<std::vector<size_t>> find_readers(const Fused& fused) {
  std::vector<std::vector<size_t>> readers(fused.values.size());
  for (size_t i = 0; i < fused.units.size(); ++i) {
    for (const ValueId value : reads_of(fused.units[i])) {
      readers[static_cast<size_t>(value)].push_back(i);
    }
  }
  return readers;
}

class Placing {
 public:
  Placing(const Plan& plan, const Fused& fused, bool is_float)
      : plan_(plan), fused_(fused), is_float_(is_float), readers_(find_readers(fused)) {
    result_.places.resize(fused.values.size());
  }

  Placed run() {
    for (const Unit& unit : fused_.units) {
      if (unit.kind == Unit::Kind::kConcatenate && can_be_in_place(fused_, unit)) {
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
      // Whole groups of the elements that an instruction takes.
      const int64_t group = input.element == Element::kFloat      ? 1
                            : input.element == Element::kBfloat16 ? 2
                                                                  : 4;
      input.pixel = (input.channels + group - 1) / group * group;
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
    // The border of bytes holds their zero.
    const UnitValue& before = fused_.value(value);
    const UnitValue& after = fused_.value(output);
    const bool is_alike =
        before.precision == after.precision && before.quantization.zero == after.quantization.zero;
    if (is_alike && std::count(readers.begin(), readers.end(), at) == 1 && readers.back() == at) {
      result_.places[index(output)] = result_.places[index(value)];
    }
  }

  // In a buffer of its own, if it has none.
  BufferId place(ValueId value) {
    Place& known = result_.places[index(value)];
    if (known.buffer == kNoBuffer) {
      const UnitValue& of = fused_.value(value);
      const bool is_byte = of.precision == UnitValue::Precision::kByte;
      const bool is_half = of.precision == UnitValue::Precision::kElement && !is_float_;
      known.buffer = static_cast<BufferId>(result_.buffers.size());
      result_.buffers.push_back({of.size_of,
                                 of.channels,
                                 padded_channels(of.channels),
                                 {0, 0},
                                 is_byte   ? Element::kByte
                                 : is_half ? Element::kBfloat16
                                           : Element::kFloat,
                                 of.precision == UnitValue::Precision::kSums,
                                 is_byte ? static_cast<uint8_t>(of.quantization.zero) : uint8_t{0}});
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
  std::vector<std::vector<size_t>> readers_;  // of each value, the units that read it, once for each reading
  Placed result_;
};

}  // namespace

bool can_be_in_place(const Fused& fused, const Unit& concatenation) {
  const std::vector<std::vector<size_t>> readers = find_readers(fused);
  int64_t channel = 0;
  for (const ValueId part : concatenation.inputs) {
    const auto writes = [part](const Unit& unit) {
      const std::vector<ValueId> all = writes_of(unit);
      return std::find(all.begin(), all.end(), part) != all.end();
    };
    const auto maker = std::find_if(fused.units.begin(), fused.units.end(), writes);
    const bool writes_anywhere = maker != fused.units.end() && (maker->kind == Unit::Kind::kConvolution ||
                                                                maker->kind == Unit::Kind::kPool);
    if (!writes_anywhere || readers[static_cast<size_t>(part)].size() != 1 || channel % kChannelBlock != 0) {
      return false;
    }
    channel += fused.value(part).channels;
  }
  return true;
}

Placed place_values(const Plan& plan, const Fused& fused, bool is_float) {
  return Placing(plan, fused, is_float).run();
}

}  // namespace senet::inference
