// What the residual networks for ImageNet share (He et al., "Deep Residual Learning for Image Recognition",
// CVPR 2016, table 1): a stem, four stages of blocks, the mean over the pixels and a classifier. How a family
// calls its parts, and what a stem and a block are, it says itself.
#pragma once

#include "nn/layers.h"

#include <array>
#include <functional>
#include <memory>
#include <string>

namespace senet::models {

class FourStages : public nn::Module {
 public:
  nn::Value compute(const nn::Value& input) override;
  void check_input(const nn::Value& input) const override;
  nn::InputSize input_size() const override;
  nn::Width width() const override;
  bool begins_with(const nn::Module& child) const override;
  bool ends_with(const nn::Module& child) const override;

 protected:
  /// What a shortcut goes through where channels or size change.
  using MakeDownsample = std::function<std::shared_ptr<nn::Module>(int64_t in, int64_t out, int64_t stride)>;
  /// `downsample` is null where the shortcut is the identity.
  using MakeBlock = std::function<std::shared_ptr<nn::Module>(int64_t in, int64_t planes, int64_t stride,
                                                              std::shared_ptr<nn::Module> downsample)>;
  struct Parts {
    const char* pool;  // the name of the child that takes the mean
    const char* head;  // of the classifier
    std::array<int64_t, 4> blocks;
    int64_t expansion;  // channels behind a block for each of its planes
    int64_t classes;    // 0 gives the features
    double drop_rate = 0;
  };

  explicit FourStages(std::string type_name) : nn::Module(std::move(type_name)) {}

  /// Adds layer1 to layer4, the pool and the head, behind a stem of `channels`.
  void add_stages(const Parts& parts, int64_t channels, const MakeDownsample& make_downsample,
                  const MakeBlock& make_block);
  /// N x channels x H / 4 x W / 4, of images.
  virtual nn::Value stem(const nn::Value& input) = 0;
  /// The child that reads the image.
  virtual const nn::Module& first() const = 0;

  std::array<std::shared_ptr<nn::Sequential>, 4> stages_;

 private:
  std::shared_ptr<nn::AdaptiveAvgPool2d> pool_;
  std::shared_ptr<nn::Module> head_;
  std::string head_name_;
  double drop_rate_ = 0;
};

}  // namespace senet::models
