#include "inference/graph.h"

#include "core/error.h"
#include "models/cifar_se_resnet.h"
#include "models/se_inception_v3.h"
#include "models/se_resnet.h"

#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

namespace senet::inference {
namespace {

// Walks the module tree by type. Each `build` takes the value that the module reads and gives the one that it
// makes; `path` is the module's name in the source.
class Builder {
 public:
  Graph take() {
    graph_.output_is_vector = stage(graph_.output) >= Stage::kVector;
    return std::move(graph_);
  }

  void build_root(nn::Module& module) {
    graph_.input = add_value(input_channels(module));
    graph_.output = build(module, "", graph_.input);
    if (dynamic_cast<models::SEBasicResNet*>(&module) != nullptr ||
        dynamic_cast<models::SEBottleneckResNet*>(&module) != nullptr) {
      graph_.usual_size = {224, 224};
    }
    graph_.only_usual_size = dynamic_cast<models::SEInception3*>(&module) != nullptr;
    if (graph_.only_usual_size || dynamic_cast<models::Inception3*>(&module) != nullptr) {
      graph_.usual_size = {299, 299};
    }
  }

 private:
  // How far a value has come from an image to logits. Blocks and layers read images; what is pooled goes to
  // the last Linear layer alone.
  enum class Stage { kImage, kPooled, kVector, kLogits };

  // A module by its type: children whose forward is a plain chain, layers, and blocks.
  ValueId build(nn::Module& module, const std::string& path, ValueId x) {
    if (dynamic_cast<nn::Dropout*>(&module) != nullptr || dynamic_cast<nn::Identity*>(&module) != nullptr) {
      return x;  // evaluation mode
    }
    if (const auto* flatten = dynamic_cast<nn::Flatten*>(&module);
        flatten != nullptr && stage(x) == Stage::kPooled && flatten->start == 1 &&
        (flatten->end == -1 || flatten->end == 3)) {
      return staged(Stage::kVector, x);
    }
    if (auto* linear = dynamic_cast<nn::Linear*>(&module); linear != nullptr && stage(x) == Stage::kVector) {
      return logits(*linear, path, x);
    }
    if (auto* sequential = dynamic_cast<nn::Sequential*>(&module)) {
      return build_sequential(*sequential, path, x);
    }
    if (auto* conv = dynamic_cast<nn::Conv2d*>(&module)) {
      return convolution(*conv, nullptr, path, x, /*relu=*/false);
    }
    if (auto* bn = dynamic_cast<nn::BatchNorm2d*>(&module)) {
      return affine(*bn, path, x, /*relu=*/false);
    }
    if (dynamic_cast<nn::ReLU*>(&module) != nullptr) {
      expect_image(module, path, x);
      return graph_.add({Operation::kRelu, path, {x}}, channels(x));
    }
    if (auto* pool = dynamic_cast<nn::MaxPool2d*>(&module)) {
      return max_pool(*pool, path, x, pool->kernel_size, pool->stride, pool->padding);
    }
    if (auto* pool = dynamic_cast<nn::AdaptiveAvgPool2d*>(&module)) {
      return global_pool(*pool, path, x);
    }
    if (auto* pool = dynamic_cast<nn::AvgPool2d*>(&module)) {
      return average_pool(*pool, path, x, pool->kernel_size, pool->stride, pool->padding);
    }
    if (auto* se = dynamic_cast<nn::SELayer*>(&module)) {
      return squeeze_excite(*se, path, x, kNoValue, /*relu=*/false);
    }
    if (auto* block = dynamic_cast<nn::SEBasicBlock*>(&module)) {
      return basic_block(*block, block->downsample.get(), path, x);
    }
    if (auto* block = dynamic_cast<nn::CifarSEBasicBlock*>(&module)) {
      if (block->downsample != nullptr && changes_input(*block->downsample)) {
        refuse(*block, path,
               "has a downsample that changes the block's input in place before conv1 reads it");
      }
      return basic_block(*block, block->downsample.get(), path, x);
    }
    if (auto* block = dynamic_cast<nn::SEBottleneck*>(&module)) {
      return bottleneck(*block, path, x);
    }
    if (auto* conv = dynamic_cast<nn::BasicConv2d*>(&module)) {
      return basic_conv(*conv, path, x);
    }
    if (auto* block = dynamic_cast<nn::InceptionBlock*>(&module)) {
      return inception_block(*block, path, x);
    }
    if (auto* net = dynamic_cast<models::SEBasicResNet*>(&module)) {
      return resnet(*net, path, x);
    }
    if (auto* net = dynamic_cast<models::SEBottleneckResNet*>(&module)) {
      return resnet(*net, path, x);
    }
    if (auto* net = dynamic_cast<models::CifarSEResNet*>(&module)) {
      return cifar_resnet(*net, path, x);
    }
    if (auto* net = dynamic_cast<models::SEInception3*>(&module)) {
      return inception(*net->model, join(path, "model"), x);
    }
    if (auto* net = dynamic_cast<models::Inception3*>(&module)) {
      return inception(*net, path, x);
    }
    expect_image(module, path, x);
    refuse(module, path, "takes no image by itself; compile the model that it is part of");
  }

