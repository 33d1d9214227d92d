#include "models/se_resnet.h"

namespace senet::models {

template class ResNet<nn::SEBasicBlock>;
template class ResNet<nn::SEBottleneck>;

std::shared_ptr<nn::Module> make_se_resnet(nn::OptionReader& options) {
  const std::string block = options.string("block");
  const std::array<int64_t, 4> layers = options.depths("layers");
  const int64_t num_classes = options.integer("numClasses", nn::kMaxWidth);
  const int64_t in_channels = options.integer("inChannels", nn::kMaxWidth);
  options.reject_others();
  if (block == "SEBasicBlock") {
    return std::make_shared<SEBasicResNet>("SEResNet", layers, num_classes, in_channels);
  }
  if (block == "SEBottleneck") {
    return std::make_shared<SEBottleneckResNet>("SEResNet", layers, num_classes, in_channels);
  }
  options.fail("ERR_SENET_ARG_RANGE", "block",
               "must be 'SEBasicBlock' or 'SEBottleneck', got '" + block + "'");
}

}  // namespace senet::models
