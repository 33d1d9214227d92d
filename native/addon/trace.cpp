#include "addon/trace.h"

#include "addon/compiled.h"
#include "addon/convert.h"
#include "addon/modules.h"
#include "addon/operators.h"
#include "core/error.h"
#include "core/names.h"
#include "inference/compiled_model.h"
#include "nn/options.h"
#include "nn/trace.h"

#include <optional>
#include <utility>
#include <vector>

namespace senet::addon {

// One forward that is being traced; the handles of its values hold it.
struct TraceSession {
  graph::Trace trace;
  std::vector<ModuleUse> used;  // the modules whose tensors the graph holds: busy until it is compiled
};

namespace {

using graph::Value;

[[noreturn]] void refuse_operator(const std::string& name, const std::string& why) {
  throw graph::Untraceable("cannot be traced: " + name + ": " + why);
}

// The arguments of an operator call by their names in its schema, of the overload that takes them.
class NamedArguments {
 public:
  NamedArguments(std::string name, const Napi::Value& positional, const Napi::Value& keywords)
      : name_(std::move(name)),
        positional_(positional.As<Napi::Array>()),
        keywords_(keywords),
        call_(match_traced(name_, positional, keywords)),
        is_read_(call_.stack.size(), false) {}

  /// The argument, or its default.
  const c10::IValue& get(const char* name) const {
    const size_t place = find(name);
    is_read_[place] = true;
    return call_.stack[place];
  }
  Value value(const char* name) const {
    const TracedValue* traced = to_traced(given(name));
    if (traced == nullptr) {
      refuse(std::string("'") + name + "' does not come from the forward's input");
    }
    return traced->value;
  }
  std::vector<Value> values(const char* name) const {
    std::vector<Value> result;
    const Napi::Value list = given(name);
    for (uint32_t i = 0; list.IsArray() && i < list.As<Napi::Array>().Length(); ++i) {
      const TracedValue* traced = to_traced(list.As<Napi::Array>().Get(i));
      if (traced == nullptr) {
        refuse(std::string("'") + name + "' has a tensor that does not come from the forward's input");
      }
      result.push_back(traced->value);
    }
    return result;
  }
  std::vector<int64_t> integers(const char* name) const {
    const c10::IValue& numbers = get(name);
    return numbers.isNone() ? std::vector<int64_t>() : numbers.toIntVector();
  }
  /// One number for both axes, as a layer may have it; `otherwise` of an empty list.
  int64_t square(const char* name, int64_t least, int64_t otherwise = 0) const {
    const std::vector<int64_t> both = integers(name);
    if (both.size() > 2 || (both.size() == 2 && both[0] != both[1])) {
      refuse(std::string("'") + name + "' is not one number for height and width");
    }
    const int64_t number = both.empty() ? otherwise : both.front();
    check_range(name, number, least);
    return number;
  }
  void check_range(const char* name, int64_t number, int64_t least, int64_t most = nn::kMaxWidth) const {
    if (number < least || number > most) {
      refuse(std::string("'") + name + "' is " + std::to_string(number) + ", no number from " +
             std::to_string(least) + " to " + std::to_string(most));
    }
  }
  /// What nobody read must be what it is where it is left out.
  void check_others() const {
    const auto& arguments = call_.op.schema().arguments();
    for (size_t i = 0; i < arguments.size(); ++i) {
      const auto& usual = arguments[i].default_value();
      if (!is_read_[i] && !(usual && *usual == call_.stack[i])) {
        refuse("'" + arguments[i].name() + "' is not compiled");
      }
    }
  }
  [[noreturn]] void refuse(const std::string& why) const {
    refuse_operator(name_, why);
  }

 private:
  size_t find(const char* name) const {
    const std::optional<int> place = call_.op.schema().argumentIndexWithName(name);
    if (!place) {
      refuse(std::string("this overload has no '") + name + "'");
    }
    return static_cast<size_t>(*place);
  }
  // As JavaScript gave it.
  Napi::Value given(const char* name) const {
    const size_t place = find(name);
    is_read_[place] = true;
    if (place < positional_.Length()) {
      return positional_.Get(static_cast<uint32_t>(place));
    }
    return keywords_.IsObject() ? keywords_.As<Napi::Object>().Get(name) : keywords_;
  }

