// fuse_training(): which parts of a training forward become one node. What stands there decides, in the
// networks of every family.
#include "support.h"

#include "graph/fused_training.h"
#include "graph/graph.h"
#include "models/timm_legacy_senet.h"
#include "models/timm_resnet.h"
#include "nn/residual_blocks.h"
#include "nn/trace.h"

#include <algorithm>
#include <memory>
#include <variant>

namespace senet::test {
namespace {

struct Counts {
  int64_t tails = 0;  // BatchNorm, excitation, sum and ReLU
  int64_t norms = 0;  // BatchNorm and ReLU
};

Counts fused(nn::Module& module, at::IntArrayRef shape) {
  graph::Trace trace;
  nn::add_paths(module, "", trace);
  const nn::Output output = module.forward_all(trace.input(shape.vec(), at::kFloat));
  graph::Graph graph = trace.finish({output.logits});
  graph::fuse_training(graph);
  Counts counts;
  for (const graph::Node& node : graph.nodes) {
    counts.tails += std::holds_alternative<graph::Recalibration>(node.operation) ? 1 : 0;
    counts.norms += std::holds_alternative<graph::BatchNormRelu>(node.operation) ? 1 : 0;
  }
  return counts;
}

TEST_CASE("training's passes, an SEBottleneck") {
  nn::BlockOptions options{64, 16, 1};
  options.reduction = 4;
  nn::SEBottleneck block(options);
  block.train();
  const Counts counts = fused(block, {2, 64, 7, 5});
  REQUIRE(counts.tails == 1);
  REQUIRE(counts.norms == 2);
}

TEST_CASE("training's passes, timm's blocks with SE that has biases, and with ECA") {
  for (const bool eca : {false, true}) {
    models::TimmResNetOptions options;
    options.layers = {1, 2, 1, 1};
    options.num_classes = 3;
    options.eca = eca;
    models::TimmResNet network(options);
    network.train();
    const Counts counts = fused(network, {2, 3, 64, 64});
    REQUIRE(counts.tails == 5);
    REQUIRE(counts.norms == 11);  // two of each block, and the stem's
  }
}

TEST_CASE("training's passes, a legacy bottleneck, and a block whose ReLU stands before SE") {
  using Kind = models::LegacyBlockKind;
  for (const auto& [block, tails] :
       {std::pair{Kind::kResNetBottleneck, 4}, std::pair{Kind::kResNetBlock, 0}}) {
    models::LegacySENetOptions options{block, {1, 1, 1, 1}};
    options.num_classes = 3;
    models::LegacySENet network(options);
    network.train();
    REQUIRE(fused(network, {2, 3, 64, 64}).tails == tails);
  }
}

}  // namespace
}  // namespace senet::test
