#include "nn/residual_blocks.h"

#include "core/error.h"
#include "core/names.h"
#include "nn/fused_training.h"

#include <ATen/ExpandUtils.h>

namespace senet::nn {

at::Tensor normalise_and_relu(const at::Tensor& x, BatchNorm2d& bn, ReLU& relu) {
  return can_fuse_training(x, bn) ? fused_batch_norm(x, bn, /*relu=*/true) : relu.forward(bn.forward(x));
}

namespace {

// relu(se(bn(x)) + residual). The layers change both `out` and what it gives in place, as the originals do;
// autograd needs neither value again.
at::Tensor recalibrate_and_add(const std::string& block, const at::Tensor& x, BatchNorm2d& bn, SELayer& se,
                               const at::Tensor& residual, ReLU& relu) {
  if (can_fuse_recalibration(x, bn, se, residual)) {
    return fused_recalibration(x, bn, se, residual);
  }
  at::Tensor out = se.forward(bn.forward(x));
  if (!at::is_expandable_to(residual.sizes(), out.sizes())) {
    throw Error("ERR_SENET_SHAPE", block + ": the residual has the shape " + shape_text(residual.sizes()) +
                                       " and the block's output " + shape_text(out.sizes()));
  }
  out += residual;
  return relu.forward(out);
}

}  // namespace

std::shared_ptr<Sequential> make_downsample(int64_t in_channels, int64_t out_channels, int64_t stride) {
  return std::make_shared<Sequential>(std::vector<std::shared_ptr<Module>>{
      conv1x1(in_channels, out_channels, stride), std::make_shared<BatchNorm2d>(out_channels)});
}

SEBasicBlock::SEBasicBlock(const BlockOptions& options) : Module("SEBasicBlock") {
  add_child("conv1", conv1, conv3x3(options.inplanes, options.planes, options.stride));
  add_child("bn1", bn1, std::make_shared<BatchNorm2d>(options.planes));
  add_child("relu", relu, std::make_shared<ReLU>());
  add_child("conv2", conv2, conv3x3(options.planes, options.planes));
  add_child("bn2", bn2, std::make_shared<BatchNorm2d>(options.planes));
  add_child("se", se, std::make_shared<SELayer>(options.planes, options.reduction));
  if (options.downsample) {
    add_child("downsample", downsample, options.downsample);
  }
}

at::Tensor SEBasicBlock::compute(const at::Tensor& input) {
  at::Tensor out = normalise_and_relu(conv1->forward(input), *bn1, *relu);
  out = conv2->forward(out);
  return recalibrate_and_add(name(), out, *bn2, *se, downsample ? downsample->forward(input) : input, *relu);
}

void SEBasicBlock::check_input(const at::Tensor& input) const {
  Module::check_input(input);
  check_image(input, conv1->options.in_channels);
}

Width SEBasicBlock::width() const {
  return {conv1->options.in_channels, conv2->options.out_channels};
}

SEBottleneck::SEBottleneck(const BlockOptions& options) : Module("SEBottleneck") {
  const int64_t planes = options.planes;
  add_child("conv1", conv1, conv1x1(options.inplanes, planes));
  add_child("bn1", bn1, std::make_shared<BatchNorm2d>(planes));
  add_child("conv2", conv2, conv3x3(planes, planes, options.stride));
  add_child("bn2", bn2, std::make_shared<BatchNorm2d>(planes));
  add_child("conv3", conv3, conv1x1(planes, planes * kExpansion));
  add_child("bn3", bn3, std::make_shared<BatchNorm2d>(planes * kExpansion));
  add_child("relu", relu, std::make_shared<ReLU>());
  add_child("se", se, std::make_shared<SELayer>(planes * kExpansion, options.reduction));
  if (options.downsample) {
    add_child("downsample", downsample, options.downsample);
  }
}

at::Tensor SEBottleneck::compute(const at::Tensor& input) {
  at::Tensor out = normalise_and_relu(conv1->forward(input), *bn1, *relu);
  out = normalise_and_relu(conv2->forward(out), *bn2, *relu);
  out = conv3->forward(out);
  return recalibrate_and_add(name(), out, *bn3, *se, downsample ? downsample->forward(input) : input, *relu);
}

void SEBottleneck::check_input(const at::Tensor& input) const {
  Module::check_input(input);
  check_image(input, conv1->options.in_channels);
}

Width SEBottleneck::width() const {
  return {conv1->options.in_channels, conv3->options.out_channels};
}

CifarSEBasicBlock::CifarSEBasicBlock(int64_t inplanes, int64_t planes, int64_t stride, int64_t reduction)
    : Module("CifarSEBasicBlock") {
  add_child("conv1", conv1, conv3x3(inplanes, planes, stride));
  add_child("bn1", bn1, std::make_shared<BatchNorm2d>(planes));
  add_child("relu", relu, std::make_shared<ReLU>());
  add_child("conv2", conv2, conv3x3(planes, planes));
  add_child("bn2", bn2, std::make_shared<BatchNorm2d>(planes));
  add_child("se", se, std::make_shared<SELayer>(planes, reduction));
  // PARITY: the stride alone makes no downsample, so inplanes == planes with a stride of 2 fails in forward,
  // as in the original.
  if (inplanes != planes) {
    add_child("downsample", downsample, make_downsample(inplanes, planes, stride));
  }
}

at::Tensor CifarSEBasicBlock::compute(const at::Tensor& input) {
  // The residual first, as the original: in training mode the order of the BatchNorm updates is free, but
  // jobs that fail half-way leave the same state.
  const at::Tensor residual = downsample ? downsample->forward(input) : input;
  at::Tensor out = normalise_and_relu(conv1->forward(input), *bn1, *relu);
  out = conv2->forward(out);
  return recalibrate_and_add(name(), out, *bn2, *se, residual, *relu);
}

void CifarSEBasicBlock::check_input(const at::Tensor& input) const {
  Module::check_input(input);
  check_image(input, conv1->options.in_channels);
}

Width CifarSEBasicBlock::width() const {
  return {conv1->options.in_channels, conv2->options.out_channels};
}

}  // namespace senet::nn
