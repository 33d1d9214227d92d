#include "addon/compiled.h"

#include "addon/convert.h"
#include "addon/modules.h"
#include "addon/wrap.h"
#include "core/error.h"
#include "core/names.h"
#include "inference/backend.h"
#include "inference/compiled_model.h"
#include "inference/cpu/program.h"
#include "runtime/executor.h"

#include <utility>

namespace senet::addon {
namespace {

struct CompiledBox {
  static constexpr napi_type_tag kTag{0x7a3c95d1e08f4b62, 0xb91f2d6c4e5a8037};
  std::shared_ptr<const inference::CompiledModel> model;  // null once disposed; jobs hold it until they end
  int64_t reported_bytes = 0;

  void released(Napi::Env env) {
    if (reported_bytes != 0) {
      Napi::MemoryManagement::AdjustExternalMemory(env, -reported_bytes);
    }
    reported_bytes = 0;
    model.reset();
  }
};

Napi::Value wrap_compiled(Environment& environment, std::shared_ptr<const inference::CompiledModel> model) {
  auto box = std::make_unique<CompiledBox>();
  box->reported_bytes = model->weight_bytes();
  box->model = std::move(model);
  Napi::MemoryManagement::AdjustExternalMemory(environment.env(), box->reported_bytes);
  return wrap(environment.env(), std::move(box));
}

}  // namespace

const std::shared_ptr<const inference::CompiledModel>& to_compiled(const Napi::Value& value) {
  const auto* box = unwrap<CompiledBox>(value);
  if (box == nullptr) {
    throw Error("ERR_SENET_ARG_TYPE", "expected a compiled model, got " + describe_value(value));
  }
  if (box->model == nullptr) {
    throw Error("ERR_SENET_DISPOSED", "the compiled model was disposed");
  }
  return box->model;
}

Napi::Value submit_compile(Environment& environment,
                           std::function<std::shared_ptr<const inference::CompiledModel>()> compile) {
  const int64_t job = environment.submit([compile = std::move(compile)]() -> Deliver {
    return [model = compile()](Environment& here) mutable -> Napi::Value {
      return wrap_compiled(here, std::move(model));
    };
  });
  return environment.job_number(job);
}

Napi::Value compile_module(Environment& environment, const Napi::CallbackInfo& info) {
  ModuleUse used = use_module(info[0]);
  const at::ScalarType dtype = parse_dtype(to_string(info[1], "dtype"));
  const bool allow_tf32 = to_bool(info[2], "allowTF32");
  return submit_compile(environment, [used = std::move(used), dtype, allow_tf32]() mutable {
    auto model = inference::CompiledModel::compile(*used.module, dtype, allow_tf32);
    // The source goes now if it was disposed meanwhile; its memory stays with the allocator until that is
    // idle.
    used = {};
    return model;
  });
}

Napi::Value compiled_backend(Environment& environment, const Napi::CallbackInfo& info) {
  const at::ScalarType dtype = parse_dtype(to_string(info[0], "dtype"));
  const inference::Target target{to_device(info[1]), dtype};
  auto result = Napi::Object::New(environment.env());
  result.Set("backend", inference::kernels_name(target));
  result.Set("reason", inference::why_no_faster_backend(target));
  return result;
}

Napi::Value compiled_info(Environment& environment, const Napi::CallbackInfo& info) {
  const inference::CompiledModel& model = *to_compiled(info[0]);
  auto result = Napi::Object::New(environment.env());
  result.Set("model", model.name);
  result.Set("device", device_name(model.device));
  result.Set("backend", model.backend());
  result.Set("backendReason", model.backend_reason);
  result.Set("weightBytes", static_cast<double>(model.weight_bytes()));
  result.Set("lanes", model.lanes());
  result.Set("usualSize", from_shape(environment.env(), model.usual_size));
  return result;
}

Napi::Value compiled_forward(Environment& environment, const Napi::CallbackInfo& info) {
  auto model = to_compiled(info[0]);
  // An alias: whoever changes the tensor's shape in place meanwhile does not change what the job reads.
  const at::Tensor input = to_tensor(info[1], "input").detach();
  model->check_input(input);
  const int64_t job = environment.submit([model = std::move(model), input]() -> Deliver {
    at::Tensor output = model->forward(input);
    return [output = std::move(output)](Environment& here) mutable -> Napi::Value {
      return wrap_tensor(here, std::move(output));
    };
  });
  return environment.job_number(job);
}

Napi::Value compiled_answer(Environment& environment, const Napi::CallbackInfo& info) {
  auto model = to_compiled(info[0]);
  inference::HostBatch batch{to_tensor(info[1], "pixels").detach(), to_floats(info[2], "mean"),
                             to_floats(info[3], "deviation")};
  model->check_batch(batch);
  const int64_t job =
      environment.submit_later([model = std::move(model), batch = std::move(batch)](JobFinish finish) {
        const inference::Afterwards afterwards{
            [model, finish = std::move(finish)](at::Tensor result, std::exception_ptr failure) mutable {
              model.reset();  // or it might go when the process has ended
              finish(
                  [result = std::move(result)](Environment& here) mutable -> Napi::Value {
                    return wrap_tensor(here, std::move(result));
                  },
                  failure);
            },
            [](std::function<void()> work) { runtime::Executor::instance().go_on(std::move(work)); }};
        model->answer(batch, afterwards);
      });
  return environment.job_number(job);
}

Napi::Value compiled_explain(Environment& environment, const Napi::CallbackInfo& info) {
  const Napi::Env env = environment.env();
  const inference::CompiledModel& model = *to_compiled(info[0]);
  const int64_t height = to_int64(info[1], "height");
  const int64_t width = to_int64(info[2], "width");
  if (height < 1 || width < 1) {
    throw Error("ERR_SENET_SHAPE", "explain: expected a height and width of at least 1");
  }
  auto steps = Napi::Array::New(env);
  uint32_t next = 0;
  for (const inference::StepInfo& step : model.explain({height, width})) {
    auto object = Napi::Object::New(env);
    object.Set("name", step.name);
    object.Set("operation", step.operation);
    auto fused = Napi::Array::New(env, step.fused.size());
    for (size_t i = 0; i < step.fused.size(); ++i) {
      fused.Set(static_cast<uint32_t>(i), step.fused[i]);
    }
    object.Set("fused", fused);
    object.Set("input", from_shape(env, step.input));
    object.Set("output", from_shape(env, step.output));
    object.Set("weightBytes", static_cast<double>(step.weight_bytes));
    object.Set("activationBytes", static_cast<double>(step.activation_bytes));
    object.Set("multiplyAdds", static_cast<double>(step.multiply_adds));
    if (!step.kernel.empty()) {
      object.Set("kernel", step.kernel);
    }
    if (step.quantization) {
      auto quantization = Napi::Object::New(env);
      quantization.Set("scale", static_cast<double>(step.quantization->scale));
      quantization.Set("zero", static_cast<double>(step.quantization->zero));
      quantization.Set(
          "error", step.quantization->error ? Napi::Value::From(env, *step.quantization->error) : env.Null());
      object.Set("quantization", quantization);
    }
    steps.Set(next++, object);
  }
  return steps;
}

Napi::Value compiled_profile(Environment& environment, const Napi::CallbackInfo& info) {
  auto model = to_compiled(info[0]);
  // An alias: whoever changes the tensor's shape in place meanwhile does not change what the job reads.
  const at::Tensor input = to_tensor(info[1], "input").detach();
  model->check_input(input);
  const int64_t job = environment.submit([model = std::move(model), input]() -> Deliver {
    inference::StepSeconds seconds;
    model->profile(input, &seconds);
    return [seconds = std::move(seconds)](Environment& here) -> Napi::Value {
      auto result = Napi::Float64Array::New(here.env(), seconds.size());
      std::copy(seconds.begin(), seconds.end(), result.Data());
      return result;
    };
  });
  return environment.job_number(job);
}

bool discard_compiled(const Napi::Value& value) {
  auto* box = unwrap<CompiledBox>(value);
  if (box != nullptr) {
    box->released(value.Env());
  }
  return box != nullptr;
}

Napi::Value dispose_compiled(Environment& environment, const Napi::CallbackInfo& info) {
  if (!discard_compiled(info[0])) {
    throw Error("ERR_SENET_ARG_TYPE", "expected a compiled model, got " + describe_value(info[0]));
  }
  return environment.env().Undefined();
}

}  // namespace senet::addon
