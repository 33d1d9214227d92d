// The ImageNet ResNet (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016) as torchvision
// builds it, over a block with `kExpansion` and a constructor from BlockOptions.
#pragma once

#include "models/four_stages.h"
#include "nn/init.h"
#include "nn/residual_blocks.h"

#include <utility>

namespace senet::models {

template <class Block>
class ResNet : public FourStages {
 public:
  ResNet(std::string type_name, const std::array<int64_t, 4>& layers, int64_t num_classes,
         int64_t in_channels = 3)
      : FourStages(std::move(type_name)) {
    const int64_t channels = 64;
    add_child("conv1", conv1_,
              std::make_shared<nn::Conv2d>(nn::Conv2dOptions{in_channels, channels, {7, 7}, {2, 2}, {3, 3}}));
    add_child("bn1", bn1_, std::make_shared<nn::BatchNorm2d>(channels));
    add_child("relu", relu_, std::make_shared<nn::ReLU>());
    add_child("maxpool", maxpool_, std::make_shared<nn::MaxPool2d>(graph::MaxPool{3, 2, 1}));
    add_stages({"avgpool", "fc", layers, Block::kExpansion, num_classes}, channels, nn::make_downsample,
               [](int64_t in, int64_t planes, int64_t stride, std::shared_ptr<nn::Module> downsample) {
                 nn::BlockOptions options{in, planes};
                 options.stride = stride;
                 options.downsample = std::move(downsample);
                 return std::make_shared<Block>(options);
               });
    nn::init_kaiming_normal(*this, nn::Fan::kOut);
  }

 protected:
  nn::Value stem(const nn::Value& input) override {
    return maxpool_->forward(relu_->forward(bn1_->forward(conv1_->forward(input))));
  }
  const nn::Module& first() const override {
    return *conv1_;
  }

 private:
  std::shared_ptr<nn::Conv2d> conv1_;
  std::shared_ptr<nn::BatchNorm2d> bn1_;
  std::shared_ptr<nn::ReLU> relu_;
  std::shared_ptr<nn::MaxPool2d> maxpool_;
};

}  // namespace senet::models
