#include "inference/cpu/quantize.h"

#include "core/error.h"
#include "inference/cpu/place.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/round.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <functional>
#include <optional>
#include <utility>

namespace senet::inference {
namespace {

// Products of bytes that fit an int32: 255 * 127 * so many.
constexpr int64_t kMostProducts = 65'000;
// Bits of a weight scale's mantissa: with the seven of a weight no more than float32's 24.
constexpr int kScaleBits = 16;

size_t index(ValueId value) {
  return static_cast<size_t>(value);
}

bool is_below(const std::string& name, const std::string& path) {
  return name == path || (name.size() > path.size() && name[path.size()] == '.' && name.rfind(path, 0) == 0);
}

// So few that a record of thousands of them is short as text.
double four_digits(double x) {
  std::array<char, 32> text{};
  const auto end = std::to_chars(text.begin(), text.end(), x, std::chars_format::scientific, 3).ptr;
  double result = 0.0;
  std::from_chars(text.data(), end, result);
  return result;
}

// Of each row (or column) of a window, the share of its places in the image that are no padding.
at::Tensor shares_inside(const graph::Window& window, size_t dimension, graph::Size2 size) {
  const int64_t padding = window.padding[dimension];
  const int64_t dilation = window.dilation[dimension];
  const int64_t reach = dilation * (window.kernel[dimension] - 1);
  const int64_t outputs = (size[dimension] + 2 * padding - reach - 1) / window.stride[dimension] + 1;
  std::vector<double> shares(static_cast<size_t>(window.kernel[dimension]));
  for (size_t i = 0; i < shares.size(); ++i) {
    for (int64_t output = 0; output < outputs; ++output) {
      const int64_t at = output * window.stride[dimension] - padding + static_cast<int64_t>(i) * dilation;
      shares[i] += at >= 0 && at < size[dimension] ? 1.0 / static_cast<double>(outputs) : 0.0;
    }
  }
  return at::tensor(shares, at::kDouble);
}

bool is_convolution(const Unit& unit) {
  return unit.kind == Unit::Kind::kConvolution &&
         std::all_of(unit.parts.begin(), unit.parts.end(), [](const Part& part) {
           return part.weights == Part::Weights::kNode && part.node->operation == Operation::kConvolution;
         });
}

// Goes through the units of a program once to say of each value whether it is bytes, and once more to convert
// what float32's units read.
class Quantizing {
 public:
  Quantizing(const QuantizationRecord& record, std::vector<bool> byte_units, Fused& fused)
      : record_(record),
        is_byte_unit_(std::move(byte_units)),
        fused_(fused),
        names_(value_names(fused)),
        makers_(fused.values.size(), nullptr),
        readers_(fused.values.size()),
        wholes_(fused.values.size(), kNoValue),
        can_(fused.values.size()),
        wants_(fused.values.size()) {
    for (const Unit& unit : fused.units) {
      for (const ValueId value : outputs_of(unit)) {
        makers_[index(value)] = &unit;
      }
      for (const ValueId value : reads_of(unit)) {
        readers_[index(value)].push_back(&unit);
      }
      if (unit.kind == Unit::Kind::kConcatenate && can_be_in_place(fused, unit)) {
        for (const ValueId part : unit.inputs) {
          wholes_[index(part)] = unit.output;
        }
      }
    }
  }

  void run() {
    std::vector<std::optional<Quantization>> found(fused_.values.size());
    for (size_t i = 0; i < fused_.values.size(); ++i) {
      const auto value = static_cast<ValueId>(i);
      if (fused_.value(value).precision == UnitValue::Precision::kElement && can(value) && wants(value)) {
        found[i] = quantization_of(value);
      }
    }
    for (size_t i = 0; i < found.size(); ++i) {
      if (found[i]) {
        fused_.values[i].precision = UnitValue::Precision::kByte;
        fused_.values[i].quantization = *found[i];
      }
    }
    convert();
    for (const Unit& unit : fused_.units) {
      if (unit.sums != kNoValue && is_of_bytes(fused_, unit)) {
        const ValueId summed = !unit.parts.empty()       ? unit.parts.front().output
                               : unit.output != kNoValue ? unit.output
                                                         : unit.inputs.front();
        fused_.values[index(unit.sums)].quantization = fused_.value(summed).quantization;
      }
    }
  }