  [[noreturn]] static void refuse(const nn::Module& module, const std::string& path, const std::string& why) {
    throw Error("ERR_SENET_COMPILE",
                "compile: " + module.name() + (path.empty() ? "" : " ('" + path + "')") + ' ' + why);
  }

  // Whether a module in evaluation mode writes to what it is given.
  static bool changes_input(const nn::Module& module) {
    if (const auto* relu = dynamic_cast<const nn::ReLU*>(&module)) {
      return relu->in_place;
    }
    const auto* sequential = dynamic_cast<const nn::Sequential*>(&module);
    if (sequential == nullptr) {
      return false;
    }
    for (const auto& layer : sequential->layers()) {
      if (changes_input(*layer)) {
        return true;
      }
      if (!gives_input(*layer)) {
        return false;
      }
    }
    return false;
  }

  // Whether a module in evaluation mode gives what it is given, or a view of it.
  static bool gives_input(const nn::Module& module) {
    if (const auto* sequential = dynamic_cast<const nn::Sequential*>(&module)) {
      return std::all_of(sequential->layers().begin(), sequential->layers().end(),
                         [](const auto& layer) { return gives_input(*layer); });
    }
    return dynamic_cast<const nn::Identity*>(&module) != nullptr ||
           dynamic_cast<const nn::Dropout*>(&module) != nullptr ||
           dynamic_cast<const nn::Flatten*>(&module) != nullptr;
  }

  // A BatchNorm after a convolution belongs to it, and so does a ReLU after either.
  ValueId build_sequential(nn::Sequential& sequential, const std::string& path, ValueId x) {
    const auto& layers = sequential.layers();
    for (size_t i = 0; i < layers.size();) {
      const std::string name = join(path, std::to_string(i));
      const auto follows = [&](size_t at, auto* type) {
        return at < layers.size() ? dynamic_cast<decltype(type)>(layers[at].get()) : nullptr;
      };
      auto* conv = follows(i, static_cast<nn::Conv2d*>(nullptr));
      auto* bn = follows(conv != nullptr ? i + 1 : i, static_cast<nn::BatchNorm2d*>(nullptr));
      if (conv == nullptr && bn == nullptr) {
        x = build(*layers[i++], name, x);
        continue;
      }
      i += (conv != nullptr ? 1 : 0) + (bn != nullptr ? 1 : 0);
      const bool relu = follows(i, static_cast<nn::ReLU*>(nullptr)) != nullptr;
      i += relu ? 1 : 0;
      x = conv != nullptr ? convolution(*conv, bn, name, x, relu) : affine(*bn, name, x, relu);
    }
    return x;
  }

