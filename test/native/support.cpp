#include "support.h"

#include "core/error.h"
#include "inference/cpu/matrix_unit.h"
#include "inference/cpu/packing.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>
#include <utility>

namespace senet::test {

namespace {

// Of add_test(), by their names. Those of a map stay where they are.
std::map<std::string, std::function<void()>>& bodies() {
  static std::map<std::string, std::function<void()>> result;
  return result;
}

void run_body() {
  bodies().at(doctest::getContextOptions()->currentTest->m_name)();
}

}  // namespace

void add_test(const std::string& name, std::function<void()> body) {
  const auto [added, is_new] = bodies().emplace(name, std::move(body));
  TORCH_CHECK(is_new, "two tests are named ", name);
  // What TEST_CASE does; doctest itself has no tests but functions without arguments.
  doctest::detail::regTest(doctest::detail::TestCase(run_body, __FILE__, __LINE__,
                                                     doctest_detail_test_suite_ns::getCurrentTestSuite()) *
                           added->first.c_str());
}

ConvolutionRunner::ConvolutionRunner(const inference::ElementKernels& kernels,
                                     const inference::ConvTask& layer, int64_t height, int64_t element_bytes)
    : kernels_(kernels),
      runs_(kernels.tiles == nullptr ? inference::TileRuns{}
                                     : inference::plan_tiles(layer, height, element_bytes)) {
  if (runs_.step_bytes > 0) {
    inference::ConvTask task = layer;
    task.runs = runs_;
    kernels.tiles->begin(task);
  }
}

ConvolutionRunner::~ConvolutionRunner() {
  if (runs_.step_bytes > 0) {
    kernels_.tiles->end();
  }
}

void ConvolutionRunner::run(inference::ConvTask task) const {
  task.runs = runs_;
  (runs_.step_bytes > 0 ? kernels_.tiles->convolution : kernels_.convolution)(task);
}

void for_each_variant(const std::function<void(const Variant&)>& test) {
  struct Set {
    const char* name;
    bool has_float;
    bool has_bfloat16;
  };
  // The float32 kernels of the others are these sets'.
  for (const Set& set :
       {Set{"avx2", true, false}, Set{"avx512", true, false}, Set{"avx512_bf16", false, true},
        Set{"amx_bf16", false, true}, Set{"amx_emulated", false, true}}) {
    for (const bool is_float : {true, false}) {
      if (!(is_float ? set.has_float : set.has_bfloat16)) {
        continue;
      }
      const std::string name = text(set.name, is_float ? " float32" : " bfloat16");
      SUBCASE(name.c_str()) {
        if (const inference::Kernels* kernels = runnable_kernels(set.name)) {
          test({name, kernels, is_float ? kernels->float32 : kernels->bfloat16, is_float});
        }
      }
    }
  }
}

const inference::Kernels* runnable_kernels(const std::string& name) {
  const inference::Kernels* const kernels = inference::find_kernels(name);
  if (kernels == nullptr) {
    MESSAGE("SKIPPED: ", name, ": the compiler had no such instructions");
    return nullptr;
  }
  if (!kernels->processor_has()) {
    MESSAGE("SKIPPED: ", name, ": this processor has no such instructions");
    return nullptr;
  }
  return kernels;
}

void for_each_drawn(uint32_t first_seed, int count, const std::function<void(Random&, int)>& test) {
  const char* const wish = std::getenv("SENET_FUZZ_SEED");
  for (int i = 0; i < count; ++i) {
    const uint32_t seed = first_seed + static_cast<uint32_t>(i);
    if (wish == nullptr || std::to_string(seed) == wish) {
      INFO("seed ", seed);
      Random random(seed);
      test(random, i);
    }
  }
}

at::Tensor Random::tensor(at::IntArrayRef shape, at::ScalarType rounded_to) {
  at::manual_seed(generator_());
  return at::rand(shape, at::kDouble).mul_(2).sub_(1).to(rounded_to).to(at::kDouble);
}

int64_t padded(int64_t channels) {
  return (channels + inference::kChannelBlock - 1) / inference::kChannelBlock * inference::kChannelBlock;
}

void pack_panels(const at::Tensor& weight, int64_t pixel, const Variant& variant,
                 const std::vector<int32_t>& panel_vectors, uint8_t* to) {
  int64_t first = 0;
  for (const int32_t vectors : panel_vectors) {
    const int64_t channels = vectors * variant.kernels->vector_channels;
    inference::pack_panel({weight, {}, {}}, first, pixel, variant.is_float, channels, to);
    to += inference::packed_bytes(channels, weight.size(2) * weight.size(3), pixel, variant.is_float);
    first += channels;
  }
}

at::Tensor with_zeros(const at::Tensor& tensor, int64_t dimension, int64_t size) {
  std::vector<int64_t> shape = tensor.sizes().vec();
  shape[static_cast<size_t>(dimension)] = size;
  at::Tensor result = at::zeros(shape, tensor.options());
  result.narrow(dimension, 0, tensor.size(dimension)).copy_(tensor);
  return result;
}

Picture::Picture(const Shape& shape, at::ScalarType dtype, double filling) : shape_(shape) {
  shape_.pixel = shape.pixel == 0 ? shape.channels : shape.pixel;
  memory_ = at::full({shape_.height + 2 * shape_.border_rows,
                      shape_.width + 2 * shape_.border_columns + shape_.extra_columns, shape_.pixel},
                     filling, dtype);
}

at::Tensor Picture::view() const {
  return view(0, 0);
}

at::Tensor Picture::view(int64_t rows, int64_t columns) const {
  return memory_.narrow(0, shape_.border_rows - rows, shape_.height + 2 * rows)
      .narrow(1, shape_.border_columns - columns, shape_.width + 2 * columns)
      .narrow(2, shape_.channel, shape_.channels)
      .permute({2, 0, 1});
}

void* Picture::at(int64_t rows, int64_t columns, int64_t channel) const {
  const int64_t offset = (shape_.border_rows - rows) * memory_.stride(0) +
                         (shape_.border_columns - columns) * memory_.stride(1) + shape_.channel + channel;
  return static_cast<char*>(memory_.mutable_data_ptr()) +
         offset * static_cast<int64_t>(memory_.element_size());
}

inference::Strides Picture::strides() const {
  return {memory_.stride(0), memory_.stride(1)};
}

void Picture::expect_changed_only(const Picture& before, int64_t first, int64_t last,
                                  const std::string& where) const {
  const Picture changed = before.clone();
  changed.view().narrow(0, first, last - first).copy_(view().narrow(0, first, last - first));
  REQUIRE_MESSAGE(same_bytes(changed.memory_, memory_), where, ": memory beside the output was written");
}

Picture Picture::clone() const {
  Picture result = *this;
  result.memory_ = memory_.clone();
  return result;
}

std::string refusal(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

bool same_bytes(const at::Tensor& left, const at::Tensor& right) {
  const at::Tensor a = left.contiguous();
  const at::Tensor b = right.contiguous();
  return a.nbytes() == b.nbytes() && std::memcmp(a.const_data_ptr(), b.const_data_ptr(), a.nbytes()) == 0;
}

void expect_near(const at::Tensor& actual, const at::Tensor& expected, const at::Tensor& allowed,
                 const std::string& where) {
  REQUIRE_MESSAGE(actual.sizes() == expected.sizes(), where, ": expected the shape ", expected.sizes(),
                  ", got ", actual.sizes());
  const at::Tensor values = actual.to(at::kDouble);
  const at::Tensor difference = (values - expected).abs();
  const at::Tensor is_good =
      (difference <= allowed) | (values == expected) | (values.isnan() & expected.isnan());
  if (is_good.all().item<bool>()) {
    return;
  }
  const at::Tensor bad = is_good.logical_not().contiguous().flatten();
  const int64_t first = bad.nonzero()[0].item<int64_t>();
  FAIL(text(where, ": ", bad.sum().item<int64_t>(), " of ", bad.numel(), " elements of the shape ",
            expected.sizes(), " differ; element ", first, ": expected ",
            expected.contiguous().flatten()[first].item<double>(), ", got ",
            values.contiguous().flatten()[first].item<double>(), ", allowed ",
            allowed.expand_as(expected).contiguous().flatten()[first].item<double>()));
}

void expect_nan_where(const at::Tensor& expected, const at::Tensor& actual, const std::string& where) {
  REQUIRE_MESSAGE(actual.sizes() == expected.sizes(), where, ": expected the shape ", expected.sizes(),
                  ", got ", actual.sizes());
  const at::Tensor lost = expected.isnan() & actual.isnan().logical_not();
  REQUIRE_MESSAGE(!lost.any().item<bool>(), where, ": ", lost.sum().item<int64_t>(), " of ",
                  expected.isnan().sum().item<int64_t>(), " NaN were lost");
}

double sum_error(int64_t count) {
  return kFloatError * (4 + 2 * std::sqrt(static_cast<double>(count)));
}

at::Tensor pixel_sum_error(const at::Tensor& pixels) {
  const double of_few = 4;
  const double of_many = 0.5;
  const bool are_many = pixels.size(1) * pixels.size(2) > 4096;
  return pixels.abs().nan_to_num(0.0, 0.0, 0.0).sum(at::IntArrayRef{1, 2}) *
         (kFloatError * (are_many ? of_many : of_few));
}

void expect_relative(const at::Tensor& actual, const at::Tensor& expected, double allowed,
                     const std::string& where) {
  const double error = ((actual.to(at::kDouble) - expected).norm() / expected.norm()).item<double>();
  REQUIRE_MESSAGE(error <= allowed, where, ": relative error ", error, ", allowed ", allowed);
}

}  // namespace senet::test
