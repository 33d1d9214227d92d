// The modules that the tests of programs compile: small ones of every kind, in evaluation mode, with
// statistics as a trained network has them.
#pragma once

#include "nn/module.h"

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace senet::test {

struct ModuleCase {
  std::string name;
  std::function<std::shared_ptr<nn::Module>()> make;
  int64_t channels;  // of the input
  std::vector<std::array<int64_t, 2>> sizes;
};

std::vector<ModuleCase> module_cases();

/// The same weights at each call.
std::shared_ptr<nn::Module> make_module(const ModuleCase& of);

}  // namespace senet::test
