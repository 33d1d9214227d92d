#include "nn/inception_blocks.h"

namespace senet::nn {
namespace {

Value run_chain(const InceptionBlock::Chain& chain, const Value& input) {
  Value x = input;
  for (const auto& conv : chain) {
    x = conv->forward(x);
  }
  return x;
}

constexpr graph::AveragePool kKeepingPool{3, 1, 1};
constexpr graph::MaxPool kHalvingPool{3, 2};

}  // namespace

BasicConv2d::BasicConv2d(const Conv2dOptions& options) : Module("BasicConv2d") {
  add_child("conv", conv, std::make_shared<Conv2d>(options));
  add_child("bn", bn, std::make_shared<BatchNorm2d>(options.out_channels, /*eps=*/0.001));
}

Value BasicConv2d::compute(const Value& input) {
  return apply(graph::Relu{/*in_place=*/true}, {bn->forward(conv->forward(input))});
}

void BasicConv2d::check_input(const Value& input) const {
  conv->check_input(input);
}

Width BasicConv2d::width() const {
  return conv->width();
}

bool BasicConv2d::begins_with(const Module& child) const {
  return &child == conv.get();
}

InceptionBlock::InceptionBlock(std::string type_name, int64_t in_channels, int64_t out_channels)
    : Module(std::move(type_name)), in_channels(in_channels), out_channels(out_channels) {}

Value InceptionBlock::compute(const Value& input) {
  switch (recalibrate) {
    case Recalibrate::kInput:
      return run_branches(se->forward(input));
    case Recalibrate::kOutput:
      return se->forward(run_branches(input));
    case Recalibrate::kNone:
      break;
  }
  return run_branches(input);
}

void InceptionBlock::check_input(const Value& input) const {
  Module::check_input(input);
  check_image(input, in_channels);
}

Width InceptionBlock::width() const {
  return {in_channels, out_channels};
}

void InceptionBlock::add_se(Recalibrate where) {
  recalibrate = where;
  const int64_t channels = where == Recalibrate::kOutput ? out_channels : in_channels;
  add_child("SELayer", se, std::make_shared<SELayer>(channels));
}

std::shared_ptr<BasicConv2d> InceptionBlock::add(const std::string& name, int64_t in, int64_t out,
                                                 Size2 kernel_size, Size2 padding, int64_t stride) {
  return register_module(
      name, std::make_shared<BasicConv2d>(Conv2dOptions{in, out, kernel_size, {stride, stride}, padding}));
}

// Braced lists evaluate from left to right, so draws and branches below happen in the order in which they are
// read.

InceptionA::InceptionA(int64_t in, int64_t pool_features)
    : InceptionBlock("InceptionA", in, 64 + 64 + 96 + pool_features) {
  branch1x1 = {add("branch1x1", in, 64, {1, 1})};
  branch5x5 = {add("branch5x5_1", in, 48, {1, 1}), add("branch5x5_2", 48, 64, {5, 5}, {2, 2})};
  branch3x3dbl = {add("branch3x3dbl_1", in, 64, {1, 1}), add("branch3x3dbl_2", 64, 96, {3, 3}, {1, 1}),
                  add("branch3x3dbl_3", 96, 96, {3, 3}, {1, 1})};
  branch_pool = {add("branch_pool", in, pool_features, {1, 1})};
}

Value InceptionA::run_branches(const Value& input) {
  return apply(graph::Concatenate{},
               {run_chain(branch1x1, input), run_chain(branch5x5, input), run_chain(branch3x3dbl, input),
                run_chain(branch_pool, apply(kKeepingPool, {input}))});
}

InceptionB::InceptionB(int64_t in) : InceptionBlock("InceptionB", in, 384 + 96 + in) {
  branch3x3 = {add("branch3x3", in, 384, {3, 3}, {0, 0}, 2)};
  branch3x3dbl = {add("branch3x3dbl_1", in, 64, {1, 1}), add("branch3x3dbl_2", 64, 96, {3, 3}, {1, 1}),
                  add("branch3x3dbl_3", 96, 96, {3, 3}, {0, 0}, 2)};
}

Value InceptionB::run_branches(const Value& input) {
  return apply(graph::Concatenate{},
               {run_chain(branch3x3, input), run_chain(branch3x3dbl, input), apply(kHalvingPool, {input})});
}

InceptionC::InceptionC(int64_t in, int64_t c7) : InceptionBlock("InceptionC", in, 4 * 192) {
  branch1x1 = {add("branch1x1", in, 192, {1, 1})};
  branch7x7 = {add("branch7x7_1", in, c7, {1, 1}), add("branch7x7_2", c7, c7, {1, 7}, {0, 3}),
               add("branch7x7_3", c7, 192, {7, 1}, {3, 0})};
  branch7x7dbl = {add("branch7x7dbl_1", in, c7, {1, 1}), add("branch7x7dbl_2", c7, c7, {7, 1}, {3, 0}),
                  add("branch7x7dbl_3", c7, c7, {1, 7}, {0, 3}),
                  add("branch7x7dbl_4", c7, c7, {7, 1}, {3, 0}),
                  add("branch7x7dbl_5", c7, 192, {1, 7}, {0, 3})};
  branch_pool = {add("branch_pool", in, 192, {1, 1})};
}

Value InceptionC::run_branches(const Value& input) {
  return apply(graph::Concatenate{},
               {run_chain(branch1x1, input), run_chain(branch7x7, input), run_chain(branch7x7dbl, input),
                run_chain(branch_pool, apply(kKeepingPool, {input}))});
}

InceptionD::InceptionD(int64_t in) : InceptionBlock("InceptionD", in, 320 + 192 + in) {
  branch3x3 = {add("branch3x3_1", in, 192, {1, 1}), add("branch3x3_2", 192, 320, {3, 3}, {0, 0}, 2)};
  branch7x7x3 = {add("branch7x7x3_1", in, 192, {1, 1}), add("branch7x7x3_2", 192, 192, {1, 7}, {0, 3}),
                 add("branch7x7x3_3", 192, 192, {7, 1}, {3, 0}),
                 add("branch7x7x3_4", 192, 192, {3, 3}, {0, 0}, 2)};
}

Value InceptionD::run_branches(const Value& input) {
  return apply(graph::Concatenate{},
               {run_chain(branch3x3, input), run_chain(branch7x7x3, input), apply(kHalvingPool, {input})});
}

InceptionE::InceptionE(int64_t in) : InceptionBlock("InceptionE", in, 320 + 2 * 384 + 2 * 384 + 192) {
  branch1x1 = {add("branch1x1", in, 320, {1, 1})};
  branch3x3 = {add("branch3x3_1", in, 384, {1, 1})};
  branch3x3_a = add("branch3x3_2a", 384, 384, {1, 3}, {0, 1});
  branch3x3_b = add("branch3x3_2b", 384, 384, {3, 1}, {1, 0});
  branch3x3dbl = {add("branch3x3dbl_1", in, 448, {1, 1}), add("branch3x3dbl_2", 448, 384, {3, 3}, {1, 1})};
  branch3x3dbl_a = add("branch3x3dbl_3a", 384, 384, {1, 3}, {0, 1});
  branch3x3dbl_b = add("branch3x3dbl_3b", 384, 384, {3, 1}, {1, 0});
  branch_pool = {add("branch_pool", in, 192, {1, 1})};
}

Value InceptionE::run_branches(const Value& input) {
  // One step at a time and with inner concatenations, as in torchvision: the order of the steps is the order
  // in which the gradients of `input` are added up.
  const Value x1 = run_chain(branch1x1, input);
  Value x3 = run_chain(branch3x3, input);
  x3 = apply(graph::Concatenate{}, {branch3x3_a->forward(x3), branch3x3_b->forward(x3)});
  Value x3dbl = run_chain(branch3x3dbl, input);
  x3dbl = apply(graph::Concatenate{}, {branch3x3dbl_a->forward(x3dbl), branch3x3dbl_b->forward(x3dbl)});
  return apply(graph::Concatenate{}, {x1, x3, x3dbl, run_chain(branch_pool, apply(kKeepingPool, {input}))});
}

InceptionAux::InceptionAux(int64_t in, int64_t num_classes)
    : InceptionBlock("InceptionAux", in, num_classes) {
  conv0 = add("conv0", in, 128, {1, 1});
  // PARITY: torchvision sets a standard deviation of 0.01 on this wrapper, where its initialisation does not
  // look: the convolution inside keeps 0.1.
  conv1 = add("conv1", 128, 768, {5, 5});
  auto classifier = std::make_shared<Linear>(768, num_classes);
  classifier->inception_standard_deviation = 0.001;
  add_head("fc", fc, 768, std::move(classifier));
}

bool InceptionAux::ends_with(const Module& child) const {
  return &child == fc.get();
}

Value InceptionAux::run_branches(const Value& input) {
  Value x = apply(graph::AveragePool{5, 3}, {input});  // N x 768 x 5 x 5
  x = conv1->forward(conv0->forward(x));               // N x 768 x 1 x 1
  x = apply(graph::AdaptiveAveragePool{}, {x});        // N x 768 x 1 x 1
  return fc->forward(apply(graph::Flatten{}, {x}));    // N x classes
}

}  // namespace senet::nn
