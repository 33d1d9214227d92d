#include "models/se_resnet.h"

namespace senet::models {

template class ResNet<nn::SEBasicBlock>;
template class ResNet<nn::SEBottleneck>;

}  // namespace senet::models
