// Modules by name: the one table through which the addon makes them. It trusts none of its options.
#pragma once

#include "nn/module.h"

#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

namespace senet::models {

using OptionValue = std::variant<int64_t, double, bool, std::string, std::vector<int64_t>,
                                 std::shared_ptr<nn::Module>, std::vector<std::shared_ptr<nn::Module>>>;
using Options = std::map<std::string, OptionValue>;

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
std::shared_ptr<nn::Module> create_module(const std::string& type, const Options& options);

}  // namespace senet::models