  template <class Block, class Downsample>
  ValueId basic_block(Block& block, Downsample* downsample, const std::string& path, ValueId input) {
    ValueId x = convolution(*block.conv1, block.bn1.get(), join(path, "conv1"), input, /*relu=*/true);
    x = convolution(*block.conv2, block.bn2.get(), join(path, "conv2"), x, /*relu=*/false);
    return finish_block(*block.se, downsample, path, x, input);
  }

  ValueId bottleneck(nn::SEBottleneck& block, const std::string& path, ValueId input) {
    ValueId x = convolution(*block.conv1, block.bn1.get(), join(path, "conv1"), input, /*relu=*/true);
    x = convolution(*block.conv2, block.bn2.get(), join(path, "conv2"), x, /*relu=*/true);
    x = convolution(*block.conv3, block.bn3.get(), join(path, "conv3"), x, /*relu=*/false);
    return finish_block(*block.se, block.downsample.get(), path, x, input);
  }

  ValueId finish_block(nn::SELayer& se, nn::Module* downsample, const std::string& path, ValueId x,
                       ValueId input) {
    const ValueId residual =
        downsample == nullptr ? input : build(*downsample, join(path, "downsample"), input);
    return squeeze_excite(se, join(path, "se"), x, residual, /*relu=*/true);
  }

  template <class Block>
  ValueId resnet(models::ResNet<Block>& net, const std::string& path, ValueId x) {
    x = convolution(*net.conv1, net.bn1.get(), join(path, "conv1"), x, /*relu=*/true);
    x = build(*net.maxpool, join(path, "maxpool"), x);
    for (const auto& [name, layer] : {std::pair{"layer1", net.layer1}, std::pair{"layer2", net.layer2},
                                      std::pair{"layer3", net.layer3}, std::pair{"layer4", net.layer4}}) {
      x = build(*layer, join(path, name), x);
    }
    return classify(*net.avgpool, *net.fc, path, x);
  }

  ValueId cifar_resnet(models::CifarSEResNet& net, const std::string& path, ValueId x) {
    const bool late = dynamic_cast<models::CifarSEPreActResNet*>(&net) != nullptr;  // bn1 after the stages
    x = convolution(*net.conv1, late ? nullptr : net.bn1.get(), join(path, "conv1"), x, /*relu=*/!late);
    x = build(*net.layer1, join(path, "layer1"), x);
    x = build(*net.layer2, join(path, "layer2"), x);
    x = build(*net.layer3, join(path, "layer3"), x);
    if (late) {
      x = affine(*net.bn1, join(path, "bn1"), x, /*relu=*/true);
    }
    return classify(*net.avgpool, *net.fc, path, x);
  }

  ValueId classify(nn::AdaptiveAvgPool2d& pool, nn::Linear& fc, const std::string& path, ValueId x) {
    return logits(fc, join(path, "fc"), global_pool(pool, join(path, "avgpool"), x));
  }

  ValueId logits(nn::Linear& linear, const std::string& path, ValueId x) {
    expect_channels(path, channels(x), linear.in_features);
    Node node{Operation::kLinear, path, {x}};
    node.weight = linear.weight;
    node.bias = linear.bias;
    return staged(Stage::kLogits, graph_.add(std::move(node), linear.out_features));
  }

  ValueId basic_conv(nn::BasicConv2d& conv, const std::string& path, ValueId x) {
    return convolution(*conv.conv, conv.bn.get(), path, x, /*relu=*/true);
  }

