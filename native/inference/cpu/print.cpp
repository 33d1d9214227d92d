// What is said to people: of each step (StepInfo), and the results of fuse, place and pack as text.
#include "inference/cpu/pack.h"

#include <algorithm>
#include <ostream>
#include <sstream>

namespace senet::inference {
namespace {

const char* name_of(const Unit& unit) {
  switch (unit.kind) {
    case Unit::Kind::kLoad:
      return "load";
    case Unit::Kind::kConvolution:
      return "convolution";
    case Unit::Kind::kScale:
      return "scale";
    case Unit::Kind::kPool:
      return operation_name(*unit.node);
    case Unit::Kind::kMean:
      return "mean";
    case Unit::Kind::kChannelGate:
      return "channel_gate";
    case Unit::Kind::kConcatenate:
    case Unit::Kind::kOperator:
      return operation_name(*unit.node);
    case Unit::Kind::kStore:
      return "store";
  }
  return "?";
}

std::vector<int64_t> shape_of(const Layout& layout, BufferId buffer, int64_t channels) {
  const BufferLayout& at = layout.buffers[static_cast<size_t>(buffer)];
  return {channels, at.height, at.width};
}

bool has_window(const Unit& unit) {
  return unit.kind == Unit::Kind::kConvolution || unit.kind == Unit::Kind::kPool;
}

void print_name(std::ostream& stream, const char* kind, const std::string& name) {
  stream << kind << (name.empty() ? "" : " ") << name;
}

void print_size(std::ostream& stream, const char* what, Size2 size) {
  stream << what << size[0] << " x " << size[1];
}

void print_window(std::ostream& stream, const graph::Window& window) {
  print_size(stream, " ", window.kernel);
  if (window.stride != Size2{1, 1}) {
    print_size(stream, " stride ", window.stride);
  }
  if (window.padding != Size2{0, 0}) {
    print_size(stream, " padding ", window.padding);
  }
}

void print_values(std::ostream& stream, const Fused& fused, const std::vector<ValueId>& values) {
  const char* separator = " ";
  for (const ValueId value : values) {
    stream << separator << fused.value(value).name;
    separator = ", ";
  }
}

// Those that come several times in a row, as the panels of a convolution do, with their number.
void print_buffers(std::ostream& stream, const std::vector<BufferId>& buffers) {
  for (size_t i = 0; i < buffers.size();) {
    const size_t first = i;
    while (i < buffers.size() && buffers[i] == buffers[first]) {
      ++i;
    }
    stream << (first == 0 ? " " : ", ") << buffers[first];
    if (i - first > 1) {
      stream << " (" << i - first << " panels)";
    }
  }
}

void print_texts(std::ostream& stream, const std::vector<std::string>& texts) {
  const char* separator = "; ";
  for (const std::string& text : texts) {
    stream << separator << text;
    separator = ", ";
  }
}

}  // namespace

std::string to_string(const Fused& fused) {
  std::ostringstream stream;
  for (const Unit& unit : fused.units) {
    print_name(stream, name_of(unit), unit.name);
    if (has_window(unit)) {
      print_window(stream, unit.window);
    }
    stream << ":";
    print_values(stream, fused, reads_of(unit));
    stream << " ->";
    print_values(stream, fused, writes_of(unit));
    print_texts(stream, extras_of(fused, unit));
    stream << "\n";
  }
  return stream.str();
}

std::string to_string(const Fused& fused, const Placed& placed) {
  std::ostringstream stream;
  for (size_t id = 0; id < placed.buffers.size(); ++id) {
    const Buffer& buffer = placed.buffers[id];
    stream << id << ":";
    const char* separator = " ";
    for (size_t value = 0; value < placed.places.size(); ++value) {
      const Place& place = placed.places[value];
      if (place.buffer == static_cast<BufferId>(id)) {
        stream << separator << fused.values[value].name;
        separator = ", ";
        if (place.channel > 0) {
          stream << " from channel " << place.channel;
        }
      }
    }
    stream << "; " << buffer.channels << " channels";
    if (buffer.pixel != buffer.channels) {
      stream << " of " << buffer.pixel;
    }
    if (buffer.value == kNoValue) {
      stream << ", 1 x 1";
    }
    if (buffer.border != Size2{0, 0}) {
      print_size(stream, ", border ", buffer.border);
    }
    stream << (buffer.per_thread                      ? ", float64 of each thread"
               : buffer.element == Element::kFloat    ? ", float32"
               : buffer.element == Element::kBfloat16 ? ", bfloat16"
                                                      : ", uint8")
           << "\n";
  }
  return stream.str();
}

std::string to_string(const Steps& steps) {
  std::ostringstream stream;
  for (const auto& step : steps) {
    print_name(stream, step->kind(), step->name);
    stream << ":";
    print_buffers(stream, step->reads());
    stream << " ->";
    print_buffers(stream, step->writes());
    print_texts(stream, step->extras());
    if (!step->clears.empty()) {
      stream << "; clears";
      print_buffers(stream, step->clears);
    }
    if (step->weight_bytes() > 0) {
      stream << "; " << step->weight_bytes() << " bytes";
    }
    stream << "\n";
  }
  return stream.str();
}

const char* ConvolutionStep::kind() const {
  return "convolution";
}

std::vector<std::string> ConvolutionStep::extras() const {
  std::vector<std::string> result = fused;
  if (algorithm == Algorithm::kWinograd) {
    const auto relu = std::find(result.begin(), result.end(), "relu");
    result.insert(relu == result.end() ? result.begin() : relu + 1, "winograd");
  }
  return result;
}

StepInfo ConvolutionStep::explain(const Layout& layout) const {
  StepInfo info{name, kind(), extras()};
  info.input = shape_of(layout, input, in_channels);
  info.output = shape_of(layout, panels.front().output, out_channels);
  info.weight_bytes = weight_bytes();
  info.multiply_adds =
      out_channels * (in_channels / groups) * kernel[0] * kernel[1] * info.output[1] * info.output[2];
  if (tile_runs(layout).step_bytes > 0) {
    info.kernel = "tiles";
  }
  if (!start.empty()) {
    info.kernel = "int8";
    info.quantization = {gives.empty() ? 1.0f : gives.front().quantization.scale,
                         gives.empty() ? 0 : gives.front().quantization.zero, std::nullopt};
  }
  return info;
}

const char* ScaleStep::kind() const {
  return output == kNoBuffer ? "squeeze" : is_conversion ? "convert" : "scale";
}

StepInfo ScaleStep::explain(const Layout& layout) const {
  StepInfo info{name, kind(), extras()};
  const BufferLayout& in = layout.buffers[static_cast<size_t>(input)];
  info.input = shape_of(layout, input, in.channels);
  info.output = output == kNoBuffer ? std::vector<int64_t>{in.channels, 1, 1} : info.input;
  info.weight_bytes = weight_bytes();
  return info;
}

const char* PoolStep::kind() const {
  return maximum ? "max_pool" : "average_pool";
}

StepInfo PoolStep::explain(const Layout& layout) const {
  StepInfo info{name, kind(), extras()};
  const int64_t channels = layout.buffers[static_cast<size_t>(input)].channels;
  info.input = shape_of(layout, input, channels);
  info.output = shape_of(layout, output, channels);
  info.weight_bytes = weight_bytes();
  return info;
}

const char* MeanStep::kind() const {
  return "mean";
}

StepInfo MeanStep::explain(const Layout& layout) const {
  StepInfo info{name, kind(), extras()};
  const BufferLayout& source = layout.buffers[static_cast<size_t>(of)];
  info.input = {source.channels, source.height, source.width};
  info.output = {source.channels, 1, 1};
  return info;
}

const char* ChannelGateStep::kind() const {
  return "channel_gate";
}

StepInfo ChannelGateStep::explain(const Layout& layout) const {
  StepInfo info{name, kind(), extras()};
  const int64_t channels = layout.buffers[static_cast<size_t>(input)].channels;
  info.input = info.output = {channels, 1, 1};
  info.weight_bytes = weight_bytes();
  info.multiply_adds = channels * static_cast<int64_t>(kernel.size());
  return info;
}

const char* OperatorStep::kind() const {
  return graph::operation_name(operation);
}

StepInfo OperatorStep::explain(const Layout& layout) const {
  const auto shape = [&](BufferId buffer) {
    return shape_of(layout, buffer, layout.buffers[static_cast<size_t>(buffer)].channels);
  };
  StepInfo info{name, kind(), extras()};
  info.input = shape(inputs.front().buffer);
  info.output = shape(output.buffer);
  info.weight_bytes = weight_bytes();
  info.kernel = "libtorch";
  if (const auto* conv = std::get_if<graph::Convolution>(&operation)) {
    info.multiply_adds = conv->weight.numel() * info.output[1] * info.output[2];
  }
  return info;
}

const char* LoadStep::kind() const {
  return "load";
}

StepInfo LoadStep::explain(const Layout& layout) const {
  StepInfo info{name, kind(), extras()};
  info.input = shape_of(layout, output, layout.buffers[static_cast<size_t>(output)].channels);
  info.output = info.input;
  return info;
}

const char* StoreStep::kind() const {
  return "store";
}

StepInfo StoreStep::explain(const Layout& layout) const {
  StepInfo info{name, kind(), extras()};
  info.input = shape_of(layout, input, layout.buffers[static_cast<size_t>(input)].channels);
  info.output = info.input;
  return info;
}

}  // namespace senet::inference