 private:
  static std::vector<ValueId> outputs_of(const Unit& unit) {
    std::vector<ValueId> result;
    if (unit.output != kNoValue) {
      result.push_back(unit.output);
    }
    for (const Part& part : unit.parts) {
      result.push_back(part.output);
    }
    return result;
  }

  bool is_byte_unit(const Unit& unit) const {
    return is_byte_unit_[static_cast<size_t>(&unit - fused_.units.data())];
  }

  bool is_known(ValueId value) const {
    return record_.values.count(names_[index(value)]) != 0;
  }

  // A maximum is one of its numbers: it keeps what the bytes mean, unless it lies among others.
  Quantization quantization_of(ValueId value) const {
    if (wholes_[index(value)] != kNoValue) {
      return quantization_of(wholes_[index(value)]);
    }
    const Unit& maker = *makers_[index(value)];
    if (maker.kind == Unit::Kind::kPool && maker.node->operation == Operation::kMaxPool) {
      return quantization_of(maker.inputs.front());
    }
    return record_.values.at(names_[index(value)]);
  }

  // Whether the unit that makes a value can give bytes.
  bool can(ValueId value) {
    std::optional<bool>& known = can_[index(value)];
    if (!known) {
      known = false;
      known = find_can(value);
    }
    return *known;
  }

  bool find_can(ValueId value) {
    const Unit* const maker = makers_[index(value)];
    if (maker == nullptr) {
      return false;
    }
    const ValueId whole = wholes_[index(value)];
    if (whole != kNoValue) {
      const Unit& concatenation = *makers_[index(whole)];
      return is_known(whole) && std::all_of(concatenation.inputs.begin(), concatenation.inputs.end(),
                                            [&](ValueId part) { return maker_can(part); });
    }
    return is_known(value) && maker_can(value);
  }

  bool maker_can(ValueId value) {
    const Unit& maker = *makers_[index(value)];
    switch (maker.kind) {
      case Unit::Kind::kConvolution:
      case Unit::Kind::kScale:
        return true;
      case Unit::Kind::kPool:
        return can(maker.inputs.front());
      case Unit::Kind::kConcatenate:
        return wholes_[index(maker.inputs.front())] == value && can(maker.inputs.front());
      case Unit::Kind::kLoad:
        // Straight from the image, if nobody wants it as it is.
        return std::all_of(readers_[index(value)].begin(), readers_[index(value)].end(),
                           [&](const Unit* reader) { return is_byte_unit(*reader); });
      default:
        return false;
    }
  }

  // Whether it is of use that a value is bytes.
  bool wants(ValueId value) {
    std::optional<bool>& known = wants_[index(value)];
    if (!known) {
      known = false;
      known = find_wants(value);
    }
    return *known;
  }

  bool find_wants(ValueId value) {
    const Unit* const maker = makers_[index(value)];
    if (maker != nullptr && maker->sums != kNoValue && is_byte_unit(*maker)) {
      return true;  // sums of bytes are exact
    }
    return std::any_of(readers_[index(value)].begin(), readers_[index(value)].end(), [&](const Unit* reader) {
      switch (reader->kind) {
        case Unit::Kind::kConvolution:
          return is_byte_unit(*reader);
        case Unit::Kind::kScale:
          return reader->output != kNoValue && wants(reader->output);
        case Unit::Kind::kPool:
        case Unit::Kind::kConcatenate:
          return wants(reader->output);
        default:
          return false;
      }
    });
  }

  bool is_byte(ValueId value) const {
    return fused_.value(value).precision == UnitValue::Precision::kByte;
  }

  // What units read becomes what their kernels take.
  void convert() {
    std::vector<Unit> units;
    std::map<std::pair<ValueId, bool>, ValueId> converted;
    std::vector<Unit> before = std::move(fused_.units);
    fused_.units.clear();
    for (size_t i = 0; i < before.size(); ++i) {
      Unit& unit = before[i];
      const auto want = [&](ValueId& value, bool as_byte) {
        if (value == kNoValue || !is_image(value) || is_byte(value) == as_byte) {
          return;
        }
        const auto key = std::make_pair(value, as_byte);
        const auto known = converted.find(key);
        if (known == converted.end()) {
          converted[key] = add_converted(value, as_byte, units);
        }
        value = converted.at(key);
      };
      switch (unit.kind) {
        case Unit::Kind::kConvolution:
          want(unit.inputs.front(), is_byte_unit_[i]);
          want(unit.residual, is_byte_unit_[i]);
          break;
        case Unit::Kind::kConcatenate:
          if (wholes_[index(unit.inputs.front())] == unit.output) {
            break;
          }
          [[fallthrough]];
        case Unit::Kind::kOperator:
        case Unit::Kind::kStore:
          for (ValueId& input : unit.inputs) {
            want(input, false);
          }
          break;
        default:
          break;
      }
      units.push_back(std::move(unit));
    }
    fused_.units = std::move(units);
  }