  ValueId inception(models::Inception3& net, const std::string& path, ValueId x) {
    x = basic_conv(*net.Conv2d_1a_3x3, join(path, "Conv2d_1a_3x3"), x);
    if (net.options.transform_input) {
      if (net.Conv2d_1a_3x3->conv->options.padding != nn::Size2{0, 0}) {
        refuse(*net.Conv2d_1a_3x3->conv, join(path, "Conv2d_1a_3x3.conv"),
               "has padding, and cannot be compiled behind transformInput");
      }
      graph_.nodes.back().half_normalisation = true;
    }
    x = basic_conv(*net.Conv2d_2a_3x3, join(path, "Conv2d_2a_3x3"), x);
    x = basic_conv(*net.Conv2d_2b_3x3, join(path, "Conv2d_2b_3x3"), x);
    x = build(*net.maxpool1, join(path, "maxpool1"), x);
    x = basic_conv(*net.Conv2d_3b_1x1, join(path, "Conv2d_3b_1x1"), x);
    x = basic_conv(*net.Conv2d_4a_3x3, join(path, "Conv2d_4a_3x3"), x);
    x = build(*net.maxpool2, join(path, "maxpool2"), x);
    const auto stage = [&](const auto& blocks, const char* number) {
      char letter = number[0] == '5' ? 'b' : 'a';  // torchvision's names begin at 5b, 6a and 7a
      for (const auto& block : blocks) {
        x = build(*block, join(path, std::string("Mixed_") + number + letter++), x);
      }
    };
    stage(net.mixed_5, "5");
    stage(net.mixed_6, "6");
    stage(net.mixed_7, "7");
    return classify(*net.avgpool, *net.fc, path, x);  // dropout does nothing in evaluation mode
  }

  ValueId inception_block(nn::InceptionBlock& block, const std::string& path, ValueId x) {
    const std::string se = join(path, "SELayer");
    if (block.recalibrate == nn::Recalibrate::kInput) {
      x = squeeze_excite(*block.se, se, x, kNoValue, /*relu=*/false);
    }
    x = branches(block, path, x);
    if (block.recalibrate == nn::Recalibrate::kOutput) {
      x = squeeze_excite(*block.se, se, x, kNoValue, /*relu=*/false);
    }
    return x;
  }

  ValueId branches(nn::InceptionBlock& block, const std::string& path, ValueId x) {
    const auto run = [&](const nn::InceptionBlock::Chain& chain, ValueId value) {
      for (const auto& conv : chain) {
        value = basic_conv(*conv, join(path, name_of(block, *conv)), value);
      }
      return value;
    };
    const auto one = [&](const std::shared_ptr<nn::BasicConv2d>& conv, ValueId value) {
      return run({conv}, value);
    };
    const auto averaged = [&] { return average_pool(block, join(path, "branch_pool"), x, 3, 1, 1); };
    const auto halved = [&] { return max_pool(block, join(path, "max_pool"), x, 3, 2, 0); };
    if (auto* a = dynamic_cast<nn::InceptionA*>(&block)) {
      return concatenate(path, {run(a->branch1x1, x), run(a->branch5x5, x), run(a->branch3x3dbl, x),
                                run(a->branch_pool, averaged())});
    }
    if (auto* b = dynamic_cast<nn::InceptionB*>(&block)) {
      return concatenate(path, {run(b->branch3x3, x), run(b->branch3x3dbl, x), halved()});
    }
    if (auto* c = dynamic_cast<nn::InceptionC*>(&block)) {
      return concatenate(path, {run(c->branch1x1, x), run(c->branch7x7, x), run(c->branch7x7dbl, x),
                                run(c->branch_pool, averaged())});
    }
    if (auto* d = dynamic_cast<nn::InceptionD*>(&block)) {
      return concatenate(path, {run(d->branch3x3, x), run(d->branch7x7x3, x), halved()});
    }
    if (auto* e = dynamic_cast<nn::InceptionE*>(&block)) {
      const ValueId x3 = run(e->branch3x3, x);
      const ValueId x3dbl = run(e->branch3x3dbl, x);
      return concatenate(path, {run(e->branch1x1, x), one(e->branch3x3_a, x3), one(e->branch3x3_b, x3),
                                one(e->branch3x3dbl_a, x3dbl), one(e->branch3x3dbl_b, x3dbl),
                                run(e->branch_pool, averaged())});
    }
    if (auto* aux = dynamic_cast<nn::InceptionAux*>(&block)) {
      x = average_pool(block, join(path, "avg_pool"), x, 5, 3, 0);
      nn::AdaptiveAvgPool2d pool;
      return classify(pool, *aux->fc, path, run({aux->conv0, aux->conv1}, x));
    }
    throw Error("ERR_SENET_INTERNAL", "compile: " + block.name() + " has no plan");
  }

