// What <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp> includes of gloo, whose headers LibTorch does not
// bring: the few types that it names, as far as it uses them. LibTorch's own library has all of them;
// test/native/gloo_test.cpp compares what is laid out by these with what the library lays out.
#pragma once

#include "gloo/context.h"
