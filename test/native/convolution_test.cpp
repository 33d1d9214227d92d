// ElementKernels::convolution, tile_convolution and group_convolution, and the packing of their weights,
// against at::conv2d in float64.
#include "support.h"

#include "inference/cpu/packing.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace senet::test {
namespace {

using namespace inference;

struct Window {
  int64_t height;
  int64_t width;
  int64_t stride;
};

// What is asked of one convolution. A new field of ConvTask gets a line here, in `draw_case` and in
// `expected`.
struct Case {
  int64_t in;
  int64_t out;
  graph::Size2 size;  // of the input
  Window window;
  graph::Size2 padding;
  bool whole_rows;  // a row of the window is one run of elements; else each of its pixels is one, of a slice
  bool has_scale;
  bool has_residual;
  bool has_sums;
  bool has_output;
  bool output_is_float;
  bool prefetch_output;
  Activation activation;
  int64_t carry_after = kCarryAfter;
  int64_t groups = 1;  // more: group_convolution

  int64_t height() const {
    return (size[0] + 2 * padding[0] - window.height) / window.stride + 1;
  }
  int64_t width() const {
    return (size[1] + 2 * padding[1] - window.width) / window.stride + 1;
  }
  int64_t products() const {
    return inputs() * window.height * window.width;
  }
  // Of a group.
  int64_t inputs() const {
    return in / groups;
  }
  int64_t outputs() const {
    return out / groups;
  }
  // The first input of the group of an output, or of the last.
  int64_t first_input(int64_t channel) const {
    return std::min(channel, out - 1) / outputs() * inputs();
  }
  bool has_taps_abreast() const {
    return window.stride == 1 && window.width == kTapsAbreast;
  }
  std::string name() const {
    return text(in, " to ", out, " channels, input ", size[0], " x ", size[1], ", window ", window.height,
                " x ", window.width, " stride ", window.stride, " padding ", padding[0], " ", padding[1],
                whole_rows ? "" : ", sliced", groups > 1 ? text(", ", groups, " groups") : "",
                has_scale ? ", scale" : "", has_residual ? ", residual" : "", has_sums ? ", sums" : "",
                has_output ? "" : ", no output", output_is_float ? ", float output" : "", ", carried after ",
                carry_after,
                activation == Activation::kRelu      ? ", relu"
                : activation == Activation::kSigmoid ? ", sigmoid"
                                                     : "");
  }
};

Case draw_case(Random& random, int64_t in, int64_t out, graph::Size2 size, Window window) {
  Case of{
      in,   out,   size,  window,           {window.height / 2, window.width / 2}, true, false, false, false,
      true, false, false, Activation::kNone};
  const std::array<int64_t, 2> kernel = {window.height, window.width};
  for (size_t axis = 0; axis < 2; ++axis) {
    // Less padding where the window fits without, and now and then more.
    const int64_t least = std::max<int64_t>(0, (kernel[axis] - size[axis] + 1) / 2);
    of.padding[axis] =
        random.between(least, std::max(least, kernel[axis] / 2 + (random.chance(0.1) ? 1 : 0)));
  }
  of.whole_rows = random.chance(0.7);
  of.has_scale = random.chance();
  of.has_residual = random.chance();
  of.has_sums = random.chance();
  of.has_output = !of.has_sums || random.chance(0.8);
  of.output_is_float = random.chance(0.3);
  of.prefetch_output = random.chance();
  of.carry_after = random.of<int64_t>({1, kCarryAfterOfFew, kCarryAfterOfVectors, kCarryAfter});
  of.activation = random.of<Activation>({Activation::kNone, Activation::kRelu, Activation::kSigmoid});
  return of;
}

at::Tensor activate(const at::Tensor& x, Activation activation) {
  return activation == Activation::kRelu ? x.relu() : activation == Activation::kSigmoid ? x.sigmoid() : x;
}

// The operands of a case, all padded to whole blocks of output channels, in float64 but of numbers that the
// kernel's elements can hold.
struct Operands {
  at::Tensor x;
  at::Tensor weight;
  at::Tensor bias;
  at::Tensor scale;
  at::Tensor residual;
  at::Tensor sums;  // before