  ValueId convolution(nn::Conv2d& conv, nn::BatchNorm2d* bn, std::string name, ValueId x, bool relu) {
    expect_image(conv, name, x);
    expect_channels(name, channels(x), conv.options.in_channels);
    if (bn != nullptr) {
      expect_channels(name + "' with its BatchNorm", conv.options.out_channels, bn->features);
    }
    if (conv.options.groups != 1 || conv.options.dilation != nn::Size2{1, 1}) {
      refuse(conv, name, "has groups or a dilation other than 1, which are not compiled");
    }
    Node node{Operation::kConvolution, std::move(name), {x}};
    node.relu = relu;
    node.weight = conv.weight;
    node.bias = conv.bias;
    node.kernel = conv.options.kernel_size;
    node.batch_norm = bn;
    node.stride = conv.options.stride;
    node.padding = conv.options.padding;
    return graph_.add(std::move(node), conv.options.out_channels);
  }

  ValueId affine(nn::BatchNorm2d& bn, std::string name, ValueId x, bool relu) {
    expect_image(bn, name, x);
    expect_channels(name, channels(x), bn.features);
    Node node{Operation::kAffine, std::move(name), {x}};
    node.relu = relu;
    node.batch_norm = &bn;
    return graph_.add(std::move(node), channels(x));
  }

  ValueId squeeze_excite(nn::SELayer& se, std::string name, ValueId x, ValueId residual, bool relu) {
    expect_image(se, name, x);
    expect_channels(name, channels(x), se.channel);
    if (se.avg_pool->output_size != nn::Size2{1, 1}) {
      refuse(*se.avg_pool, join(name, "avg_pool"), "does not pool to 1 x 1");
    }
    const std::optional<nn::Excitation> excitation = se.excitation();
    if (!excitation) {
      refuse(se, name, "has the fc " + names_of(*se.fc) + "; only Linear, ReLU, Linear, Sigmoid is compiled");
    }
    const auto& [squeeze, excite] = *excitation;
    expect_channels(join(name, "fc.0"), se.channel, squeeze.in_features);
    expect_channels(join(name, "fc.2"), squeeze.out_features, excite.in_features);
    expect_channels(name, excite.out_features, se.channel);
    Node node{Operation::kSqueezeExcite, std::move(name), {x}};
    if (residual != kNoValue) {
      expect_image(se, node.name, residual);
      expect_channels(node.name, channels(residual), se.channel);
      node.inputs.push_back(residual);
    }
    node.relu = relu;
    node.squeeze_weight = squeeze.weight;
    node.squeeze_bias = squeeze.bias;
    node.excite_weight = excite.weight;
    node.excite_bias = excite.bias;
    return graph_.add(std::move(node), channels(x));
  }

  static std::string names_of(const nn::Sequential& sequential) {
    std::string names;
    for (const auto& layer : sequential.layers()) {
      names += (names.empty() ? "" : ", ") + layer->name();
    }
    return names.empty() ? "without layers" : names;
  }

  // `owner` is the module that pools.
  ValueId max_pool(const nn::Module& owner, std::string name, ValueId x, int64_t kernel, int64_t stride,
                   int64_t padding) {
    expect_image(owner, name, x);
    return pool(Operation::kMaxPool, std::move(name), x, kernel, stride, padding);
  }

  ValueId average_pool(const nn::Module& owner, std::string name, ValueId x, int64_t kernel, int64_t stride,
                       int64_t padding) {
    expect_image(owner, name, x);
    return pool(Operation::kAveragePool, std::move(name), x, kernel, stride, padding);
  }

  ValueId pool(Operation operation, std::string name, ValueId x, int64_t kernel, int64_t stride,
               int64_t padding) {
    Node node{operation, std::move(name), {x}};
    node.kernel = {kernel, kernel};
    node.stride = {stride, stride};
    node.padding = {padding, padding};
    return graph_.add(std::move(node), channels(x));
  }

