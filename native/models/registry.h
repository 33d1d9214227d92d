// Modules by name: the one table through which the addon makes them. It trusts none of its options.
#pragma once

#include "nn/options.h"

#include <memory>
#include <string>

namespace senet::models {

/// A row more, for this process. Throws ERR_SENET_INTERNAL if there is one of this type.
void add_factory(const std::string& type, nn::Factory factory);

/// Makes a module by its type name ("SEBottleneck"). Which options a type has, its `make` says.
/// With `initWeights` false, nothing is drawn and the weights are zeros (SkipInitScope).
/// Throws ERR_SENET_ARG_MISSING, ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION, or
/// ERR_SENET_UNKNOWN_MODEL for the type name.
std::shared_ptr<nn::Module> create_module(const std::string& type, const nn::Options& options);

}  // namespace senet::models