  Operands(const Case& of, at::ScalarType dtype, Random& random) {
    const int64_t channels = padded(of.out);
    x = random.tensor({of.in, of.size[0], of.size[1]}, dtype);
    weight = random.tensor({of.out, of.inputs(), of.window.height, of.window.width}, dtype);
    bias = with_zeros(random.tensor({of.out}, at::kFloat), 0, channels);
    scale = random.tensor({channels}, at::kFloat);
    residual = random.tensor({channels, of.height(), of.width()}, dtype);
    sums = random.tensor({channels}, at::kDouble);
  }

  at::Tensor expected(const Case& of) const {
    return activate(linear(of, x, weight, bias, scale, residual), of.activation);
  }
  // The same with every number's magnitude, which rounding errors are relative to.
  at::Tensor magnitude(const Case& of) const {
    return linear(of, x.abs(), weight.abs(), bias.abs(), scale.abs(), residual.abs());
  }

 private:
  static at::Tensor linear(const Case& of, const at::Tensor& x, const at::Tensor& weight,
                           const at::Tensor& bias, const at::Tensor& scale, const at::Tensor& residual) {
    const int64_t channels = padded(of.out);
    at::Tensor y = at::conv2d(x.unsqueeze(0), weight, {}, {of.window.stride, of.window.stride}, of.padding,
                              {1, 1}, of.groups)[0];
    y = with_zeros(y, 0, channels) + bias.reshape({-1, 1, 1});
    if (of.has_scale) {
      y = y * scale.reshape({-1, 1, 1});
    }
    return of.has_residual ? y + residual : y;
  }
};

// A case laid out in memory, ready to run.
class Convolution {
 public:
  Convolution(const Variant& variant, const Case& of, const Operands& operands, Random& random)
      : variant_(variant), case_(of), channels_(padded(of.out)) {
    const at::ScalarType dtype = variant.dtype();
    // Pixels are whole blocks; a whole row of the window may also have fewer channels, of an even number for
    // bfloat16.
    const bool is_grouped = of.groups > 1;
    const int64_t vector = vector_elements(variant);
    int64_t pixel = is_grouped ? std::max(padded(of.in), vector) : padded(of.in);
    if (of.whole_rows && of.in < kChannelBlock && random.chance()) {
      pixel = variant.is_float ? of.in : (of.in + 1) / 2 * 2;
    }
    const int64_t others = of.whole_rows ? 0 : kChannelBlock * random.between(1, 3);
    const graph::Size2 border = {of.padding[0] + random.between(0, 1), of.padding[1] + random.between(0, 1)};
    // NaN everywhere that the kernel has no business.
    input_ = std::make_unique<Picture>(Picture::Shape{pixel, of.size[0], of.size[1], pixel + others,
                                                      others / 2, border[0], border[1], random.between(0, 2)},
                                       dtype, std::nan(""));
    input_->view(of.padding[0], of.padding[1]).zero_();
    input_->view().narrow(0, 0, of.in).copy_(operands.x);
    for (int64_t y = 0; y < of.window.height; ++y) {
      for (int64_t x = 0; x < (of.whole_rows ? 1 : of.window.width); ++x) {
        taps_.push_back(y * input_->strides().row + x * input_->strides().column);
      }
    }
    tap_length_ = is_grouped ? of.inputs() : of.whole_rows ? of.window.width * pixel : pixel;

    residual_ = std::make_unique<Picture>(picture_shape(random), dtype, std::nan(""));
    residual_->view().copy_(operands.residual);
    output_ = std::make_unique<Picture>(picture_shape(random), of.output_is_float ? at::kFloat : dtype, 7.0);
    sums_ = operands.sums.clone();
    bias_ = operands.bias.to(at::kFloat);
    scale_ = operands.scale.to(at::kFloat);

    panels_ =
        split_panels(of.out, variant.kernels->vector_channels, is_grouped ? 1 : variant.kernels->max_vectors);
    pixel_ = is_grouped ? of.inputs() : pixel;
    for (const int32_t vectors : panels_) {
      packed_ += packed_bytes(vectors * variant.kernels->vector_channels, of.window.height * of.window.width,
                              pixel_, variant.is_float);
    }
    weights_ = at::empty({packed_}, at::kByte);
    pack_panels(operands.weight, pixel_, variant, panels_, weights_.mutable_data_ptr<uint8_t>());
    if (is_grouped) {
      const bool is_one_group = widest_slice(variant, of) == of.inputs() && of.has_taps_abreast();
      const int64_t width = variant.kernels->vector_channels;
      for (int64_t channel = 0; channel < channels_; ++channel) {
        const int64_t first = of.first_input(channel / width * width);
        first_inputs_.push_back(is_one_group ? first : std::min(first, pixel - vector));
        if (!is_one_group) {
          lanes_.push_back(static_cast<int32_t>((of.first_input(channel) - first_inputs_.back()) /
                                                (variant.is_float ? 1 : 2)));
        }
      }
    }
  }

