// Modules by name: the one table through which the addon makes them. It trusts none of its options.
#pragma once

#include "nn/options.h"

#include <memory>
#include <string>

namespace senet::models {

/// A row more, for this process. Throws ERR_SENET_INTERNAL if there is one of this type.
void add_factory(const std::string& type, nn::Factory factory);

/// Makes a module by its type name; every option but `initWeights` (true) and `downsample` (none) is
/// required:
///   SELayer                     channel, reduction
///   SEBasicBlock, SEBottleneck  inplanes, planes, stride, reduction, downsample (a module)
///   CifarSEBasicBlock           inplanes, planes, stride, reduction
///   SEResNet                    block ("SEBasicBlock" or "SEBottleneck"), layers (four depths), numClasses,
///                               inChannels
///   CifarSEResNet, CifarSEPreActResNet  nSize, numClasses, reduction, inChannels
///   SEInception3                numClasses, auxLogits, transformInput (three channels only), inChannels,
///                               recalibrate ("none", "input" or "output")
///   Conv2d                      inChannels, outChannels, kernelSize, stride, padding, dilation (pairs:
///   height
///                               and width), groups, bias
///   BatchNorm2d                 features, eps, momentum (negative for the average of all batches)
///   Linear                      inFeatures, outFeatures, bias
///   ReLU                        inPlace
///   Sigmoid, Identity           nothing
///   MaxPool2d, AvgPool2d        kernelSize, stride, padding
///   AdaptiveAvgPool2d           outputSize (a pair)
///   Dropout                     p
///   Flatten                     startDim, endDim
///   Sequential                  modules (which become parts of it)
/// With `initWeights` false, nothing is drawn and the weights are zeros (SkipInitScope).
/// Throws ERR_SENET_ARG_MISSING, ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION, or
/// ERR_SENET_UNKNOWN_MODEL for the type name.
std::shared_ptr<nn::Module> create_module(const std::string& type, const nn::Options& options);

}  // namespace senet::models
