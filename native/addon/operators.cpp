// In the order of a call: the operator by its name, arguments by its schema's types, the call, its results.
#include "addon/operators.h"

#include "addon/convert.h"
#include "addon/index_arguments.h"
#include "addon/mode.h"
#include "addon/refused_operators.h"
#include "addon/tensor_use.h"
#include "core/error.h"
#include "core/names.h"

#include <ATen/ScalarOps.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/core/jit_type.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/result_type.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>

namespace senet::addon {
namespace {

using torch::jit::Stack;

// Why a value does not fit a parameter. Not an error yet: the next overload may take it.
struct Misfit {
  std::string reason;
};

// How specific an overload is; "the first overload that converts" follows this order.
bool comes_first(const c10::OperatorHandle& left, const c10::OperatorHandle& right) {
  const auto rank = [](const c10::OperatorHandle& op) {
    const auto& schema = op.schema();
    const bool writes_out = std::any_of(schema.arguments().begin(), schema.arguments().end(),
                                        [](const c10::Argument& argument) { return argument.is_out(); });
    return std::make_tuple(writes_out, !schema.overload_name().empty(), schema.arguments().size(),
                           schema.overload_name());
  };
  return rank(left) < rank(right);
}

// Every operator with a schema, by its name without overload. Built once: LibTorch registers its operators
// when it is loaded.
const std::map<std::string, std::vector<c10::OperatorHandle>>& operator_table() {
  static const auto* table = [] {
    auto* built = new std::map<std::string, std::vector<c10::OperatorHandle>>();
    for (const auto& name : c10::Dispatcher::singleton().getAllOpNames()) {
      if (auto found = c10::Dispatcher::singleton().findSchema(name)) {
        (*built)[name.name].push_back(*found);
      }
    }
    for (auto& [name, overloads] : *built) {
      std::sort(overloads.begin(), overloads.end(), comes_first);
    }
    return built;
  }();
  return *table;
}

// 'aten::add.Tensor' is one overload, 'aten::add' all of them.
std::vector<c10::OperatorHandle> find_overloads(const std::string& name) {
  const size_t dot = name.find('.');
  const std::string base = name.substr(0, dot);
  const auto found = operator_table().find(base);
  std::vector<c10::OperatorHandle> overloads;
  if (found != operator_table().end()) {
    for (const auto& op : found->second) {
      if (dot == std::string::npos || op.schema().overload_name() == name.substr(dot + 1)) {
        overloads.push_back(op);
      }
    }
  }
  if (overloads.empty()) {
    std::string hint = found == operator_table().end() ? "" : "; its overloads are";
    if (found != operator_table().end()) {
      for (const auto& op : found->second) {
        hint += " '" + base + (op.schema().overload_name().empty() ? "" : ".") + op.schema().overload_name() +
                "'";
      }
    } else if (base.find("::") == std::string::npos && operator_table().count("aten::" + base) != 0) {
      hint = "; did you mean 'aten::" + name + "'?";
    }
    throw Error("ERR_SENET_UNKNOWN_OPERATOR", "LibTorch has no operator '" + name + "'" + hint);
  }
  return overloads;
}

c10::Scalar to_scalar(const Napi::Value& value) {
  if (value.IsBoolean()) {
    return {value.As<Napi::Boolean>().Value()};
  }
  if (value.IsBigInt()) {
    return {to_int64(value, "scalar")};
  }
  if (!value.IsNumber()) {
    throw Misfit{"expected a number, got " + describe_value(value)};
  }
  const double number = value.As<Napi::Number>().DoubleValue();
  // JavaScript has one kind of number: an integral one is an integer, so that it does not turn int64 tensors
  // into floating ones. -0 and what int64 cannot hold stay floating.
  const bool integral = std::trunc(number) == number && std::abs(number) < 9007199254740992.0 &&
                        !(number == 0 && std::signbit(number));
  return integral ? c10::Scalar(static_cast<int64_t>(number)) : c10::Scalar(number);
}

int64_t to_integer(const Napi::Value& value) {
  if (!value.IsNumber() && !value.IsBigInt()) {
    throw Misfit{"expected an integer, got " + describe_value(value)};
  }
  try {
    return to_int64(value, "argument");
  } catch (const Error& error) {
    throw Misfit{error.what()};
  }
}

// Whether traced values are arguments: as undefined tensors.
enum class Traced { kRefused, kTaken };

c10::IValue to_ivalue(const Napi::Value& value, const c10::TypePtr& type, std::optional<int32_t> list_size,
                      Traced traced);

c10::IValue to_list(const Napi::Value& value, const c10::TypePtr& element, std::optional<int32_t> size,
                    Traced traced) {
  const c10::TypePtr stored =
      element->kind() == c10::TypeKind::SymIntType ? c10::TypePtr(c10::IntType::get()) : element;
  c10::impl::GenericList list(stored);
  if (!value.IsArray()) {
    // 'int[2] stride' takes one number for all, as in Python.
    if (!size.has_value() || *size <= 0) {
      throw Misfit{"expected an array, got " + describe_value(value)};
    }
    const c10::IValue repeated = to_ivalue(value, element, std::nullopt, traced);
    for (int32_t i = 0; i < *size; ++i) {
      list.push_back(repeated);
    }
    return list;
  }
  const auto array = value.As<Napi::Array>();
  for (uint32_t i = 0, length = array.Length(); i < length; ++i) {
    const Napi::Value item = array.Get(i);
    list.push_back(to_ivalue(item, element, std::nullopt, traced));
  }
  return list;
}

c10::IValue to_ivalue(const Napi::Value& value, const c10::TypePtr& type, std::optional<int32_t> list_size,
                      Traced traced) {
  switch (type->kind()) {
    case c10::TypeKind::OptionalType:
      if (value.IsNull() || value.IsUndefined()) {
        return {};
      }
      return to_ivalue(value, type->expectRef<c10::OptionalType>().getElementType(), list_size, traced);
    case c10::TypeKind::TensorType:
      if (!is_tensor(value)) {
        throw Misfit{"expected a tensor, got " + describe_value(value)};
      }
      if (traced == Traced::kTaken && to_traced(value) != nullptr) {
        return at::Tensor();
      }
      return to_tensor(value, "argument");
    case c10::TypeKind::ListType:
      return to_list(value, type->expectRef<c10::ListType>().getElementType(), list_size, traced);
    case c10::TypeKind::NumberType:
      return to_scalar(value);
    case c10::TypeKind::IntType:
    case c10::TypeKind::SymIntType:
      return to_integer(value);
    case c10::TypeKind::FloatType:
      if (!value.IsNumber()) {
        throw Misfit{"expected a number, got " + describe_value(value)};
      }
      return value.As<Napi::Number>().DoubleValue();
    case c10::TypeKind::BoolType:
      if (!value.IsBoolean()) {
        throw Misfit{"expected a boolean, got " + describe_value(value)};
      }
      return value.As<Napi::Boolean>().Value();
    case c10::TypeKind::StringType:
      if (!value.IsString()) {
        throw Misfit{"expected a string, got " + describe_value(value)};
      }
      return value.As<Napi::String>().Utf8Value();
    case c10::TypeKind::ScalarTypeType:
      if (!value.IsString() || !is_dtype_name(value.As<Napi::String>().Utf8Value())) {
        throw Misfit{"expected a dtype, got " + describe_value(value)};
      }
      return static_cast<int64_t>(parse_dtype(value.As<Napi::String>().Utf8Value()));
    case c10::TypeKind::DeviceObjType:
      if (!value.IsString()) {
        throw Misfit{"expected a device, got " + describe_value(value)};
      }
      return to_device(value);
    case c10::TypeKind::MemoryFormatType:
      if (!value.IsString()) {
        throw Misfit{"expected a memory format, got " + describe_value(value)};
      }
      return static_cast<int64_t>(parse_memory_format(value.As<Napi::String>().Utf8Value()));
    default:
      throw Misfit{"parameters of type " + type->str() + " cannot be given from JavaScript"};
  }
}

// The operator's stack of arguments; throws Misfit.
Stack make_stack(const c10::FunctionSchema& schema, const Napi::Array& positional,
                 const Napi::Value& keywords, Traced traced) {
  const bool has_keywords = keywords.IsObject();
  const uint32_t given = positional.Length();
  // As Python, which makes a tensor of the number: LibTorch's own mul_ of a number rounds it to a 16-bit
  // tensor's dtype first.
  const bool takes_number_as_tensor = schema.name() == "aten::mul_" && schema.overload_name() == "Tensor";
  Stack stack;
  uint32_t next = 0;
  size_t used_keywords = 0;
  for (const c10::Argument& argument : schema.arguments()) {
    Napi::Value value;
    bool present = false;
    if (!argument.kwarg_only() && next < given) {
      value = positional.Get(next++);
      present = true;
    } else if (has_keywords && keywords.As<Napi::Object>().HasOwnProperty(argument.name())) {
      value = keywords.As<Napi::Object>().Get(argument.name());
      ++used_keywords;
      present = true;
    }
    if (present && value.IsUndefined() && argument.default_value().has_value()) {
      present = false;
    }
    if (!present) {
      if (!argument.default_value().has_value()) {
        throw Misfit{"the argument '" + argument.name() + "' is missing"};
      }
      stack.push_back(*argument.default_value());
      continue;
    }
    try {
      const bool is_scalar = value.IsNumber() || value.IsBigInt() || value.IsBoolean();
      if (takes_number_as_tensor && is_scalar && argument.name() == "other") {
        stack.push_back(at::native::wrapped_scalar_tensor(to_scalar(value)));
        continue;
      }
      stack.push_back(to_ivalue(value, argument.real_type(), argument.N(), traced));
    } catch (const Misfit& misfit) {
      throw Misfit{"'" + argument.name() + "': " + misfit.reason};
    }
  }
  if (next < given) {
    throw Misfit{"it takes " + std::to_string(next) + " positional arguments, got " + std::to_string(given)};
  }
  if (has_keywords && used_keywords < keywords.As<Napi::Object>().GetPropertyNames().Length()) {
    throw Misfit{"a keyword argument is not one of its parameters, or is given twice"};
  }
  return stack;
}

OperatorCall prepare(const std::string& name, const Napi::Value& positional, const Napi::Value& keywords,
                     Traced traced) {
  if (!positional.IsArray()) {
    throw Error("ERR_SENET_ARG_TYPE", "expected an array of arguments, got " + describe_value(positional));
  }
  const auto overloads = find_overloads(name);
  const std::string base = name.substr(0, name.find('.'));
  if (const std::string reason = refusal(base); !reason.empty()) {
    throw Error("ERR_SENET_REFUSED_OPERATOR", "'" + base + "' is refused: " + reason);
  }
  std::string reasons;
  for (const auto& op : overloads) {
    try {
      return {op, make_stack(op.schema(), positional.As<Napi::Array>(), keywords, traced)};
    } catch (const Misfit& misfit) {
      reasons += "\n  " + c10::toString(op.schema()) + "\n    " + misfit.reason;
    }
  }
  throw Error("ERR_SENET_OPERATOR_ARGS", "the arguments fit no overload of '" + name + "':" + reasons);
}

OperatorCall prepare(const Napi::CallbackInfo& info) {
  return prepare(to_string(info[0], "operator name"), info[1], info[2], Traced::kRefused);
}

Napi::Value from_ivalue(Environment& environment, c10::IValue value) {
  const Napi::Env env = environment.env();
  if (value.isTensor()) {
    return wrap_tensor(environment, std::move(value).toTensor());
  }
  if (value.isNone()) {
    return env.Null();
  }
  if (value.isBool()) {
    return Napi::Boolean::New(env, value.toBool());
  }
  if (value.isInt()) {
    return from_int64(env, value.toInt());
  }
  if (value.isSymInt()) {
    return from_int64(env, value.toSymInt().expect_int());
  }
  if (value.isDouble()) {
    return Napi::Number::New(env, value.toDouble());
  }
  if (value.isString()) {
    return Napi::String::New(env, value.toStringRef());
  }
  if (value.isDevice()) {
    return Napi::String::New(env, device_name(value.toDevice()));
  }
  if (value.isList()) {
    auto list = std::move(value).toList();
    auto array = Napi::Array::New(env, list.size());
    for (size_t i = 0; i < list.size(); ++i) {
      array.Set(static_cast<uint32_t>(i), from_ivalue(environment, list.extract(i)));
    }
    return array;
  }
  if (value.isTuple()) {
    const auto& elements = value.toTupleRef().elements();
    auto array = Napi::Array::New(env, elements.size());
    for (size_t i = 0; i < elements.size(); ++i) {
      array.Set(static_cast<uint32_t>(i), from_ivalue(environment, elements[i]));
    }
    return array;
  }
  throw Error("ERR_SENET_LIBTORCH",
              "the operator gave a " + value.tagKind() + ", which has no JavaScript counterpart");
}

// One result as it is, several as an array, none as undefined.
Napi::Value from_stack(Environment& environment, Stack stack) {
  if (stack.empty()) {
    return environment.env().Undefined();
  }
  if (stack.size() == 1) {
    return from_ivalue(environment, std::move(stack[0]));
  }
  auto array = Napi::Array::New(environment.env(), stack.size());
  for (size_t i = 0; i < stack.size(); ++i) {
    array.Set(static_cast<uint32_t>(i), from_ivalue(environment, std::move(stack[i])));
  }
  return array;
}

Mode to_mode(const Napi::CallbackInfo& info) {
  return {to_bool(info[3], "gradMode"), to_autocast(info[4])};
}

// The tensors that an operator is to write its result to (`out`). LibTorch resizes one that the result does
// not fit, and its memory with it, under jobs that read it; so the result is computed apart and copied if it
// fits.
class OutArguments {
 public:
  OutArguments(OperatorCall& call, Mode mode) {
    const auto& arguments = call.op.schema().arguments();
    for (size_t i = 0; i < arguments.size(); ++i) {
      if (!arguments[i].is_out()) {
        continue;
      }
      c10::IValue& value = call.stack[i];
      if (value.isTensor()) {
        value = apart(value.toTensor(), mode);
      } else if (value.isTensorList()) {
        c10::List<at::Tensor> list;
        for (const at::Tensor& given : value.toTensorVector()) {
          list.push_back(apart(given, mode));
        }
        value = list;
      }
    }
  }

