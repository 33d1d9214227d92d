// The C++ tests of native/inference, of resizing and of the cache of memory: a doctest program, with all of
// its options. An argument that is no option names a part of the names of the tests that are to run.
// scripts/test-native.js builds and runs it with sanitizers.
#define DOCTEST_CONFIG_IMPLEMENT
#include "runtime/threads.h"

#include <ATen/Context.h>

#include <doctest/doctest.h>

#include <string>

int main(int count, char** arguments) {
  // LibTorch warns about NNPACK on processors that it does not support; the addon switches it off as well.
  at::globalContext().setUserEnabledNNPACK(false);
  senet::runtime::use_threads(2);
  doctest::Context context(count, arguments);
  context.setOption("duration", true);  // names each test that ran
  for (int i = 1; i < count; ++i) {
    if (arguments[i][0] != '-') {
      context.addFilter("test-case", ("*" + std::string(arguments[i]) + "*").c_str());
    }
  }
  return context.run();
}
