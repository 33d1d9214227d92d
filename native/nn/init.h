// Initial weights as PyTorch draws them: the same draws, in the same order, from LibTorch's default
// generator. Within a SkipInitScope nothing is drawn. Follows torch.nn.init and the loops of torchvision's
// and the original models' constructors.
#pragma once

#include "nn/module.h"

namespace senet::nn {

/// A float32 tensor to become a parameter: uninitialised, or within a SkipInitScope zeros that take no memory
/// until they are touched.
at::Tensor new_parameter(at::IntArrayRef sizes);

/// The weight of a new Conv2d or Linear: kaiming_uniform_(a = sqrt 5).
void init_default_weight(const at::Tensor& weight);
/// The bias of a new Linear: uniform within 1 / sqrt(fan in).
void init_default_bias(const at::Tensor& bias, const at::Tensor& weight);

enum class Fan { kIn, kOut };
/// Draws every Conv2d below `root` anew with kaiming_normal_(mode = fan), gain sqrt 2, in the order of
/// modules().
void init_kaiming_normal(const torch::nn::Module& root, Fan fan);
/// Draws every Conv2d below `root` anew with kaiming_uniform_ of its defaults (gain sqrt 2, fan in), in the
/// order of modules(), and makes their biases zeros.
void init_kaiming_uniform(const torch::nn::Module& root);
/// Draws the weight of every Conv2d and Linear below `root` anew as torchvision's Inception3 does, in the
/// order of modules().
void init_inception(const torch::nn::Module& root);

}  // namespace senet::nn