  /// Copies the results, and puts the caller's tensors where the operator gave ours back.
  void finish(Stack& results) const {
    for (const auto& [given, result] : pairs_) {
      if (given.sizes() != result.sizes()) {
        throw Error("ERR_SENET_SHAPE", "out: the result has the shape " + shape_text(result.sizes()) +
                                           ", and this tensor " + shape_text(given.sizes()));
      }
    }
    for (const auto& [given, result] : pairs_) {
      given.copy_(result);
      for (c10::IValue& value : results) {
        if (value.isTensor() && value.toTensor().is_same(result)) {
          value = given;
        }
      }
    }
  }

 private:
  at::Tensor apart(const at::Tensor& given, Mode mode) {
    if (!given.defined() || (mode.gradients && given.requires_grad())) {
      return given;  // LibTorch refuses to record that
    }
    const at::NoGradGuard no_grad;
    pairs_.emplace_back(given, at::empty_like(given));
    return pairs_.back().second;
  }

  std::vector<std::pair<at::Tensor, at::Tensor>> pairs_;
};

std::vector<at::Tensor> tensors_in(const Stack& stack) {
  std::vector<at::Tensor> tensors;
  for (const c10::IValue& value : stack) {
    if (value.isTensor()) {
      tensors.push_back(value.toTensor());
    } else if (value.isTensorList()) {
      const std::vector<at::Tensor> list = value.toTensorVector();
      tensors.insert(tensors.end(), list.begin(), list.end());
    }
  }
  return tensors;
}

at::Tensor first_tensor(const Stack& stack) {
  return stack.empty() || !stack[0].isTensor() ? at::Tensor() : stack[0].toTensor();
}

// LibTorch divides integers as the processor does, which ends the process at the one quotient that does not
// fit.
void check_quotients(const OperatorCall& call) {
  const std::string& name = call.op.schema().name();
  const bool divides =
      name == "aten::div" || name == "aten::div_" || name == "aten::divide" || name == "aten::divide_";
  if (!divides || call.stack.size() < 3 || !call.stack[2].isString() ||
      call.stack[2].toStringRef() != "trunc") {
    return;
  }
  const at::Tensor left = call.stack[0].toTensor();
  const at::Tensor right = call.stack[1].isTensor()
                               ? call.stack[1].toTensor()
                               : at::native::wrapped_scalar_tensor(call.stack[1].toScalar());
  const at::ScalarType dtype = at::result_type(left, right);
  if (!left.is_cpu() || !right.is_cpu() || (dtype != at::kLong && dtype != at::kInt)) {
    return;
  }
  const int64_t lowest =
      dtype == at::kLong ? std::numeric_limits<int64_t>::min() : std::numeric_limits<int32_t>::min();
  if (left.to(dtype).eq(lowest).logical_and(right.eq(-1)).any().item<bool>()) {
    throw Error("ERR_SENET_ARG_RANGE",
                name + ": " + std::to_string(lowest) + " / -1 is no " + dtype_name(dtype));
  }
}

void run(OperatorCall& call, Mode mode) {
  const ModeScope scope(mode);
  check_quotients(call);
  const OutArguments out(call, mode);
  check_index_arguments(call.op, call.stack);
  // Held only where it matters: LibTorch reuses what it owns alone.
  const bool is_copy = call.op.schema().name() == "aten::to";
  const at::Tensor source = is_copy ? first_tensor(call.stack) : at::Tensor();
  try {
    call.op.callBoxed(call.stack);
  } catch (const c10::Error&) {
    throw;
  } catch (const std::logic_error& error) {
    // Elsewhere a defect of ours; in here only LibTorch runs.
    throw Error("ERR_SENET_LIBTORCH", error.what());
  }
  out.finish(call.stack);
  if (source.defined()) {
    note_indices(first_tensor(call.stack), source);
  }
}

}  // namespace

Napi::Value call_operator(Environment& environment, const Napi::CallbackInfo& info) {
  const Mode mode = to_mode(info);
  OperatorCall call = prepare(info);
  run(call, mode);
  return from_stack(environment, std::move(call.stack));
}

Napi::Value call_operator_async(Environment& environment, const Napi::CallbackInfo& info) {
  const Mode mode = to_mode(info);
  auto call = std::make_shared<OperatorCall>(prepare(info));
  auto used = std::make_shared<const TensorUse>(tensors_in(call->stack), TensorUse::Part::kNumbers);
  const int64_t job = environment.submit([call = std::move(call), used = std::move(used), mode]() -> Deliver {
    run(*call, mode);
    return [stack = std::move(call->stack)](Environment& here) mutable {
      return from_stack(here, std::move(stack));
    };
  });
  return environment.job_number(job);
}

Napi::Value list_operators(Environment& environment, const Napi::CallbackInfo&) {
  auto names = Napi::Array::New(environment.env());
  uint32_t next = 0;
  for (const auto& [name, overloads] : operator_table()) {
    for (const auto& op : overloads) {
      const std::string& overload = op.schema().overload_name();
      names.Set(next++, overload.empty() ? name : name + "." + overload);
    }
  }
  return names;
}

Napi::Value operator_schemas(Environment& environment, const Napi::CallbackInfo& info) {
  auto schemas = Napi::Array::New(environment.env());
  uint32_t next = 0;
  for (const auto& op : find_overloads(to_string(info[0], "operator name"))) {
    schemas.Set(next++, c10::toString(op.schema()));
  }
  return schemas;
}

OperatorCall match_traced(const std::string& name, const Napi::Value& positional,
                          const Napi::Value& keywords) {
  return prepare(name, positional, keywords, Traced::kTaken);
}

}  // namespace senet::addon