  static int64_t vector_elements(const Variant& variant) {
    return variant.kernels->vector_channels * (variant.is_float ? 1 : 2);
  }
  // Channels of the input that the outputs of one vector are made of, at most.
  static int64_t widest_slice(const Variant& variant, const Case& of) {
    int64_t widest = 0;
    for (int64_t channel = 0; channel < of.out; channel += variant.kernels->vector_channels) {
      const int64_t last = channel + variant.kernels->vector_channels - 1;
      widest = std::max(widest, of.first_input(last) + of.inputs() - of.first_input(channel));
    }
    return widest;
  }

  // Computes the pixels between neighbouring cuts, one call for each and for each panel.
  void run(const std::vector<int64_t>& cuts) {
    ConvTask task{};
    task.taps_abreast = case_.has_taps_abreast() ? kTapsAbreast : 1;
    task.input_strides = {case_.window.stride * input_->strides().row,
                          case_.window.stride * input_->strides().column};
    task.taps = taps_.data();
    task.tap_count = static_cast<int64_t>(taps_.size());
    task.tap_length = tap_length_;
    task.carry_after = case_.carry_after;
    task.residual_strides = residual_->strides();
    task.output_strides = output_->strides();
    task.prefetch_output = case_.prefetch_output;
    task.output_is_float = case_.output_is_float;
    task.activation = case_.activation;
    task.width = case_.width();
    const ConvolutionRunner convolution(*variant_.element, task, case_.height(), variant_.is_float ? 4 : 2);
    for (size_t i = 0; i + 1 < cuts.size(); ++i) {
      int64_t channel = 0;
      int64_t packed = 0;
      for (const int32_t vectors : panels_) {
        const int64_t panel_channels = vectors * variant_.kernels->vector_channels;
        task.first = cuts[i];
        task.last = cuts[i + 1];
        task.vectors = vectors;
        task.weights = weights_.const_data_ptr<uint8_t>() + packed;
        task.bias = bias_.const_data_ptr<float>() + channel;
        task.scale = case_.has_scale ? scale_.const_data_ptr<float>() + channel : nullptr;
        task.sums = case_.has_sums ? sums_.mutable_data_ptr<double>() + channel : nullptr;
        task.residual = case_.has_residual ? residual_->at(0, 0, channel) : nullptr;
        task.output = case_.has_output ? output_->at(0, 0, channel) : nullptr;
        if (case_.groups == 1) {
          task.input = input_->at(case_.padding[0], case_.padding[1]);
          convolution.run(task);
        } else {
          task.input =
              input_->at(case_.padding[0], case_.padding[1], first_inputs_[static_cast<size_t>(channel)]);
          task.lanes = lanes_.empty() ? nullptr : lanes_.data() + channel;
          variant_.element->group_convolution(task);
        }
        channel += panel_channels;
        packed +=
            packed_bytes(panel_channels, case_.window.height * case_.window.width, pixel_, variant_.is_float);
      }
    }
  }

  const Picture& output() const {
    return *output_;
  }
  const at::Tensor& sums() const {
    return sums_;
  }
  // Forgets what run() made.
  void reset(const Picture& output, const at::Tensor& sums) {
    *output_ = output.clone();
    sums_ = sums.clone();
  }

 private:
  Picture::Shape picture_shape(Random& random) const {
    const int64_t others = kChannelBlock * random.between(0, 2);
    return {channels_,  case_.height(),       case_.width(),        channels_ + others,
            others / 2, random.between(0, 2), random.between(0, 2), random.between(0, 2)};
  }