  ValueId global_pool(nn::AdaptiveAvgPool2d& pool, std::string name, ValueId x) {
    if (pool.output_size != nn::Size2{1, 1}) {
      refuse(pool, name, "pools to another size than 1 x 1, which is not compiled");
    }
    if (stage(x) == Stage::kPooled) {
      return x;
    }
    expect_image(pool, name, x);
    return staged(Stage::kPooled,
                  graph_.add({Operation::kGlobalAveragePool, std::move(name), {x}}, channels(x)));
  }

  ValueId concatenate(std::string name, std::vector<ValueId> parts) {
    int64_t total = 0;
    for (const ValueId part : parts) {
      total += channels(part);
    }
    return graph_.add({Operation::kConcatenate, std::move(name), std::move(parts)}, total);
  }

  static void expect_channels(const std::string& name, int64_t actual, int64_t expected) {
    if (actual != expected) {
      throw Error("ERR_SENET_SHAPE", "compile: '" + name + "' expects " + std::to_string(expected) +
                                         " channels, what it reads has " + std::to_string(actual));
    }
  }

  void expect_image(const nn::Module& module, const std::string& path, ValueId value) const {
    if (stage(value) != Stage::kImage) {
      refuse(module, path, "stands where only Flatten() and one Linear layer can be compiled");
    }
  }

  Stage stage(ValueId value) const {
    const auto found = stages_.find(value);
    return found == stages_.end() ? Stage::kImage : found->second;
  }

  ValueId staged(Stage stage, ValueId value) {
    stages_[value] = stage;
    return value;
  }

  ValueId add_value(int64_t value_channels) {
    graph_.channels.push_back(value_channels);
    return static_cast<ValueId>(graph_.channels.size() - 1);
  }

  int64_t channels(ValueId value) const {
    return graph_.channels[static_cast<size_t>(value)];
  }

  // What the first layer with a fixed width takes; a module without one (a ReLU) is refused.
  static int64_t input_channels(const nn::Module& module) {
    if (const auto* se = dynamic_cast<const nn::SELayer*>(&module)) {
      return se->channel;
    }
    if (const auto* conv = dynamic_cast<const nn::Conv2d*>(&module)) {
      return conv->options.in_channels;
    }
    if (const auto* bn = dynamic_cast<const nn::BatchNorm2d*>(&module)) {
      return bn->features;
    }
    if (const auto* linear = dynamic_cast<const nn::Linear*>(&module)) {
      return linear->in_features;
    }
    if (const auto* block = dynamic_cast<const nn::InceptionBlock*>(&module)) {
      return block->in_channels;
    }
    for (const auto& child : module.children()) {
      const int64_t found = input_channels(dynamic_cast<const nn::Module&>(*child));
      if (found != 0) {
        return found;
      }
    }
    return 0;
  }

  static std::string name_of(const nn::Module& parent, const nn::Module& child) {
    for (const auto& item : parent.named_children()) {
      if (item.value().get() == &child) {
        return item.key();
      }
    }
    return child.name();
  }

  static std::string join(const std::string& path, const std::string& name) {
    return path.empty() ? name : path + '.' + name;
  }