  bool is_image(ValueId value) const {
    const UnitValue::Precision precision = fused_.value(value).precision;
    return precision == UnitValue::Precision::kByte || precision == UnitValue::Precision::kElement;
  }

  ValueId add_converted(ValueId value, bool as_byte, std::vector<Unit>& units) {
    if (as_byte && !is_known(value)) {
      throw Error("ERR_SENET_CALIBRATION", "compile: the calibration knows nothing of what '" +
                                               names_[index(value)] + "' gives: it is of another network");
    }
    UnitValue of = fused_.value(value);
    of.name += as_byte ? " as bytes" : " as float32";
    of.precision = as_byte ? UnitValue::Precision::kByte : UnitValue::Precision::kElement;
    of.same_as = value;
    of.quantization = as_byte ? record_.values.at(names_[index(value)]) : Quantization{};
    fused_.values.push_back(std::move(of));
    const auto id = static_cast<ValueId>(fused_.values.size() - 1);
    units.push_back({Unit::Kind::kScale, names_[index(value)], {value}, id});
    return id;
  }

  const QuantizationRecord& record_;
  const std::vector<bool> is_byte_unit_;
  Fused& fused_;
  const std::vector<std::string> names_;
  std::vector<const Unit*> makers_;
  std::vector<std::vector<const Unit*>> readers_;
  std::vector<ValueId> wholes_;  // of each value, that which it is a part of, in place
  std::vector<std::optional<bool>> can_;
  std::vector<std::optional<bool>> wants_;
};

}  // namespace

std::vector<std::string> value_names(const Fused& fused) {
  std::vector<std::string> names(fused.values.size());
  std::map<std::string, int> counts;
  const auto add = [&](ValueId value, const std::string& name) {
    if (fused.value(value).precision != UnitValue::Precision::kElement) {
      return;
    }
    const int count = ++counts[name];
    names[index(value)] = count == 1 ? name : name + "#" + std::to_string(count);
  };
  for (const Unit& unit : fused.units) {
    if (unit.output != kNoValue) {
      add(unit.output, unit.name);
    }
    for (const Part& part : unit.parts) {
      add(part.output, part.weights == Part::Weights::kNode ? part.node->name : unit.name);
    }
  }
  return names;
}

std::vector<bool> find_byte_units(const Plan& plan, const Fused& fused, const std::vector<std::string>& keep,
                                  bool keep_first) {
  std::vector<bool> used(keep.size(), false);
  std::vector<bool> result;
  for (const Unit& unit : fused.units) {
    bool is_byte = is_convolution(unit) && !(keep_first && unit.inputs.front() == plan.input);
    for (const Part& part : unit.parts) {
      for (size_t i = 0; i < keep.size(); ++i) {
        if (is_below(part.node->name, keep[i])) {
          used[i] = true;
          is_byte = false;
        }
      }
      const at::Tensor& weight = part.node->weight;
      is_byte = is_byte && !part.node->affine && weight.numel() / weight.size(0) <= kMostProducts;
    }
    result.push_back(is_byte);
  }
  for (size_t i = 0; i < keep.size(); ++i) {
    if (!used[i]) {
      std::string names;
      for (const Unit& unit : fused.units) {
        for (const Part& part : unit.parts) {
          names += is_convolution(unit) ? (names.empty() ? "" : ", ") + part.node->name : "";
        }
      }
      throw Error("ERR_SENET_ARG_RANGE", "compile: keep: no convolution is called '" + keep[i] +
                                             "' or lies below it; there are " + names);
    }
  }
  return result;
}

at::Tensor weight_scales(const at::Tensor& weight) {
  const at::Tensor rows = weight.detach().to(at::kCPU).flatten(1);
  const at::Tensor largest = at::amax(rows.abs(), 1).to(at::kDouble).contiguous();
  at::Tensor scales = at::empty_like(largest);
  const auto* from = largest.const_data_ptr<double>();
  auto* to = scales.mutable_data_ptr<double>();
  for (int64_t i = 0; i < largest.numel(); ++i) {
    int exponent = 0;
    const double mantissa = std::frexp(from[i] / 127.0, &exponent);
    const double whole = std::ceil(std::ldexp(mantissa, kScaleBits));
    // Channels of zeros, of numbers that float32 has no fractions of, and of NaN.
    to[i] = std::isfinite(from[i]) && from[i] > 1e-30 ? std::ldexp(whole, exponent - kScaleBits) : 1.0;
  }
  return scales;
}

at::Tensor to_int8(const at::Tensor& weight, const at::Tensor& scales) {
  const at::Tensor whole = weight.detach().to(at::kCPU, at::kDouble);
  return at::round(whole / scales.reshape({-1, 1, 1, 1})).clamp_(-127, 127).to(at::kChar).contiguous();
}

void round_weights(const Fused& fused, const std::vector<bool>& byte_units, Plan& plan) {
  for (size_t i = 0; i < fused.units.size(); ++i) {
    if (!byte_units[i]) {
      continue;
    }
    for (const Part& part : fused.units[i].parts) {
      Node& node = plan.nodes[static_cast<size_t>(part.node - plan.nodes.data())];
      const at::Tensor scales = weight_scales(node.weight);
      node.weight =
          (to_int8(node.weight, scales).to(at::kDouble) * scales.reshape({-1, 1, 1, 1})).to(at::kFloat);
    }
  }
}

void correct_biases(const QuantizationRecord& record, const Fused& fused, const std::vector<bool>& byte_units,
                    Plan& plan) {
  const std::vector<std::string> names = value_names(fused);
  for (size_t i = 0; i < fused.units.size(); ++i) {
    if (!byte_units[i]) {
      continue;
    }
    for (const Part& part : fused.units[i].parts) {
      const std::string& name = names[index(part.output)];
      const auto found = record.corrections.find(name);
      if (found == record.corrections.end()) {
        continue;
      }
      Node& node = plan.nodes[static_cast<size_t>(part.node - plan.nodes.data())];
      const auto width = static_cast<int64_t>(found->second.size());
      if (width != node.weight.size(0)) {
        throw Error("ERR_SENET_CALIBRATION", "compile: calibration: corrections of '" + name +
                                                 "': expected " + std::to_string(node.weight.size(0)) +
                                                 " numbers, got " + std::to_string(width));
      }
      const at::Tensor correction = at::tensor(found->second, at::kDouble);
      node.bias = (node.bias.defined() ? node.bias.to(at::kDouble) + correction : correction).to(at::kFloat);
    }
  }
}

std::vector<double> lost_means(const Node& convolution, const ChannelMeans& input) {
  const at::Tensor scales = weight_scales(convolution.weight);
  const at::Tensor rounded =
      to_int8(convolution.weight, scales).to(at::kDouble) * scales.reshape({-1, 1, 1, 1});
  const at::Tensor inside = at::outer(shares_inside(convolution.window, 0, input.size),
                                      shares_inside(convolution.window, 1, input.size));
  const at::Tensor lost =
      ((convolution.weight.detach().to(at::kDouble) - rounded) * inside).sum({2, 3});  // [out, in / groups]
  const at::Tensor means =
      at::tensor(input.channels, at::kDouble).reshape({convolution.groups, lost.size(1), 1});
  const at::Tensor sums =
      lost.reshape({convolution.groups, -1, lost.size(1)}).matmul(means).flatten().contiguous();
  std::vector<double> result(static_cast<size_t>(sums.numel()));
  std::transform(sums.const_data_ptr<double>(), sums.const_data_ptr<double>() + sums.numel(), result.begin(),
                 four_digits);
  return result;
}

void quantize_values(const QuantizationRecord& record, std::vector<bool> byte_units, Fused& fused) {
  Quantizing(record, std::move(byte_units), fused).run();
}

bool is_of_bytes(const Fused& fused, const Unit& unit) {
  const auto is_byte = [&](ValueId value) {
    return value != kNoValue && fused.value(value).precision == UnitValue::Precision::kByte;
  };
  switch (unit.kind) {
    case Unit::Kind::kConvolution:
    case Unit::Kind::kPool:
      return is_byte(unit.inputs.front());
    case Unit::Kind::kScale:
      return is_byte(unit.inputs.front()) || is_byte(unit.residual) || is_byte(unit.output);
    case Unit::Kind::kLoad:
      return is_byte(unit.output);
    default:
      return false;
  }
}

}  // namespace senet::inference
