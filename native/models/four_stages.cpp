#include "models/four_stages.h"

#include <utility>
#include <vector>

namespace senet::models {

void FourStages::add_stages(const Parts& parts, int64_t channels, const MakeDownsample& make_downsample,
                            const MakeBlock& make_block) {
  for (size_t stage = 0; stage < stages_.size(); ++stage) {
    const int64_t planes = int64_t{64} << stage;
    const int64_t out = planes * parts.expansion;
    std::vector<std::shared_ptr<nn::Module>> blocks;
    for (int64_t i = 0; i < parts.blocks[stage]; ++i) {
      const int64_t stride = i == 0 && stage > 0 ? 2 : 1;
      // Made before its block, so it draws first, although the block registers it last.
      std::shared_ptr<nn::Module> downsample =
          i == 0 && (stride != 1 || channels != out) ? make_downsample(channels, out, stride) : nullptr;
      blocks.push_back(make_block(channels, planes, stride, std::move(downsample)));
      channels = out;
    }
    add_child("layer" + std::to_string(stage + 1), stages_[stage],
              std::make_shared<nn::Sequential>(std::move(blocks)));
  }
  add_child(parts.pool, pool_, std::make_shared<nn::AdaptiveAvgPool2d>());
  head_name_ = parts.head;
  add_head(head_name_, head_, channels, nn::make_head(channels, parts.classes));
  drop_rate_ = parts.drop_rate;
}

nn::Value FourStages::compute(const nn::Value& input) {
  nn::Value x = stem(input);  // N x channels x 56 x 56, from 224 x 224; e = expansion:
  for (const auto& stage : stages_) {
    x = stage->forward(x);  // N x 64 e x 56 x 56, 128 e x 28 x 28, 256 e x 14 x 14, 512 e x 7 x 7
  }
  x = apply(graph::Flatten{}, {pool_->forward(x)});
  if (drop_rate_ > 0 && in_training()) {
    x = apply(graph::Dropout{drop_rate_}, {x});
  }
  return head_->forward(x);  // N x classes
}

void FourStages::check_input(const nn::Value& input) const {
  nn::Module::check_input(input);
  check_image(input, width().input);
}

nn::InputSize FourStages::input_size() const {
  return {{224, 224}};
}

nn::Width FourStages::width() const {
  return {first().width().input, head_width(head_name_)};
}

bool FourStages::begins_with(const nn::Module& child) const {
  return &child == &first();
}

bool FourStages::ends_with(const nn::Module& child) const {
  return &child == head_.get();
}

}  // namespace senet::models
