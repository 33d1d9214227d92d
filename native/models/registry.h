// Modules by name: the one table through which the addon makes them. It trusts none of its options.
#pragma once

#include "nn/module.h"

#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

namespace senet::models {

using OptionValue =
    std::variant<int64_t, double, bool, std::string, std::vector<int64_t>, std::shared_ptr<nn::Module>>;
using Options = std::map<std::string, OptionValue>;

/// Makes a module by its type name; every option but `initWeights` (true) and `downsample` (none) is
/// required:
///   SELayer                     channel, reduction
///   SEBasicBlock, SEBottleneck  inplanes, planes, stride, reduction, downsample (a module)
///   CifarSEBasicBlock           inplanes, planes, stride, reduction
///   SEResNet                    block ("SEBasicBlock" or "SEBottleneck"), layers (four depths), numClasses
///   CifarSEResNet, CifarSEPreActResNet  nSize, numClasses, reduction
///   SEInception3                numClasses, auxLogits, transformInput, recalibrate ("none", "input" or
///   "output")
/// With `initWeights` false, nothing is drawn and the weights are zeros (SkipInitScope).
/// Throws ERR_SENET_ARG_MISSING, ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION, or
/// ERR_SENET_UNKNOWN_MODEL for the type name.
std::shared_ptr<nn::Module> create_module(const std::string& type, const Options& options);

}  // namespace senet::models
