#include "inference/compiled_model.h"

#include "core/error.h"
#include "core/names.h"
#include "inference/backend.h"
#include "inference/cpu/quantize.h"
#include "nn/trace.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>

#include <utility>

namespace senet::inference {
namespace {

// Where the weights are.
at::Device device_of(const Plan& plan) {
  for (const Node& node : plan.nodes) {
    for (const at::Tensor& tensor : {node.weight, node.squeeze_weight, node.channel_kernel}) {
      if (tensor.defined()) {
        return tensor.device();
      }
    }
    if (node.batch_norm) {
      return node.batch_norm->weight.device();
    }
  }
  return at::kCPU;
}

void check_dtype(at::ScalarType dtype) {
  if (dtype != at::kFloat && dtype != at::kBFloat16 && dtype != at::kHalf) {
    throw Error(
        "ERR_SENET_DTYPE",
        std::string("compile: expected the dtype float32, bfloat16 or float16, got ") + dtype_name(dtype));
  }
}

}  // namespace

std::shared_ptr<const CompiledModel> CompiledModel::compile(nn::Module& module, at::ScalarType dtype,
                                                            bool allow_tf32) {
  check_dtype(dtype);
  return compile(nn::trace_evaluation(module), module.name(), module.input_size(), dtype, allow_tf32);
}

std::shared_ptr<const CompiledModel> CompiledModel::compile(const graph::Graph& graph, std::string name,
                                                            nn::InputSize input_size, at::ScalarType dtype,
                                                            bool allow_tf32) {
  check_dtype(dtype);
  const c10::AutoGradMode no_grad(false);
  Plan plan = make_plan(graph);
  plan.input_size = input_size;
  const Target target{device_of(plan), dtype, allow_tf32};
  std::unique_ptr<const Program> program = find_backend(target).make(plan, target);
  return std::shared_ptr<const CompiledModel>(
      new CompiledModel(std::move(name), target, plan, std::move(program)));
}

CompiledModel::CompiledModel(std::string name, const Target& target, const Plan& plan,
                             std::unique_ptr<const Program> program,
                             std::shared_ptr<const QuantizationRecord> quantization, Tensors tensors)
    : name(std::move(name)),
      dtype(target.dtype),
      device(target.device),
      in_channels(plan.channels(plan.input)),
      usual_size(plan.input_size.usual),
      backend_reason(why_no_faster_backend(target)),
      only_usual_size_(plan.input_size.is_only),
      program_(std::move(program)),
      quantization_(std::move(quantization)),
      tensors_(std::move(tensors)) {}

std::shared_ptr<const CompiledModel> CompiledModel::of_bytes(std::string name, const Plan& plan,
                                                             std::unique_ptr<const Program> program,
                                                             QuantizationRecord record, Tensors tensors) {
  return std::shared_ptr<const CompiledModel>(
      new CompiledModel(std::move(name), {at::kCPU, at::kChar}, plan, std::move(program),
                        std::make_shared<const QuantizationRecord>(std::move(record)), std::move(tensors)));
}

void CompiledModel::check_processor(const Plan& plan) {
  const at::Device device = device_of(plan);
  if (!device.is_cpu()) {
    throw Error("ERR_SENET_DTYPE",
                "compile: int8 is computed on the processor alone; the module is on " + device_name(device));
  }
}

at::Tensor CompiledModel::forward(const at::Tensor& input) const {
  return profile(input, nullptr);
}

at::Tensor CompiledModel::profile(const at::Tensor& input, StepSeconds* seconds) const {
  check_input(input);
  const c10::AutoGradMode no_grad(false);
  return program_->run(input.resolve_neg(), seconds);  // programs read memory as it is
}

void CompiledModel::answer(const HostBatch& batch, const Afterwards& afterwards) const {
  const c10::AutoGradMode no_grad(false);
  if (program_->start(batch, afterwards)) {
    return;
  }
  at::Tensor result;
  std::exception_ptr failure;
  try {
    result = answer_here(batch);
  } catch (...) {
    failure = std::current_exception();
  }
  afterwards.done(std::move(result), failure);
}

at::Tensor CompiledModel::answer_here(const HostBatch& batch) const {
  at::Tensor images = batch.images;
  if (images.scalar_type() == at::kByte) {
    const auto per_channel = [](const std::vector<float>& values) {
      return at::tensor(values).reshape({-1, 1, 1});
    };
    images = images.to(at::kFloat).div_(255).sub(per_channel(batch.mean)).div(per_channel(batch.deviation));
  }
  images = images.expand({images.size(0), in_channels, images.size(2), images.size(3)});
  return program_->run(images.to(device), nullptr).cpu();
}

int CompiledModel::lanes() const {
  return program_->lanes();
}

void CompiledModel::check_batch(const HostBatch& batch) const {
  const at::Tensor& images = batch.images;
  const bool is_bytes = images.scalar_type() == at::kByte;
  if (!is_bytes && images.scalar_type() != at::kFloat) {
    throw Error("ERR_SENET_DTYPE",
                name + ": expected uint8 pixels or float32 images, got " + dtype_name(images.scalar_type()));
  }
  if (!images.is_cpu()) {
    throw Error("ERR_SENET_DEVICE",
                name + ": expected images on the CPU, got some on " + device_name(images.device()));
  }
  if (images.layout() != at::kStrided || images.dim() != 4 || images.numel() == 0 ||
      (images.size(1) != in_channels && images.size(1) != 1)) {
    throw Error("ERR_SENET_SHAPE", name + ": expected images of the shape [N, " +
                                       std::to_string(in_channels) +
                                       ", H, W] with N, H and W at least 1, or of one channel, got " +
                                       shape_text(images.sizes()));
  }
  const auto channels = static_cast<size_t>(in_channels);
  if (is_bytes && (batch.mean.size() != channels || batch.deviation.size() != channels)) {
    throw Error("ERR_SENET_ARG_RANGE", name + ": expected a mean and a standard deviation for each of the " +
                                           std::to_string(in_channels) + " channels, got " +
                                           std::to_string(batch.mean.size()) + " and " +
                                           std::to_string(batch.deviation.size()));
  }
  check_size({images.size(2), images.size(3)}, {usual_size, only_usual_size_});
}

void CompiledModel::check_input(const at::Tensor& input) const {
  check_input(input, name, device, in_channels, {usual_size, only_usual_size_});
}

void CompiledModel::check_input(const at::Tensor& input, const std::string& name, at::Device device,
                                int64_t in_channels, nn::InputSize size) {
  if (input.scalar_type() != at::kFloat) {
    throw Error("ERR_SENET_DTYPE",
                name + ": a compiled model takes float32 and gives float32, whatever its dtype; got " +
                    dtype_name(input.scalar_type()));
  }
  if (input.device() != device) {
    throw Error("ERR_SENET_DEVICE", name + ": expected an input on " + device_name(device) +
                                        ", where the module was when it was compiled, got one on " +
                                        device_name(input.device()));
  }
  if (input.layout() != at::kStrided || input.dim() != 4 || input.size(1) != in_channels ||
      input.numel() == 0) {
    throw Error("ERR_SENET_SHAPE",
                name + ": expected an input of the shape [N, " + std::to_string(in_channels) +
                    ", H, W] with N, H and W at least 1, got " + shape_text(input.sizes()));
  }
  check_size({input.size(2), input.size(3)}, size);
}

void CompiledModel::check_size(graph::Size2 size, nn::InputSize expected) {
  if (expected.is_only && size != expected.usual) {
    const auto text = [](graph::Size2 of) {
      return "(" + std::to_string(of[0]) + ", " + std::to_string(of[1]) + ")";
    };
    throw Error("ERR_SENET_SHAPE", "input size must be " + text(expected.usual) + ", got " + text(size));
  }
}

std::vector<StepInfo> CompiledModel::explain(graph::Size2 size) const {
  check_size(size, {usual_size, only_usual_size_});
  std::vector<StepInfo> steps = program_->explain(size);
  for (StepInfo& step : steps) {
    if (step.quantization && quantization_ != nullptr) {
      const auto found = quantization_->errors.find(step.name);
      if (found != quantization_->errors.end()) {
        step.quantization->error = found->second;
      }
    }
  }
  return steps;
}

int64_t CompiledModel::weight_bytes() const {
  return program_->weight_bytes();
}

const char* CompiledModel::backend() const {
  return program_->backend();
}

}  // namespace senet::inference
