// The C++ tests of native/inference and of the cache of memory. An argument names a part of the tests' names.
// scripts/test-native.js builds and runs it with sanitizers.
#include "support.h"

#include "runtime/threads.h"

#include <ATen/Context.h>

int main(int count, char** arguments) {
  // LibTorch warns about NNPACK on processors that it does not support; the addon switches it off as well.
  at::globalContext().setUserEnabledNNPACK(false);
  senet::runtime::use_threads(2);
  senet::test::Runner runner(count > 1 ? arguments[1] : "");
  senet::test::test_block_cache(runner);
  senet::test::test_packing(runner);
  senet::test::test_convolution(runner);
  senet::test::test_pixel_kernels(runner);
  senet::test::test_winograd(runner);
  senet::test::test_programs(runner);
  senet::test::test_compiled_model(runner);
  senet::test::test_registered_network(runner);
  return runner.finish();
}
