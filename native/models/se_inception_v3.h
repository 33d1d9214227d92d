// SE-Inception-v3: torchvision's Inception3 held as `model`, with an SELayer in each Inception block, as in
// the original implementation. Whether and where the layers act is an option, since the original never calls
// them.
#pragma once

#include "nn/inception_blocks.h"

namespace senet::models {

struct InceptionOptions {
  int64_t num_classes;
  bool aux_logits = true;
  /// Of images with three channels only.
  bool transform_input = false;
  int64_t in_channels = 3;
};

/// Inception-v3 as in torchvision, without SE layers after construction.
class Inception3 : public nn::Module {
 public:
  explicit Inception3(const InceptionOptions& options);
  nn::Value compute(const nn::Value& input) override;
  nn::Output compute_all(const nn::Value& input) override;
  void check_input(const nn::Value& input) const override;
  nn::InputSize input_size() const override;
  nn::Width width() const override;
  bool begins_with(const nn::Module& child) const override;
  bool ends_with(const nn::Module& child) const override;
  /// Adds an SELayer to each block, in the blocks' order. The auxiliary head's is for its input whenever it
  /// acts.
  void add_se(nn::Recalibrate where);

  const InceptionOptions options;
  std::shared_ptr<nn::BasicConv2d> Conv2d_1a_3x3, Conv2d_2a_3x3, Conv2d_2b_3x3;
  std::shared_ptr<nn::MaxPool2d> maxpool1;
  std::shared_ptr<nn::BasicConv2d> Conv2d_3b_1x1, Conv2d_4a_3x3;
  std::shared_ptr<nn::MaxPool2d> maxpool2;
  std::vector<std::shared_ptr<nn::InceptionBlock>> mixed_5, mixed_6, mixed_7;  // b to d, a to e, a to c
  std::shared_ptr<nn::InceptionAux> AuxLogits;                                 // null without aux_logits
  std::shared_ptr<nn::AdaptiveAvgPool2d> avgpool;
  std::shared_ptr<nn::Dropout> dropout;
  std::shared_ptr<nn::Module> fc;

 private:
  nn::Value run(const nn::Value& input, nn::Value* aux_logits);
};

/// Takes N x in_channels x 299 x 299 only.
class SEInception3 : public nn::Module {
 public:
  static std::shared_ptr<nn::Module> make(nn::OptionReader& options);
  SEInception3(const InceptionOptions& options, nn::Recalibrate recalibrate);
  nn::Value compute(const nn::Value& input) override;
  nn::Output compute_all(const nn::Value& input) override;
  void check_input(const nn::Value& input) const override;
  nn::InputSize input_size() const override;
  nn::Width width() const override;
  bool begins_with(const nn::Module& child) const override;
  bool ends_with(const nn::Module& child) const override;

  std::shared_ptr<Inception3> model;
};

}  // namespace senet::models
