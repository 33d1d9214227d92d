#include "models/se_inception_v3.h"

#include "core/error.h"
#include "nn/init.h"

namespace senet::models {
namespace {

std::shared_ptr<nn::BasicConv2d> basic_conv(int64_t in, int64_t out, int64_t kernel_size, int64_t stride = 1,
                                            int64_t padding = 0) {
  return std::make_shared<nn::BasicConv2d>(
      nn::Conv2dOptions{in, out, {kernel_size, kernel_size}, {stride, stride}, {padding, padding}});
}

// From ImageNet's mean and standard deviation to 0.5 and 0.5, which weights ported from TensorFlow expect.
const graph::ChannelAffine& to_half_normalisation() {
  // Never destroyed: a forward may still run when the process ends.
  static const auto* const made =
      new graph::ChannelAffine{{0.229 / 0.5, 0.224 / 0.5, 0.225 / 0.5},
                               {(0.485 - 0.5) / 0.5, (0.456 - 0.5) / 0.5, (0.406 - 0.5) / 0.5}};
  return *made;
}

nn::Recalibrate to_recalibrate(const nn::OptionReader& options, const std::string& name) {
  if (name == "none") {
    return nn::Recalibrate::kNone;
  }
  if (name == "input") {
    return nn::Recalibrate::kInput;
  }
  if (name == "output") {
    return nn::Recalibrate::kOutput;
  }
  options.fail("ERR_SENET_ARG_RANGE", "recalibrate",
               "must be 'none', 'input' or 'output', got '" + name + "'");
}

}  // namespace

Inception3::Inception3(const InceptionOptions& options) : Module("Inception3"), options(options) {
  add_child("Conv2d_1a_3x3", Conv2d_1a_3x3, basic_conv(options.in_channels, 32, 3, 2));
  add_child("Conv2d_2a_3x3", Conv2d_2a_3x3, basic_conv(32, 32, 3));
  add_child("Conv2d_2b_3x3", Conv2d_2b_3x3, basic_conv(32, 64, 3, 1, 1));
  add_child("maxpool1", maxpool1, std::make_shared<nn::MaxPool2d>(graph::MaxPool{3, 2}));
  add_child("Conv2d_3b_1x1", Conv2d_3b_1x1, basic_conv(64, 80, 1));
  add_child("Conv2d_4a_3x3", Conv2d_4a_3x3, basic_conv(80, 192, 3));
  add_child("maxpool2", maxpool2, std::make_shared<nn::MaxPool2d>(graph::MaxPool{3, 2}));
  mixed_5 = {register_module("Mixed_5b", std::make_shared<nn::InceptionA>(192, 32)),
             register_module("Mixed_5c", std::make_shared<nn::InceptionA>(256, 64)),
             register_module("Mixed_5d", std::make_shared<nn::InceptionA>(288, 64))};
  mixed_6 = {register_module("Mixed_6a", std::make_shared<nn::InceptionB>(288)),
             register_module("Mixed_6b", std::make_shared<nn::InceptionC>(768, 128)),
             register_module("Mixed_6c", std::make_shared<nn::InceptionC>(768, 160)),
             register_module("Mixed_6d", std::make_shared<nn::InceptionC>(768, 160)),
             register_module("Mixed_6e", std::make_shared<nn::InceptionC>(768, 192))};
  if (options.aux_logits) {
    add_child("AuxLogits", AuxLogits, std::make_shared<nn::InceptionAux>(768, options.num_classes));
  }
  mixed_7 = {register_module("Mixed_7a", std::make_shared<nn::InceptionD>(768)),
             register_module("Mixed_7b", std::make_shared<nn::InceptionE>(1280)),
             register_module("Mixed_7c", std::make_shared<nn::InceptionE>(2048))};
  add_child("avgpool", avgpool, std::make_shared<nn::AdaptiveAvgPool2d>());
  add_child("dropout", dropout, std::make_shared<nn::Dropout>());
  add_head("fc", fc, 2048, nn::make_head(2048, options.num_classes));
  nn::init_inception(*this);
}

nn::Value Inception3::compute(const nn::Value& input) {
  return run(input, nullptr);
}

nn::Output Inception3::compute_all(const nn::Value& input) {
  nn::Output output;
  output.logits = run(input, &output.aux_logits);
  return output;
}

nn::Value Inception3::run(const nn::Value& input, nn::Value* aux_logits) {
  nn::Value x =
      options.transform_input ? apply(to_half_normalisation(), {input}) : input;  // N x channels x 299 x 299
  x = Conv2d_1a_3x3->forward(x);                                                  // N x 32 x 149 x 149
  x = Conv2d_2a_3x3->forward(x);                                                  // N x 32 x 147 x 147
  x = maxpool1->forward(Conv2d_2b_3x3->forward(x));                               // N x 64 x 73 x 73
  x = Conv2d_3b_1x1->forward(x);                                                  // N x 80 x 73 x 73
  x = maxpool2->forward(Conv2d_4a_3x3->forward(x));                               // N x 192 x 35 x 35
  for (const auto& block : mixed_5) {
    x = block->forward(x);  // N x 256, 288, 288 x 35 x 35
  }
  for (const auto& block : mixed_6) {
    x = block->forward(x);  // N x 768 x 17 x 17
  }
  if (aux_logits != nullptr && AuxLogits && in_training()) {
    *aux_logits = AuxLogits->forward(x);
  }
  for (const auto& block : mixed_7) {
    x = block->forward(x);  // N x 1280, 2048, 2048 x 8 x 8
  }
  x = apply(graph::Flatten{}, {dropout->forward(avgpool->forward(x))});  // N x 2048
  return fc->forward(x);                                                 // N x classes
}

void Inception3::check_input(const nn::Value& input) const {
  Module::check_input(input);
  check_image(input, width().input);
}

nn::InputSize Inception3::input_size() const {
  return {{299, 299}};
}

nn::Width Inception3::width() const {
  return {Conv2d_1a_3x3->width().input, head_width("fc")};
}

bool Inception3::begins_with(const nn::Module& child) const {
  return &child == Conv2d_1a_3x3.get() && !options.transform_input;  // which is of three channels
}

bool Inception3::ends_with(const nn::Module& child) const {
  return &child == fc.get() || &child == AuxLogits.get();
}

void Inception3::add_se(nn::Recalibrate where) {
  for (const auto& block : mixed_5) {
    block->add_se(where);
  }
  for (const auto& block : mixed_6) {
    block->add_se(where);
  }
  if (AuxLogits) {
    AuxLogits->add_se(where == nn::Recalibrate::kOutput ? nn::Recalibrate::kInput : where);
  }
  for (const auto& block : mixed_7) {
    block->add_se(where);
  }
}

SEInception3::SEInception3(const InceptionOptions& options, nn::Recalibrate recalibrate)
    : Module("SEInception3") {
  add_child("model", model, std::make_shared<Inception3>(options));
  model->add_se(recalibrate);
}

nn::Value SEInception3::compute(const nn::Value& input) {
  return model->forward(input);
}

nn::Output SEInception3::compute_all(const nn::Value& input) {
  return model->forward_all(input);
}

void SEInception3::check_input(const nn::Value& input) const {
  model->check_input(input);
  const auto is_other = [](int64_t size) { return size != 299 && size != graph::kUnknown; };
  if (is_other(input.size(2)) || is_other(input.size(3))) {
    throw Error("ERR_SENET_SHAPE", "input size must be (299, 299), got (" + std::to_string(input.size(2)) +
                                       ", " + std::to_string(input.size(3)) + ")");
  }
}

nn::InputSize SEInception3::input_size() const {
  return {{299, 299}, /*is_only=*/true};
}

nn::Width SEInception3::width() const {
  return model->width();
}

bool SEInception3::begins_with(const nn::Module& child) const {
  return &child == model.get();
}

bool SEInception3::ends_with(const nn::Module& child) const {
  return &child == model.get();
}

std::shared_ptr<nn::Module> SEInception3::make(nn::OptionReader& options) {
  const InceptionOptions inception{options.integer("numClasses", nn::kMaxWidth), options.boolean("auxLogits"),
                                   options.boolean("transformInput"),
                                   options.integer("inChannels", nn::kMaxWidth)};
  const nn::Recalibrate where = to_recalibrate(options, options.string("recalibrate"));
  options.reject_others();
  if (inception.transform_input && inception.in_channels != 3) {
    options.fail("ERR_SENET_ARG_RANGE", "inChannels",
                 "must be 3 with transformInput, got " + std::to_string(inception.in_channels));
  }
  return std::make_shared<SEInception3>(inception, where);
}

}  // namespace senet::models
