// The ImageNet ResNet (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016) as torchvision
// builds it, over a block with `kExpansion` and a constructor from BlockOptions.
#pragma once

#include "nn/init.h"
#include "nn/residual_blocks.h"

#include <array>
#include <string>
#include <utility>

namespace senet::models {

template <class Block>
class ResNet : public nn::Module {
 public:
  ResNet(std::string type_name, const std::array<int64_t, 4>& layers, int64_t num_classes,
         int64_t in_channels = 3)
      : nn::Module(std::move(type_name)) {
    add_child(
        "conv1", conv1,
        std::make_shared<nn::Conv2d>(nn::Conv2dOptions{in_channels, inplanes_, {7, 7}, {2, 2}, {3, 3}}));
    add_child("bn1", bn1, std::make_shared<nn::BatchNorm2d>(inplanes_));
    add_child("relu", relu, std::make_shared<nn::ReLU>());
    add_child("maxpool", maxpool, std::make_shared<nn::MaxPool2d>(graph::MaxPool{3, 2, 1}));
    add_child("layer1", layer1, make_layer(64, layers[0], 1));
    add_child("layer2", layer2, make_layer(128, layers[1], 2));
    add_child("layer3", layer3, make_layer(256, layers[2], 2));
    add_child("layer4", layer4, make_layer(512, layers[3], 2));
    add_child("avgpool", avgpool, std::make_shared<nn::AdaptiveAvgPool2d>());
    add_head("fc", fc, inplanes_, nn::make_head(inplanes_, num_classes));
    nn::init_kaiming_normal(*this, nn::Fan::kOut);
  }

  nn::Value compute(const nn::Value& input) override {
    nn::Value x = relu->forward(bn1->forward(conv1->forward(input)));    // N x 64 x 112 x 112, from 224 x 224
    x = layer1->forward(maxpool->forward(x));                            // N x 64 e x 56 x 56, e = kExpansion
    x = layer2->forward(x);                                              // N x 128 e x 28 x 28
    x = layer3->forward(x);                                              // N x 256 e x 14 x 14
    x = layer4->forward(x);                                              // N x 512 e x 7 x 7
    return fc->forward(apply(graph::Flatten{}, {avgpool->forward(x)}));  // N x classes
  }

  void check_input(const nn::Value& input) const override {
    nn::Module::check_input(input);
    check_image(input, conv1->options.in_channels);
  }

  nn::InputSize input_size() const override {
    return {{224, 224}};
  }

  nn::Width width() const override {
    return {conv1->options.in_channels, head_width("fc")};
  }

  bool begins_with(const nn::Module& child) const override {
    return &child == conv1.get();
  }

  bool ends_with(const nn::Module& child) const override {
    return &child == fc.get();
  }

  std::shared_ptr<nn::Conv2d> conv1;
  std::shared_ptr<nn::BatchNorm2d> bn1;
  std::shared_ptr<nn::ReLU> relu;
  std::shared_ptr<nn::MaxPool2d> maxpool;
  std::shared_ptr<nn::Sequential> layer1, layer2, layer3, layer4;
  std::shared_ptr<nn::AdaptiveAvgPool2d> avgpool;
  std::shared_ptr<nn::Module> fc;

 private:
  std::shared_ptr<nn::Sequential> make_layer(int64_t planes, int64_t blocks, int64_t stride) {
    std::vector<std::shared_ptr<nn::Module>> made;
    for (int64_t i = 0; i < blocks; ++i) {
      nn::BlockOptions options{inplanes_, planes};
      if (i == 0) {
        options.stride = stride;
        // Made before its block, so it draws first, although the block registers it last.
        if (stride != 1 || inplanes_ != planes * Block::kExpansion) {
          options.downsample = nn::make_downsample(inplanes_, planes * Block::kExpansion, stride);
        }
      }
      made.push_back(std::make_shared<Block>(options));
      inplanes_ = planes * Block::kExpansion;
    }
    return std::make_shared<nn::Sequential>(std::move(made));
  }

  int64_t inplanes_ = 64;
};

}  // namespace senet::models
