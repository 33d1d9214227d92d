#include "addon/optimizers.h"

#include "addon/convert.h"
#include "addon/tensor_use.h"
#include "addon/wrap.h"
#include "core/error.h"
#include "optim/optimizer.h"

#include <atomic>

namespace senet::addon {
namespace {

// Shared by the handle and the steps that are queued or running.
struct SharedOptimizer {
  explicit SharedOptimizer(optim::OptimizerKind kind) : optimizer(kind) {}
  optim::Optimizer optimizer;
  std::atomic<int> jobs{0};
};

// Counts a step for as long as its work exists.
class OptimizerUse {
 public:
  explicit OptimizerUse(std::shared_ptr<SharedOptimizer> shared) : shared_(std::move(shared)) {
    ++shared_->jobs;
  }
  OptimizerUse(const OptimizerUse&) = delete;
  OptimizerUse& operator=(const OptimizerUse&) = delete;
  ~OptimizerUse() {
    --shared_->jobs;
  }
  optim::Optimizer& optimizer() const {
    return shared_->optimizer;
  }

 private:
  std::shared_ptr<SharedOptimizer> shared_;
};

struct OptimizerBox {
  static constexpr napi_type_tag kTag{0x6b3e0f4d92c8417a, 0x8d15f7a3b06c29e4};
  std::shared_ptr<SharedOptimizer> shared;