  const Variant& variant_;
  const Case case_;
  const int64_t channels_;
  std::unique_ptr<Picture> input_;
  std::unique_ptr<Picture> residual_;
  std::unique_ptr<Picture> output_;
  std::vector<int64_t> taps_;
  int64_t tap_length_ = 0;
  int64_t pixel_ = 0;
  int64_t packed_ = 0;
  std::vector<int64_t> first_inputs_;  // of each channel's panel
  std::vector<int32_t> lanes_;
  at::Tensor bias_;
  at::Tensor scale_;
  at::Tensor sums_;
  at::Tensor weights_;
  std::vector<int32_t> panels_;
};

std::vector<int64_t> draw_cuts(int64_t pixels, Random& random) {
  std::vector<int64_t> cuts = {0, pixels};
  for (int64_t i = random.between(1, 3); i > 0; --i) {
    cuts.push_back(random.between(0, pixels));  // two may be the same: a part without pixels
  }
  std::sort(cuts.begin(), cuts.end());
  return cuts;
}

void check_case(const Variant& variant, const Case& of, Random& random) {
  const Operands operands(of, variant.dtype(), random);
  Convolution convolution(variant, of, operands, random);
  const Picture untouched = convolution.output().clone();
  const at::Tensor sums_before = convolution.sums().clone();
  const std::string where = of.name();
  const int64_t pixels = of.height() * of.width();

  convolution.run({0, pixels});
  const at::Tensor expected = operands.expected(of);
  // Sigmoid's slope is at most 1/4; its exponential is good to a few units in the last place.
  const at::Tensor rounding = operands.magnitude(of) * sum_error(of.products()) + 4 * kFloatError;
  if (of.has_output) {
    const bool rounds_output = !variant.is_float && !of.output_is_float;
    const at::Tensor allowed = rounds_output ? rounding + expected.abs() * kBfloat16Error : rounding;
    expect_near(convolution.output().view(), expected, allowed, where);
    convolution.output().expect_changed_only(untouched, 0, padded(of.out), where);
  } else {
    convolution.output().expect_changed_only(untouched, 0, 0, where);
  }
  const at::Tensor allowed_sums = rounding.sum(at::IntArrayRef{1, 2}) + pixel_sum_error(expected);
  const at::Tensor expected_sums = expected.sum(at::IntArrayRef{1, 2}) + operands.sums;
  if (of.has_sums) {
    expect_near(convolution.sums(), expected_sums, allowed_sums, where + ", sums");
  }

  // The parts make the whole, bit by bit.
  const Picture whole = convolution.output().clone();
  convolution.reset(untouched, sums_before);
  convolution.run(draw_cuts(pixels, random));
  convolution.output().expect_changed_only(whole, 0, 0, where + ", in parts");
  if (of.has_sums) {
    expect_near(convolution.sums(), expected_sums, allowed_sums, where + ", sums of parts");
  }

  // A part alone writes its pixels alone.
  const int64_t first = random.between(0, pixels);
  const int64_t last = random.between(first, pixels);
  convolution.reset(untouched, sums_before);
  convolution.run({first, last});
  const Picture part = untouched.clone();
  if (of.has_output) {
    for (int64_t pixel = first; pixel < last; ++pixel) {
      const auto at = [&](const Picture& picture) {
        return picture.view().select(1, pixel / of.width()).select(1, pixel % of.width());
      };
      at(part).copy_(at(whole));
    }
  }
  convolution.output().expect_changed_only(part, 0, 0, where + ", a part");
}

// Every number of channels with every window; sizes and what is fused are drawn.
void check_window(const Variant& variant, const Window& window, int number) {
  const std::vector<graph::Size2> sizes = {{1, 1}, {1, 9}, {5, 3}, {14, 14}};
  const std::vector<int64_t> ins = {1, 3, 16, 17, 40, 64, 100};
  const std::vector<int64_t> outs = {1, 10, 16, 48, 80, 130};
  const int count = static_cast<int>(ins.size() * outs.size());
  for_each_drawn(static_cast<uint32_t>(1000 * number), count, [&](Random& random, int i) {
    const auto turn = static_cast<size_t>(i);
    const graph::Size2 size = sizes[(turn + static_cast<size_t>(number)) % sizes.size()];
    check_case(variant, draw_case(random, ins[turn / outs.size()], outs[turn % outs.size()], size, window),
               random);
  });
}

// Every number of vectors with every number of pixels up to a few blocks: each instance of the kernel's
// template.
void check_blocks(const Variant& variant) {
  for_each_drawn(20000, 30 * variant.kernels->max_vectors, [&](Random& random, int i) {
    const int64_t vectors = 1 + i / 30;
    const int64_t pixels = 1 + i % 30;
    const int64_t out =
        std::max<int64_t>(1, vectors * variant.kernels->vector_channels - random.between(0, 3));
    const graph::Size2 size = pixels % 3 == 0 ? graph::Size2{3, pixels / 3} : graph::Size2{1, pixels};
    check_case(variant, draw_case(random, random.between(1, 33), out, size, {1, 1, 1}), random);
  });
}

void check_random(const Variant& variant) {
  for_each_drawn(21000, 100, [&](Random& random, int) {
    const Window window{random.between(1, 7), random.between(1, 7), random.between(1, 3)};
    const graph::Size2 size = {random.between(1, 12), random.between(1, 12)};
    check_case(variant, draw_case(random, random.between(1, 70), random.between(1, 150), size, window),
               random);
  });
}

// Every number of channels a group, in groups and windows that the kernel takes.
void check_groups(const Variant& variant) {
  const int64_t pair = variant.is_float ? 1 : 2;
  for_each_drawn(24000, 160, [&](Random& random, int i) {
    const int64_t inputs = (1 + i % 8) * pair;
    const graph::Size2 size = random.of<graph::Size2>({{1, 1}, {1, 9}, {5, 3}, {4, 14}, {3, 31}, {7, 7}});
    for (;;) {
      const Window window = random.of<Window>(
          {{3, 3, 1}, {3, 3, 1}, {3, 3, 2}, {1, 1, 1}, {1, 3, 1}, {3, 1, 1}, {5, 5, 2}, {7, 7, 1}});
      const int64_t groups = random.between(2, 40);
      const int64_t outputs = random.of<int64_t>({1, 2, 3, 4, 5, 6, 7, 8, 16, 24});
      Case of = draw_case(random, inputs * groups, outputs * groups, size, window);
      of.whole_rows = false;
      of.groups = groups;
      const int64_t slice = Convolution::widest_slice(variant, of);
      if (slice <= Convolution::vector_elements(variant) || (slice == inputs && of.has_taps_abreast())) {
        check_case(variant, of, random);
        return;
      }
    }
  });
}

// Every number of neighbours in a row up to a few blocks.
void check_group_blocks(const Variant& variant) {
  for_each_drawn(25000, 90, [&](Random& random, int i) {
    const int64_t width = 1 + i % 30;
    const int64_t outputs = std::vector<int64_t>{4, 8, 16}[static_cast<size_t>(i / 30)];
    const Window window = {random.between(1, 3), random.chance(0.8) ? kTapsAbreast : 2, 1};
    const int64_t groups = 48 / outputs;
    Case of =
        draw_case(random, groups * (outputs == 16 ? 2 : outputs), 48, {random.between(1, 3), width}, window);
    of.padding = {1, 1};
    of.whole_rows = false;
    of.groups = groups;
    check_case(variant, of, random);
  });
}

// The error of the sums does not grow with the image: they are those of the very numbers that are written.
void check_long_sums(const Variant& variant) {
  for_each_drawn(22000, 3, [&](Random& random, int i) {
    const std::vector<int64_t> outs = {16, 48, 130};
    Case of = draw_case(random, 3, outs[static_cast<size_t>(i)], {96, 90}, {3, 3, 1});
    of.has_sums = of.has_output = of.output_is_float = true;
    of.activation = Activation::kRelu;
    const Operands operands(of, variant.dtype(), random);
    Convolution convolution(variant, of, operands, random);
    convolution.run(draw_cuts(of.height() * of.width(), random));
    const at::Tensor written = convolution.output().view().to(at::kDouble);
    expect_near(convolution.sums(), written.sum(at::IntArrayRef{1, 2}) + operands.sums,
                pixel_sum_error(written), of.name() + ", sums");
  });
}

// Nor does that of an output grow as the number of its products does.
void check_long_products(const Variant& variant) {
  const std::vector<int64_t> carries = {kCarryAfter, kCarryAfterOfVectors, kCarryAfterOfFew};
  for_each_drawn(23000, 3, [&](Random& random, int i) {
    Case of = draw_case(random, 512, 48, {5, 4}, {3, 3, 1});
    of.has_scale = of.has_residual = false;
    of.has_output = of.output_is_float = true;
    of.activation = Activation::kNone;
    of.carry_after = carries[static_cast<size_t>(i)];
    const Operands operands(of, variant.dtype(), random);
    Convolution convolution(variant, of, operands, random);
    convolution.run({0, of.height() * of.width()});
    expect_relative(convolution.output().view(), operands.expected(of), 8 * kFloatError, of.name());
  });
}

// NaN and infinities of the input go where at::conv2d takes them. A bias and weights that are not zero keep
// infinities apart from zero times infinity.
void check_special(const Variant& variant) {
  Random random(13);
  for (const double value : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
    for (const Activation activation : {Activation::kNone, Activation::kRelu, Activation::kSigmoid}) {
      for (const auto& [output_is_float, groups] : {std::pair{false, 1}, {true, 1}, {true, 8}}) {
        Case of{groups == 1 ? 16 : 32, 48,    {7, 5},    {3, 3, 1}, {1, 1},
                groups == 1,           true,  true,      true,      true,
                output_is_float,       false, activation};
        of.groups = groups;
        Operands operands(of, variant.dtype(), random);
        operands.x[random.between(0, 15)][3][2].fill_(value);
        operands.x[random.between(0, 15)][6][4].fill_(value);
        operands.residual[5][0][0].fill_(value);
        Convolution convolution(variant, of, operands, random);
        convolution.run({0, of.height() * of.width()});
        const at::Tensor expected = operands.expected(of);
        const at::Tensor finite = operands.magnitude(of).nan_to_num(0.0, 0.0, 0.0);
        const std::string where = text(value, " in ", of.name());
        REQUIRE_MESSAGE((!expected.isfinite().all().item<bool>() || activation == Activation::kSigmoid),
                        where);
        expect_near(convolution.output().view(), expected,
                    finite * sum_error(of.products()) + 4 * kFloatError +
                        expected.abs().nan_to_num(0.0, 0.0, 0.0) * (variant.is_float ? 0 : kBfloat16Error),
                    where);
        expect_near(convolution.sums().isnan(),
                    (expected.sum(at::IntArrayRef{1, 2}) + operands.sums).isnan().to(at::kDouble),
                    at::zeros({}, at::kDouble), where + ", sums");
      }
    }
  }
}

#define WINDOW_TEST(height, width, stride, number)                    \
  TEST_CASE("convolution " #height " x " #width " stride " #stride) { \
    for_each_variant([](const Variant& variant) {                     \
      check_window(variant, {height, width, stride}, number);         \
    });                                                               \
  }

WINDOW_TEST(1, 1, 1, 1)
WINDOW_TEST(3, 3, 1, 2)
WINDOW_TEST(5, 5, 1, 3)
WINDOW_TEST(1, 7, 1, 4)
WINDOW_TEST(7, 1, 1, 5)
WINDOW_TEST(7, 7, 1, 6)
WINDOW_TEST(1, 1, 2, 7)
WINDOW_TEST(3, 3, 2, 8)
WINDOW_TEST(5, 5, 2, 9)
WINDOW_TEST(1, 7, 2, 10)
WINDOW_TEST(7, 1, 2, 11)
WINDOW_TEST(7, 7, 2, 12)

TEST_CASE("convolution, blocks of every size") {
  for_each_variant(check_blocks);
}

TEST_CASE("convolution, drawn cases") {
  for_each_variant(check_random);
}

TEST_CASE("convolution, groups") {
  for_each_variant(check_groups);
}

TEST_CASE("convolution, groups, blocks of every size") {
  for_each_variant(check_group_blocks);
}

TEST_CASE("convolution, sums of large images") {
  for_each_variant(check_long_sums);
}

TEST_CASE("convolution, many products") {
  for_each_variant(check_long_products);
}

TEST_CASE("convolution, NaN and infinity") {
  for_each_variant(check_special);
}

}  // namespace
}  // namespace senet::test
