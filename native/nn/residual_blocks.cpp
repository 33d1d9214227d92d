#include "nn/residual_blocks.h"

namespace senet::nn {
namespace {

// Changes both `out` and what it gives, as the originals do; autograd needs neither value again.
at::Tensor add_and_relu(at::Tensor out, const at::Tensor& residual, ReLU& relu) {
  out += residual;
  return relu.forward(out);
}

}  // namespace

std::shared_ptr<Sequential> make_downsample(int64_t in_channels, int64_t out_channels, int64_t stride) {
  return std::make_shared<Sequential>(std::vector<std::shared_ptr<Module>>{
      conv1x1(in_channels, out_channels, stride), std::make_shared<BatchNorm2d>(out_channels)});
}

SEBasicBlock::SEBasicBlock(const BlockOptions& options) : Module("SEBasicBlock") {
  conv1 = register_module("conv1", conv3x3(options.inplanes, options.planes, options.stride));
  bn1 = register_module("bn1", std::make_shared<BatchNorm2d>(options.planes));
  relu = register_module("relu", std::make_shared<ReLU>());
  conv2 = register_module("conv2", conv3x3(options.planes, options.planes));
  bn2 = register_module("bn2", std::make_shared<BatchNorm2d>(options.planes));
  se = register_module("se", std::make_shared<SELayer>(options.planes, options.reduction));
  if (options.downsample) {
    downsample = register_module("downsample", options.downsample);
  }
}

at::Tensor SEBasicBlock::forward(const at::Tensor& input) {
  at::Tensor out = relu->forward(bn1->forward(conv1->forward(input)));
  out = se->forward(bn2->forward(conv2->forward(out)));
  return add_and_relu(out, downsample ? downsample->forward(input) : input, *relu);
}

void SEBasicBlock::check_input(const at::Tensor& input) const {
  Module::check_input(input);
  check_image(input, conv1->options.in_channels);
}

SEBottleneck::SEBottleneck(const BlockOptions& options) : Module("SEBottleneck") {
  const int64_t planes = options.planes;
  conv1 = register_module("conv1", conv1x1(options.inplanes, planes));
  bn1 = register_module("bn1", std::make_shared<BatchNorm2d>(planes));
  conv2 = register_module("conv2", conv3x3(planes, planes, options.stride));
  bn2 = register_module("bn2", std::make_shared<BatchNorm2d>(planes));
  conv3 = register_module("conv3", conv1x1(planes, planes * kExpansion));
  bn3 = register_module("bn3", std::make_shared<BatchNorm2d>(planes * kExpansion));
  relu = register_module("relu", std::make_shared<ReLU>());
  se = register_module("se", std::make_shared<SELayer>(planes * kExpansion, options.reduction));
  if (options.downsample) {
    downsample = register_module("downsample", options.downsample);
  }
}

at::Tensor SEBottleneck::forward(const at::Tensor& input) {
  at::Tensor out = relu->forward(bn1->forward(conv1->forward(input)));
  out = relu->forward(bn2->forward(conv2->forward(out)));
  out = se->forward(bn3->forward(conv3->forward(out)));
  return add_and_relu(out, downsample ? downsample->forward(input) : input, *relu);
}

void SEBottleneck::check_input(const at::Tensor& input) const {
  Module::check_input(input);
  check_image(input, conv1->options.in_channels);
}

CifarSEBasicBlock::CifarSEBasicBlock(int64_t inplanes, int64_t planes, int64_t stride, int64_t reduction)
    : Module("CifarSEBasicBlock") {
  conv1 = register_module("conv1", conv3x3(inplanes, planes, stride));
  bn1 = register_module("bn1", std::make_shared<BatchNorm2d>(planes));
  relu = register_module("relu", std::make_shared<ReLU>());
  conv2 = register_module("conv2", conv3x3(planes, planes));
  bn2 = register_module("bn2", std::make_shared<BatchNorm2d>(planes));
  se = register_module("se", std::make_shared<SELayer>(planes, reduction));
  // PARITY: the stride alone makes no downsample, so inplanes == planes with a stride of 2 fails in forward,
  // as in the original.
  if (inplanes != planes) {
    downsample = register_module("downsample", make_downsample(inplanes, planes, stride));
  }
}

at::Tensor CifarSEBasicBlock::forward(const at::Tensor& input) {
  // The residual first, as the original: in training mode the order of the BatchNorm updates is free, but
  // jobs that fail half-way leave the same state.
  const at::Tensor residual = downsample ? downsample->forward(input) : input;
  at::Tensor out = relu->forward(bn1->forward(conv1->forward(input)));
  out = se->forward(bn2->forward(conv2->forward(out)));
  return add_and_relu(out, residual, *relu);
}

void CifarSEBasicBlock::check_input(const at::Tensor& input) const {
  Module::check_input(input);
  check_image(input, conv1->options.in_channels);
}

}  // namespace senet::nn
