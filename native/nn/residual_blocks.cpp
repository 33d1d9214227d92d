#include "nn/residual_blocks.h"

namespace senet::nn {

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

Value SEBasicBlock::compute(const Value& input) {
  Value out = relu->forward(bn1->forward(conv1->forward(input)));
  out = se->forward(bn2->forward(conv2->forward(out)));
  const Value residual = downsample ? downsample->forward(input) : input;
  return relu->forward(apply(graph::Add{/*in_place=*/true}, {out, residual}));
}

void SEBasicBlock::check_input(const Value& input) const {
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

Value SEBottleneck::compute(const Value& input) {
  Value out = relu->forward(bn1->forward(conv1->forward(input)));
  out = relu->forward(bn2->forward(conv2->forward(out)));
  out = se->forward(bn3->forward(conv3->forward(out)));
  const Value residual = downsample ? downsample->forward(input) : input;
  return relu->forward(apply(graph::Add{/*in_place=*/true}, {out, residual}));
}

void SEBottleneck::check_input(const Value& input) const {
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

Value CifarSEBasicBlock::compute(const Value& input) {
  const Value residual = downsample ? downsample->forward(input) : input;
  Value out = relu->forward(bn1->forward(conv1->forward(input)));
  out = se->forward(bn2->forward(conv2->forward(out)));
  return relu->forward(apply(graph::Add{/*in_place=*/true}, {out, residual}));
}

void CifarSEBasicBlock::check_input(const Value& input) const {
  Module::check_input(input);
  check_image(input, conv1->options.in_channels);
}

Width CifarSEBasicBlock::width() const {
  return {conv1->options.in_channels, conv2->options.out_channels};
}

template <class Block>
std::shared_ptr<Module> make_block(OptionReader& options) {
  BlockOptions block{options.integer("inplanes", kMaxWidth), options.integer("planes", kMaxWidth)};
  block.stride = options.integer("stride", kMaxWidth);
  block.reduction = options.reduction(block.planes * Block::kExpansion);
  if (options.has("downsample")) {
    block.downsample = options.module("downsample");
  }
  options.reject_others();
  return std::make_shared<Block>(block);
}

std::shared_ptr<Module> SEBasicBlock::make(OptionReader& options) {
  return make_block<SEBasicBlock>(options);
}

std::shared_ptr<Module> SEBottleneck::make(OptionReader& options) {
  return make_block<SEBottleneck>(options);
}

std::shared_ptr<Module> CifarSEBasicBlock::make(OptionReader& options) {
  const int64_t inplanes = options.integer("inplanes", kMaxWidth);
  const int64_t planes = options.integer("planes", kMaxWidth);
  const int64_t stride = options.integer("stride", kMaxWidth);
  const int64_t reduction = options.reduction(planes);
  options.reject_others();
  return std::make_shared<CifarSEBasicBlock>(inplanes, planes, stride, reduction);
}

}  // namespace senet::nn
