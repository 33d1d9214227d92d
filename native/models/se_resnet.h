// SE-ResNet for ImageNet: ResNet over the SE blocks.
#pragma once

#include "models/resnet.h"

namespace senet::models {

extern template class ResNet<nn::SEBasicBlock>;
extern template class ResNet<nn::SEBottleneck>;

/// The depths 18 (2, 2, 2, 2) and 34 (3, 4, 6, 3).
using SEBasicResNet = ResNet<nn::SEBasicBlock>;
/// The depths 50 (3, 4, 6, 3), 101 (3, 4, 23, 3) and 152 (3, 8, 36, 3).
using SEBottleneckResNet = ResNet<nn::SEBottleneck>;

/// Options: block ("SEBasicBlock" or "SEBottleneck"), layers (four depths), numClasses, inChannels.
std::shared_ptr<nn::Module> make_se_resnet(nn::OptionReader& options);

}  // namespace senet::models