  Graph graph_;
  std::map<ValueId, Stage> stages_;  // of those that are no images
};

// Always a copy.
at::Tensor to_float64(const at::Tensor& tensor) {
  return tensor.detach().to(at::TensorOptions(at::kCPU).dtype(at::kDouble), /*non_blocking=*/false,
                            /*copy=*/true);
}

// Of one value for one image. Whoever computes with sizes needs no check for overflow; an expanded tensor may
// be described as larger than any memory.
constexpr int64_t kMostElements = int64_t{1} << 40;

int64_t window_count(int64_t size, int64_t kernel, int64_t stride, int64_t padding, const std::string& name) {
  const int64_t padded = size + 2 * padding;
  if (padded < kernel) {
    throw Error("ERR_SENET_SHAPE", "'" + name + "' has a window of " + std::to_string(kernel) +
                                       ", its input is only " + std::to_string(padded) + " with padding");
  }
  return (padded - kernel) / stride + 1;
}

// A tensor's shape can be changed in place, behind its module's back; kernels trust these.
void check_tensors(const Graph& graph) {
  const auto expect = [](bool fits, const Node& node, const char* what) {
    if (!fits) {
      throw Error("ERR_SENET_COMPILE", "compile: the " + std::string(what) + " of '" + node.name +
                                           "' has another shape than its module");
    }
  };
  const auto has_shape_if_defined = [](const at::Tensor& vector, int64_t size) {
    return !vector.defined() || vector.sizes() == at::IntArrayRef{size};
  };
  for (const Node& node : graph.nodes) {
    const int64_t in = graph.channels[static_cast<size_t>(node.inputs.front())];
    const int64_t out = graph.channels[static_cast<size_t>(node.output)];
    if (node.weight.defined()) {
      const bool is_linear = node.operation == Operation::kLinear;
      const std::vector<int64_t> shape = is_linear
                                             ? std::vector<int64_t>{out, in}
                                             : std::vector<int64_t>{out, in, node.kernel[0], node.kernel[1]};
      expect(node.weight.sizes() == shape, node, "weight");
    }
    expect(has_shape_if_defined(node.bias, out), node, "bias");
    if (node.batch_norm != nullptr) {
      const nn::BatchNorm2d& bn = *node.batch_norm;
      for (const at::Tensor& vector : {bn.weight, bn.bias, bn.running_mean, bn.running_var}) {
        expect(vector.sizes() == at::IntArrayRef{out}, node, "BatchNorm");
      }
    }
    if (node.squeeze_weight.defined()) {
      const int64_t hidden = node.squeeze_weight.dim() == 2 ? node.squeeze_weight.size(0) : 0;
      expect(node.squeeze_weight.sizes() == at::IntArrayRef{hidden, in} &&
                 node.excite_weight.sizes() == at::IntArrayRef{in, hidden} && hidden > 0 &&
                 has_shape_if_defined(node.squeeze_bias, hidden) &&
                 has_shape_if_defined(node.excite_bias, in),
             node, "squeeze and excitation");
    }
  }
}

}  // namespace

ValueId Graph::add(Node node, int64_t output_channels) {
  channels.push_back(output_channels);
  node.output = static_cast<ValueId>(channels.size() - 1);
  nodes.push_back(std::move(node));
  return nodes.back().output;
}

Graph build_graph(nn::Module& module) {
  Builder builder;
  builder.build_root(module);
  Graph graph = builder.take();
  if (graph.channels[static_cast<size_t>(graph.input)] == 0 || graph.nodes.empty()) {
    throw Error("ERR_SENET_COMPILE", "compile: " + module.name() +
                                         " has no weights of its own; compile the model that it is part of");
  }
  check_tensors(graph);
  return graph;
}

at::Tensor Linearised::product() const {
  const at::Tensor whole = to_float64(weight);
  return scale.defined() ? whole * scale : whole;
}

at::Tensor Linearised::product(int64_t first, int64_t count, int64_t first_input, int64_t inputs) const {
  at::Tensor rows = to_float64(weight.narrow(0, first, count).narrow(1, first_input, inputs)).contiguous();
  return scale.defined() ? rows.mul_(scale.narrow(0, first, count)) : rows;
}

Linearised linearise(const Node& node) {
  const at::TensorOptions options = at::TensorOptions(at::kCPU).dtype(at::kDouble);
  Linearised result;
  if (node.weight.defined()) {
    result.weight = node.weight.detach();
    result.bias = node.bias.defined() ? to_float64(node.bias) : at::zeros({node.weight.size(0)}, options);
  }
  if (node.batch_norm != nullptr) {
    const nn::BatchNorm2d& bn = *node.batch_norm;
    const at::Tensor scale = to_float64(bn.weight) / (to_float64(bn.running_var) + bn.eps).sqrt();
    const at::Tensor shift = to_float64(bn.bias) - to_float64(bn.running_mean) * scale;
    if (node.weight.defined()) {
      result.scale = scale.reshape({-1, 1, 1, 1});
      result.bias = result.bias * scale + shift;
    } else {
      result = {scale, {}, shift};
    }
  }
  if (node.half_normalisation) {
    // Without padding, a scale and shift of the input's channels move into the weights; see
    // to_half_normalisation.
    const at::Tensor mean = at::tensor({0.485, 0.456, 0.406}, options);
    const at::Tensor deviation = at::tensor({0.229, 0.224, 0.225}, options);
    const at::Tensor folded = result.product();
    result.bias =
        result.bias + (folded * ((mean - 0.5) / 0.5).reshape({1, -1, 1, 1})).sum(at::IntArrayRef{1, 2, 3});
    result.weight = folded * (deviation / 0.5).reshape({1, -1, 1, 1});
    result.scale = at::Tensor();
  }
  return result;
}

Graph without_tensors(const Graph& graph) {
  Graph result = graph;
  for (Node& node : result.nodes) {
    for (at::Tensor* tensor : {&node.weight, &node.bias, &node.squeeze_weight, &node.squeeze_bias,
                               &node.excite_weight, &node.excite_bias}) {
      *tensor = at::Tensor();
    }
    node.batch_norm = nullptr;
  }
  return result;
}

std::vector<nn::Size2> infer_sizes(const Graph& graph, nn::Size2 input) {
  const int64_t widest = *std::max_element(graph.channels.begin(), graph.channels.end());
  if (input[0] > kMostElements / widest / input[1]) {
    throw Error("ERR_SENET_SHAPE", "an image of " + std::to_string(input[0]) + " x " +
                                       std::to_string(input[1]) + " is too large for any memory");
  }
  std::vector<nn::Size2> sizes(graph.channels.size(), nn::Size2{0, 0});
  const auto of = [&](ValueId value) -> nn::Size2& { return sizes[static_cast<size_t>(value)]; };
  of(graph.input) = input;
  for (const Node& node : graph.nodes) {
    nn::Size2 size = of(node.inputs.front());
    switch (node.operation) {
      case Operation::kConvolution:
      case Operation::kMaxPool:
      case Operation::kAveragePool:
        for (size_t axis = 0; axis < 2; ++axis) {
          size[axis] =
              window_count(size[axis], node.kernel[axis], node.stride[axis], node.padding[axis], node.name);
        }
        break;
      case Operation::kGlobalAveragePool:
        size = {1, 1};
        break;
      case Operation::kSqueezeExcite:
        if (node.inputs.size() > 1 && of(node.inputs[1]) != size) {
          throw Error("ERR_SENET_SHAPE",
                      "'" + node.name + "': the residual is " + std::to_string(of(node.inputs[1])[0]) +
                          " x " + std::to_string(of(node.inputs[1])[1]) + " and the block's output " +
                          std::to_string(size[0]) + " x " + std::to_string(size[1]));
        }
        break;
      case Operation::kConcatenate:
        for (const ValueId part : node.inputs) {
          if (of(part) != size) {
            throw Error("ERR_SENET_SHAPE", "'" + node.name + "': its branches have different sizes");
          }
        }
        break;
      case Operation::kAffine:
      case Operation::kRelu:
      case Operation::kLinear:
        break;
    }
    of(node.output) = size;
  }
  return sizes;
}

const char* operation_name(Operation operation) {
  switch (operation) {
    case Operation::kConvolution:
      return "convolution";
    case Operation::kAffine:
      return "affine";
    case Operation::kSqueezeExcite:
      return "squeeze_excite";
    case Operation::kRelu:
      return "relu";
    case Operation::kMaxPool:
      return "max_pool";
    case Operation::kAveragePool:
      return "average_pool";
    case Operation::kGlobalAveragePool:
      return "global_average_pool";
    case Operation::kConcatenate:
      return "concatenate";
    case Operation::kLinear:
      return "linear";
  }
  return "?";
}

}  // namespace senet::inference