  const std::string name_;
  const Napi::Array positional_;
  const Napi::Value keywords_;
  const OperatorCall call_;
  mutable std::vector<bool> is_read_;
};

bool is_one_pixel(const Value& value) {
  return value.dim() == 4 && value.size(2) == 1 && value.size(3) == 1;
}

template <class Pool>
Value pool(const NamedArguments& given) {
  const int64_t kernel = given.square("kernel_size", 1);
  Pool pool{kernel, given.square("stride", 1, kernel), given.square("padding", 0)};
  given.check_range("padding", pool.padding, 0, kernel / 2);
  pool.ceil_mode = given.get("ceil_mode").toBool();
  if constexpr (std::is_same_v<Pool, graph::AveragePool>) {
    pool.count_include_pad = given.get("count_include_pad").toBool();
  }
  return graph::apply(std::move(pool), {given.value("self")}, "pool");
}

Value add(const NamedArguments& given, bool in_place) {
  if (given.get("alpha").toScalar().toDouble() != 1) {
    given.refuse("alpha is not 1");
  }
  return graph::apply(graph::Add{in_place}, {given.value("self"), given.value("other")}, "add");
}

Value multiply(const NamedArguments& given) {
  Value x = given.value("self");
  Value factors = given.value("other");
  if (is_one_pixel(x) && !is_one_pixel(factors)) {
    std::swap(x, factors);
  }
  if (x.dim() != 4 || !is_one_pixel(factors)) {
    given.refuse("only images and a factor for each channel, N x C x 1 x 1, are multiplied");
  }
  return graph::apply(graph::Scale{}, {x, graph::apply(graph::Flatten{}, {factors}, "mul")}, "mul");
}

Value mean(const NamedArguments& given) {
  const Value x = given.value("self");
  std::vector<int64_t> axes = given.integers("dim");
  for (int64_t& axis : axes) {
    axis = axis < 0 ? axis + x.dim() : axis;
  }
  if (x.dim() != 4 || axes.size() != 2 || axes[0] + axes[1] != 5 || axes[0] * axes[1] != 6) {
    given.refuse("only the mean over height and width of images is compiled");
  }
  const Value pooled = graph::apply(graph::AdaptiveAveragePool{}, {x}, "mean");
  return given.get("keepdim").toBool() ? pooled : graph::apply(graph::Flatten{}, {pooled}, "mean");
}

Value concatenate(const NamedArguments& given) {
  const std::vector<Value> parts = given.values("tensors");
  const int64_t axis = given.get("dim").toInt();
  if (parts.empty() || parts.front().dim() < 2 || (axis < 0 ? axis + parts.front().dim() : axis) != 1) {
    given.refuse("only channels (dim 1) are concatenated");
  }
  return graph::apply(graph::Concatenate{}, parts, "cat");
}

Value adaptive_pool(const NamedArguments& given) {
  const std::vector<int64_t> size = given.integers("output_size");
  if (size.size() != 2) {
    given.refuse("'output_size' is no height and width");
  }
  for (const int64_t side : size) {
    given.check_range("output_size", side, 1);
  }
  return graph::apply(graph::AdaptiveAveragePool{{size[0], size[1]}}, {given.value("self")}, "pool");
}

Value dropout(const NamedArguments& given) {
  if (given.get("train").toBool()) {
    given.refuse("it draws; in evaluation mode it gives its input");
  }
  given.get("p");  // which says how often it draws
  return given.value("input");
}

Value run_operator(const std::string& base, const NamedArguments& given) {
  if (base == "aten::relu" || base == "aten::relu_") {
    return graph::apply(graph::Relu{base.back() == '_'}, {given.value("self")}, "relu");
  }
  if (base == "aten::sigmoid") {
    return graph::apply(graph::Sigmoid{}, {given.value("self")}, "sigmoid");
  }
  if (base == "aten::add" || base == "aten::add_") {
    return add(given, base.back() == '_');
  }
  if (base == "aten::mul") {
    return multiply(given);
  }
  if (base == "aten::cat" || base == "aten::concat") {
    return concatenate(given);
  }
  if (base == "aten::flatten") {
    return graph::apply(graph::Flatten{given.get("start_dim").toInt(), given.get("end_dim").toInt()},
                        {given.value("self")}, "flatten");
  }
  if (base == "aten::mean") {
    return mean(given);
  }
  if (base == "aten::adaptive_avg_pool2d") {
    return adaptive_pool(given);
  }
  if (base == "aten::max_pool2d") {
    return pool<graph::MaxPool>(given);
  }
  if (base == "aten::avg_pool2d") {
    return pool<graph::AveragePool>(given);
  }
  if (base == "aten::dropout") {
    return dropout(given);
  }
  given.refuse("no operation of compiled models");
}

TracedValue to_value(const Napi::Value& value, const char* what) {
  const TracedValue* traced = to_traced(value);
  if (traced == nullptr) {
    throw graph::Untraceable(std::string("cannot be traced: ") + what +
                             " is a tensor that does not come from the forward's input");
  }
  return *traced;
}

}  // namespace

Napi::Value trace_input(Environment& environment, const Napi::CallbackInfo& info) {
  auto session = std::make_shared<TraceSession>();
  const int64_t channels = to_int64(info[0], "channels");
  Value input = session->trace.input({graph::kUnknown, channels, graph::kUnknown, graph::kUnknown});
  return wrap_traced(environment, {std::move(session), std::move(input)});
}

Napi::Value trace_module(Environment& environment, const Napi::CallbackInfo& info) {
  ModuleUse used = use_module(info[0]);
  TracedValue input = to_value(info[1], "input");
  const auto session = std::static_pointer_cast<TraceSession>(input.session);
  nn::add_paths(*used.module, to_string(info[2], "path"), session->trace);
  const nn::TrainingSet nothing;
  const nn::TrainingScope evaluation(nothing);
  Value output = used.module->forward(input.value);
  session->used.push_back(std::move(used));
  return wrap_traced(environment, {session, std::move(output)});
}

Napi::Value trace_operator(Environment& environment, const Napi::CallbackInfo& info) {
  const std::string name = to_string(info[0], "operator name");
  const TracedValue* first = nullptr;
  for (uint32_t i = 0; first == nullptr && i < info[1].As<Napi::Array>().Length(); ++i) {
    const Napi::Value argument = info[1].As<Napi::Array>().Get(i);
    first = to_traced(argument.IsArray() && argument.As<Napi::Array>().Length() > 0
                          ? argument.As<Napi::Array>().Get(0u)
                          : argument);
  }
  if (first == nullptr) {
    refuse_operator(name, "none of its tensors comes from the forward's input");
  }
  const NamedArguments given(name, info[1], info[2]);
  Value result = run_operator(name.substr(0, name.find('.')), given);
  given.check_others();
  return wrap_traced(environment, {first->session, std::move(result)});
}

TracedForward take_traced(const Napi::Value& value) {
  const TracedValue output = to_value(value, "what the forward gives");
  const auto session = std::static_pointer_cast<TraceSession>(output.session);
  return {std::make_shared<graph::Graph>(session->trace.finish({output.value})),
          std::exchange(session->used, {})};
}

Napi::Value compile_traced(Environment& environment, const Napi::CallbackInfo& info) {
  TracedForward forward = take_traced(info[0]);
  const std::string name = to_string(info[1], "name");
  const at::ScalarType dtype = parse_dtype(to_string(info[2], "dtype"));
  const bool allow_tf32 = to_bool(info[3], "allowTF32");
  return submit_compile(environment, [forward = std::move(forward), name, dtype, allow_tf32]() mutable {
    auto model = inference::CompiledModel::compile(*forward.graph, name, {}, dtype, allow_tf32);
    forward = {};
    return model;
  });
}

}  // namespace senet::addon