  void released(Napi::Env) {
    shared.reset();
  }
};

OptimizerBox& to_box(const Napi::Value& value) {
  auto* box = unwrap<OptimizerBox>(value);
  if (box == nullptr) {
    throw Error("ERR_SENET_ARG_TYPE", "expected an optimiser, got " + describe_value(value));
  }
  return *box;
}

optim::Optimizer& to_idle(const Napi::Value& value) {
  SharedOptimizer& shared = *to_box(value).shared;
  if (shared.jobs.load() != 0) {
    throw Error("ERR_SENET_BUSY", "a step of this optimiser is queued or running; await it first");
  }
  return shared.optimizer;
}

optim::OptimizerKind to_kind(const Napi::Value& value) {
  const std::string name = to_string(value, "optimizer");
  if (name == "sgd") {
    return optim::OptimizerKind::kSgd;
  }
  if (name == "adam") {
    return optim::OptimizerKind::kAdam;
  }
  if (name == "rmsprop") {
    return optim::OptimizerKind::kRmsprop;
  }
  if (name == "adagrad") {
    return optim::OptimizerKind::kAdagrad;
  }
  throw Error("ERR_SENET_ARG_RANGE", "no such optimiser: '" + name + "'");
}

// Absent numbers are 0 and absent flags false: an optimiser does not read what its kind does not have.
optim::OptimizerOptions to_options(const Napi::Value& value) {
  if (!value.IsObject()) {
    throw Error("ERR_SENET_ARG_TYPE", "expected options, got " + describe_value(value));
  }
  const auto given = value.As<Napi::Object>();
  optim::OptimizerOptions options;
  for (auto [name, field] : {std::pair<const char*, double*>{"lr", &options.lr},
                             {"weightDecay", &options.weight_decay},
                             {"momentum", &options.momentum},
                             {"dampening", &options.dampening},
                             {"beta1", &options.beta1},
                             {"beta2", &options.beta2},
                             {"eps", &options.eps},
                             {"alpha", &options.alpha},
                             {"lrDecay", &options.lr_decay},
                             {"initialAccumulatorValue", &options.initial_accumulator_value}}) {
    if (const Napi::Value number = given.Get(name); !number.IsUndefined()) {
      *field = to_double(number, name);
    }
  }
  for (auto [name, field] : {std::pair<const char*, bool*>{"maximize", &options.maximize},
                             {"nesterov", &options.nesterov},
                             {"amsgrad", &options.amsgrad},
                             {"centered", &options.centered},
                             {"decoupledWeightDecay", &options.decoupled_weight_decay}}) {
    if (const Napi::Value flag = given.Get(name); !flag.IsUndefined()) {
      *field = to_bool(flag, name);
    }
  }
  return options;
}

}  // namespace

Napi::Value create_optimizer(Environment& environment, const Napi::CallbackInfo& info) {
  auto box = std::make_unique<OptimizerBox>();
  box->shared = std::make_shared<SharedOptimizer>(to_kind(info[0]));
  return wrap(environment.env(), std::move(box));
}

Napi::Value optimizer_step(Environment& environment, const Napi::CallbackInfo& info) {
  OptimizerBox& box = to_box(info[0]);
  if (!info[1].IsArray()) {
    throw Error("ERR_SENET_ARG_TYPE", "expected an array of groups, got " + describe_value(info[1]));
  }
  const auto array = info[1].As<Napi::Array>();
  std::vector<optim::ParameterGroup> groups;
  std::vector<at::Tensor> all;
  for (uint32_t i = 0, length = array.Length(); i < length; ++i) {
    const auto group = array.Get(i).ToObject();
    groups.push_back({to_tensors(group.Get("params"), "params"), to_options(group.Get("options"))});
    all.insert(all.end(), groups.back().parameters.begin(), groups.back().parameters.end());
  }
  at::Tensor found_inf = info[2].IsNull() ? at::Tensor() : to_tensor(info[2], "foundInf");
  const int64_t job = environment.submit(
      [used = std::make_shared<const OptimizerUse>(box.shared),
       gradients = std::make_shared<const TensorUse>(std::move(all)), groups = std::move(groups),
       found_inf = std::move(found_inf)]() -> Deliver {
        used->optimizer().step(groups, found_inf);
        return [](Environment& here) { return here.env().Undefined(); };
      },
      nullptr, runtime::Company::kAlone);
  return environment.job_number(job);
}

Napi::Value optimizer_state(Environment& environment, const Napi::CallbackInfo& info) {
  optim::Optimizer& optimizer = to_idle(info[0]);
  optim::ParameterState* state = optimizer.state_of(to_tensor(info[1], "parameter"));
  if (state == nullptr) {
    return environment.env().Null();
  }
  auto fields = Napi::Object::New(environment.env());
  for (const auto& [name, tensor] : state->fields()) {
    if (tensor->defined()) {
      fields.Set(name, wrap_tensor(environment, *tensor));
    }
  }
  return fields;
}

Napi::Value set_optimizer_state(Environment& environment, const Napi::CallbackInfo& info) {
  optim::Optimizer& optimizer = to_idle(info[0]);
  if (!info[1].IsArray() || !info[2].IsArray()) {
    throw Error("ERR_SENET_ARG_TYPE", "expected arrays of parameters and states");
  }
  const auto parameters = to_tensors(info[1], "parameter");
  const auto states = info[2].As<Napi::Array>();
  optim::Optimizer fresh(optimizer);
  fresh.clear_state();
  for (uint32_t i = 0; i < parameters.size(); ++i) {
    const auto given = states.Get(i).ToObject();
    optim::ParameterState state;
    for (const auto& [name, tensor] : state.fields()) {
      if (const Napi::Value value = given.Get(name); !value.IsUndefined()) {
        *tensor = to_tensor(value, name);
      }
    }
    fresh.set_state(parameters[i], std::move(state));
  }
  optimizer = std::move(fresh);  // all or none
  return environment.env().Undefined();
}

Napi::Value clip_gradients(Environment& environment, const Napi::CallbackInfo& info) {
  const double max_norm = to_double(info[1], "maxNorm");
  const double norm_type = to_double(info[2], "normType");
  const bool error_if_nonfinite = to_bool(info[3], "errorIfNonfinite");
  const int64_t job = environment.submit(
      [gradients = std::make_shared<const TensorUse>(to_tensors(info[0], "parameters")), max_norm, norm_type,
       error_if_nonfinite]() -> Deliver {
        at::Tensor norm =
            optim::clip_gradients(gradients->tensors(), max_norm, norm_type, error_if_nonfinite);
        return [norm = std::move(norm)](Environment& here) mutable {
          return wrap_tensor(here, std::move(norm));
        };
      },
      nullptr, runtime::Company::kAlone);
  return environment.job_number(job);
}

Napi::Value unscale_gradients(Environment& environment, const Napi::CallbackInfo& info) {
  // A copy: an update of the scale that is called meanwhile is for the next gradients.
  const int64_t job = environment.submit(
      [gradients = std::make_shared<const TensorUse>(to_tensors(info[0], "parameters")),
       scale = to_tensor(info[1], "scale").clone()]() -> Deliver {
        at::Tensor found = optim::unscale_gradients(gradients->tensors(), scale);
        return [found = std::move(found)](Environment& here) mutable {
          return wrap_tensor(here, std::move(found));
        };
      },
      nullptr, runtime::Company::kAlone);
  return environment.job_number(job);
}

Napi::Value average_into(Environment& environment, const Napi::CallbackInfo& info) {
  auto averages = to_tensors(info[0], "averages");
  const double weight = to_double(info[2], "weight");
  // The values are a module's, whose tensors must stay what they are until they have been read.
  auto values = std::make_shared<const TensorUse>(to_tensors(info[1], "values"));
  if (averages.size() != values->tensors().size()) {
    throw Error("ERR_SENET_ARG_RANGE", "expected as many averages as values");
  }
  const int64_t job = environment.submit(
      [averages = std::move(averages), values = std::move(values), weight]() -> Deliver {
        optim::average_into(averages, values->tensors(), weight);
        return [](Environment& here) { return here.env().Undefined(); };
      },
      nullptr, runtime::Company::kAlone);
  return environment.job_number(job);
}

}  // namespace senet::addon
