#include "addon/calibration.h"

#include "addon/compiled.h"
#include "addon/convert.h"
#include "addon/modules.h"
#include "addon/trace.h"
#include "addon/wrap.h"
#include "core/error.h"
#include "inference/calibration.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

namespace senet::addon {
namespace {

using inference::Calibration;

struct CalibrationBox {
  static constexpr napi_type_tag kTag{0x4be0c6b1d92f4a87, 0x8e51b7f3a60c92d4};
  std::shared_ptr<Calibration> calibration;  // null once disposed; jobs hold it until they end

  void released(Napi::Env) {
    calibration.reset();
  }
};

const std::shared_ptr<Calibration>& to_calibration(const Napi::Value& value) {
  const auto* box = unwrap<CalibrationBox>(value);
  if (box == nullptr) {
    throw Error("ERR_SENET_ARG_TYPE", "expected a calibration, got " + describe_value(value));
  }
  if (box->calibration == nullptr) {
    throw Error("ERR_SENET_DISPOSED", "the calibration was disposed");
  }
  return box->calibration;
}

Napi::Value submit_begin(Environment& environment, std::function<std::shared_ptr<Calibration>()> begin) {
  return environment.job_number(environment.submit([begin = std::move(begin)]() -> Deliver {
    return [calibration = begin()](Environment& here) mutable -> Napi::Value {
      auto box = std::make_unique<CalibrationBox>();
      box->calibration = std::move(calibration);
      return wrap(here.env(), std::move(box));
    };
  }));
}

template <class Read>
void for_each(const Napi::Value& value, const char* what, const Read& read) {
  if (!value.IsArray()) {
    throw Error("ERR_SENET_ARG_TYPE",
                std::string(what) + ": expected an array, got " + describe_value(value));
  }
  const auto array = value.As<Napi::Array>();
  for (uint32_t i = 0; i < array.Length(); ++i) {
    read(array.Get(i));
  }
}

std::vector<std::string> to_strings(const Napi::Value& value, const char* what) {
  std::vector<std::string> result;
  for_each(value, what, [&](const Napi::Value& item) { result.push_back(to_string(item, what)); });
  return result;
}

std::vector<double> to_doubles(const Napi::Value& value, const char* what) {
  std::vector<double> result;
  for_each(value, what, [&](const Napi::Value& item) { result.push_back(to_double(item, what)); });
  return result;
}

Napi::Array from_doubles(Napi::Env env, const std::vector<double>& numbers) {
  auto result = Napi::Array::New(env, numbers.size());
  for (size_t i = 0; i < numbers.size(); ++i) {
    result.Set(static_cast<uint32_t>(i), numbers[i]);
  }
  return result;
}

inference::RangeMethod to_method(const std::string& name) {
  if (name == "minmax") {
    return inference::RangeMethod::kMinMax;
  }
  if (name == "percentile") {
    return inference::RangeMethod::kPercentile;
  }
  if (name == "mse") {
    return inference::RangeMethod::kMse;
  }
  throw Error("ERR_SENET_ARG_RANGE", "method: expected minmax, percentile or mse, got '" + name + "'");
}

}  // namespace

Napi::Value begin_calibration(Environment& environment, const Napi::CallbackInfo& info) {
  ModuleUse used = use_module(info[0]);
  return submit_begin(environment, [used = std::move(used)]() { return Calibration::begin(*used.module); });
}

Napi::Value begin_traced_calibration(Environment& environment, const Napi::CallbackInfo& info) {
  TracedForward traced = take_traced(info[0]);
  const std::string name = to_string(info[1], "name");
  return submit_begin(environment, [traced = std::move(traced), name]() {
    return Calibration::begin(*traced.graph, name, {});
  });
}

Napi::Value calibration_observe(Environment& environment, const Napi::CallbackInfo& info) {
  std::shared_ptr<Calibration> calibration = to_calibration(info[0]);
  // An alias: whoever changes the tensor's shape in place meanwhile does not change what the job reads.
  const at::Tensor images = to_tensor(info[1], "images").detach();
  calibration->check_input(images);
  return environment.job_number(
      environment.submit([calibration = std::move(calibration), images]() -> Deliver {
        calibration->observe(images);
        return [](Environment& here) -> Napi::Value { return here.env().Undefined(); };
      }));
}

Napi::Value calibration_finish(Environment& environment, const Napi::CallbackInfo& info) {
  std::shared_ptr<Calibration> calibration = to_calibration(info[0]);
  inference::CalibrationOptions options;
  options.method = to_method(to_string(info[1], "method"));
  options.percentile = to_double(info[2], "percentile");
  options.keep = to_strings(info[3], "keep");
  options.keep_first = to_bool(info[4], "keepFirst");
  options.error_budget = to_double(info[5], "errorBudget");
  return submit_compile(environment, [calibration = std::move(calibration), options = std::move(options)]() {
    return calibration->finish(options);
  });
}

inference::QuantizationRecord to_quantization_record(const Napi::CallbackInfo& info, size_t first) {
  const std::vector<std::string> names = to_strings(info[first], "names");
  const std::vector<double> scales = to_doubles(info[first + 1], "scales");
  const std::vector<double> zeros = to_doubles(info[first + 2], "zeros");
  if (scales.size() != names.size() || zeros.size() != names.size()) {
    throw Error("ERR_SENET_ARG_RANGE", "names, scales and zeros: expected as many of each");
  }
  inference::QuantizationRecord record;
  for (size_t i = 0; i < names.size(); ++i) {
    const auto scale = static_cast<float>(scales[i]);
    if (!(scale > 0.0f && scale < 1e30f && zeros[i] >= 0.0 && zeros[i] <= 255.0)) {
      throw Error("ERR_SENET_ARG_RANGE", "'" + names[i] +
                                             "': expected a scale above 0 and a zero of 0 to 255, got " +
                                             std::to_string(scales[i]) + " and " + std::to_string(zeros[i]));
    }
    record.values[names[i]] = {scale, static_cast<int32_t>(zeros[i])};
  }
  record.keep = to_strings(info[first + 3], "keep");
  record.keep_first = to_bool(info[first + 4], "keepFirst");
  const std::vector<std::string> corrected = to_strings(info[first + 5], "corrected");
  size_t count = 0;
  for_each(info[first + 6], "corrections", [&](const Napi::Value& item) {
    std::vector<double> bias = to_doubles(item, "corrections");
    if (count >= corrected.size() ||
        !std::all_of(bias.begin(), bias.end(), [](double x) { return std::abs(x) < 1e30; })) {
      throw Error("ERR_SENET_ARG_RANGE", "corrections: expected finite numbers, as many lists as names");
    }
    record.corrections[corrected[count++]] = std::move(bias);
  });
  return record;
}

Napi::Value calibration_restore(Environment& environment, const Napi::CallbackInfo& info) {
  std::shared_ptr<Calibration> calibration = to_calibration(info[0]);
  inference::QuantizationRecord record = to_quantization_record(info, 1);
  return submit_compile(environment,
                        [calibration = std::move(calibration), record = std::move(record)]() mutable {
                          return calibration->restore(std::move(record));
                        });
}

Napi::Value compiled_quantization(Environment& environment, const Napi::CallbackInfo& info) {
  const Napi::Env env = environment.env();
  const std::shared_ptr<const inference::CompiledModel> model = to_compiled(info[0]);
  const inference::QuantizationRecord* const record = model->quantization();
  if (record == nullptr) {
    return env.Null();
  }
  auto values = Napi::Array::New(env);
  for (const auto& [name, quantization] : record->values) {
    auto object = Napi::Object::New(env);
    object.Set("name", name);
    object.Set("scale", static_cast<double>(quantization.scale));
    object.Set("zero", static_cast<double>(quantization.zero));
    values.Set(values.Length(), object);
  }
  auto keep = Napi::Array::New(env);
  for (const std::string& name : record->keep) {
    keep.Set(keep.Length(), name);
  }
  auto result = Napi::Object::New(env);
  result.Set("values", values);
  result.Set("keep", keep);
  result.Set("keepFirst", record->keep_first);
  auto corrections = Napi::Array::New(env);
  for (const auto& [name, numbers] : record->corrections) {
    auto object = Napi::Object::New(env);
    object.Set("name", name);
    object.Set("bias", from_doubles(env, numbers));
    corrections.Set(corrections.Length(), object);
  }
  result.Set("corrections", corrections);
  result.Set("error", record->error < 0 ? env.Null() : Napi::Value::From(env, record->error));
  return result;
}

Napi::Value compiled_tensors(Environment& environment, const Napi::CallbackInfo& info) {
  const Napi::Env env = environment.env();
  const std::shared_ptr<const inference::CompiledModel> model = to_compiled(info[0]);
  auto result = Napi::Array::New(env);
  for (const auto& [name, tensor] : model->tensors()) {
    auto pair = Napi::Array::New(env, 2);
    pair.Set(0u, name);
    pair.Set(1u, wrap_tensor(environment, tensor.detach()));
    result.Set(result.Length(), pair);
  }
  return result;
}

bool discard_calibration(const Napi::Value& value) {
  auto* box = unwrap<CalibrationBox>(value);
  if (box != nullptr) {
    box->released(value.Env());
  }
  return box != nullptr;
}

Napi::Value dispose_calibration(Environment& environment, const Napi::CallbackInfo& info) {
  if (!discard_calibration(info[0])) {
    throw Error("ERR_SENET_ARG_TYPE", "expected a calibration, got " + describe_value(info[0]));
  }
  return environment.env().Undefined();
}

}  // namespace senet::addon
