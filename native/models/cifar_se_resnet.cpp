#include "models/cifar_se_resnet.h"

#include "nn/init.h"

namespace senet::models {
namespace {

std::shared_ptr<nn::Sequential> make_stage(int64_t inplanes, int64_t planes, int64_t blocks, int64_t stride,
                                           int64_t reduction) {
  std::vector<std::shared_ptr<nn::Module>> made;
  for (int64_t i = 0; i < blocks; ++i) {
    made.push_back(std::make_shared<nn::CifarSEBasicBlock>(i == 0 ? inplanes : planes, planes,
                                                           i == 0 ? stride : 1, reduction));
  }
  return std::make_shared<nn::Sequential>(std::move(made));
}

}  // namespace

CifarSEResNet::CifarSEResNet(int64_t n_size, int64_t num_classes, int64_t reduction, int64_t in_channels)
    : CifarSEResNet("CifarSEResNet", n_size, num_classes, reduction, in_channels) {}

CifarSEResNet::CifarSEResNet(std::string type_name, int64_t n_size, int64_t num_classes, int64_t reduction,
                             int64_t in_channels)
    : Module(std::move(type_name)) {
  add_child("conv1", conv1, nn::conv3x3(in_channels, 16));
  add_child("bn1", bn1, std::make_shared<nn::BatchNorm2d>(16));
  add_child("relu", relu, std::make_shared<nn::ReLU>());
  add_child("layer1", layer1, make_stage(16, 16, n_size, 1, reduction));
  add_child("layer2", layer2, make_stage(16, 32, n_size, 2, reduction));
  add_child("layer3", layer3, make_stage(32, 64, n_size, 2, reduction));
  add_child("avgpool", avgpool, std::make_shared<nn::AdaptiveAvgPool2d>());
  add_head("fc", fc, 64, nn::make_head(64, num_classes));
  nn::init_kaiming_normal(*this, nn::Fan::kIn);
}

nn::Value CifarSEResNet::compute(const nn::Value& input) {
  nn::Value x = relu->forward(bn1->forward(conv1->forward(input)));    // N x 16 x 32 x 32
  x = layer1->forward(x);                                              // N x 16 x 32 x 32
  x = layer2->forward(x);                                              // N x 32 x 16 x 16
  x = layer3->forward(x);                                              // N x 64 x 8 x 8
  return fc->forward(apply(graph::Flatten{}, {avgpool->forward(x)}));  // N x classes
}

void CifarSEResNet::check_input(const nn::Value& input) const {
  Module::check_input(input);
  check_image(input, conv1->options.in_channels);
}

nn::Width CifarSEResNet::width() const {
  return {conv1->options.in_channels, head_width("fc")};
}

bool CifarSEResNet::begins_with(const nn::Module& child) const {
  return &child == conv1.get();
}

bool CifarSEResNet::ends_with(const nn::Module& child) const {
  return &child == fc.get();
}

CifarSEPreActResNet::CifarSEPreActResNet(int64_t n_size, int64_t num_classes, int64_t reduction,
                                         int64_t in_channels)
    : CifarSEResNet("CifarSEPreActResNet", n_size, num_classes, reduction, in_channels) {
  bn1 = replace_module("bn1",
                       std::make_shared<nn::BatchNorm2d>(64));  // keeps its place in the order of the keys
  nn::init_kaiming_normal(*this, nn::Fan::kIn);
}

nn::Value CifarSEPreActResNet::compute(const nn::Value& input) {
  nn::Value x = layer3->forward(layer2->forward(layer1->forward(conv1->forward(input))));  // N x 64 x 8 x 8
  x = relu->forward(bn1->forward(x));
  // PARITY: the original forgets to return this, and gives None.
  return fc->forward(apply(graph::Flatten{}, {avgpool->forward(x)}));
}

template <class Model>
std::shared_ptr<nn::Module> make_model(nn::OptionReader& options) {
  constexpr int64_t kFirstStageWidth = 16;
  const int64_t n_size = options.integer("nSize", nn::kMaxDepth);
  const int64_t num_classes = options.integer("numClasses", nn::kMaxWidth);
  const int64_t reduction = options.reduction(kFirstStageWidth);
  const int64_t in_channels = options.integer("inChannels", nn::kMaxWidth);
  options.reject_others();
  return std::make_shared<Model>(n_size, num_classes, reduction, in_channels);
}

std::shared_ptr<nn::Module> CifarSEResNet::make(nn::OptionReader& options) {
  return make_model<CifarSEResNet>(options);
}

std::shared_ptr<nn::Module> CifarSEPreActResNet::make(nn::OptionReader& options) {
  return make_model<CifarSEPreActResNet>(options);
}

}  // namespace senet::models
