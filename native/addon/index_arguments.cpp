#include "addon/index_arguments.h"

#include "core/error.h"

#include <algorithm>
#include <limits>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>

namespace senet::addon {
namespace {

constexpr int64_t kLowest = std::numeric_limits<int64_t>::min();
constexpr int64_t kHighest = std::numeric_limits<int64_t>::max();

// Two from each end, so that a label that counts for nothing can be left out: only at an end it matters.
struct Extremes {
  int64_t least = kHighest;
  int64_t second_least = kHighest;
  int64_t greatest = kLowest;
  int64_t second_greatest = kLowest;

  void add(int64_t value) {
    if (value < least) {
      second_least = std::exchange(least, value);
    } else if (value > least && value < second_least) {
      second_least = value;
    }
    if (value > greatest) {
      second_greatest = std::exchange(greatest, value);
    } else if (value < greatest && value > second_greatest) {
      second_greatest = value;
    }
  }
};

template <typename Integer>
Extremes extremes_of(const at::Tensor& tensor) {
  Extremes extremes;
  const Integer* const values = tensor.const_data_ptr<Integer>();
  for (int64_t i = 0, count = tensor.numel(); i < count; ++i) {
    extremes.add(static_cast<int64_t>(values[i]));
  }
  return extremes;
}

struct Note {
  c10::weak_intrusive_ptr<c10::TensorImpl> tensor;
  int64_t version;
  Extremes extremes;
};

// The notes of the process, of which those of tensors that are gone are dropped now and then.
struct Notes {
  std::mutex mutex;
  std::unordered_map<const c10::TensorImpl*, Note> of;
  size_t clean_at = 64;
};

Notes& notes() {
  static auto* const instance = new Notes;
  return *instance;
}

// An operator's indices: argument `index` selects from the dimension that argument `dimension` tells, or from
// the fixed one.
struct Selection {
  std::string_view name;  // without overload, and without the '_' of an in-place form
  int8_t dimension;       // the position of the argument, -1 for `fixed`
  int8_t fixed;
  int8_t index;
  int8_t ignored;  // the position of the label that counts for nothing, -1 for none
};
constexpr Selection kSelections[] = {
    {"aten::index_select", 1, 0, 2, -1},   {"aten::gather", 1, 0, 2, -1},
    {"aten::scatter", 1, 0, 2, -1},        {"aten::scatter_add", 1, 0, 2, -1},
    {"aten::scatter_reduce", 1, 0, 2, -1}, {"aten::index_add", 1, 0, 2, -1},
    {"aten::index_copy", 1, 0, 2, -1},     {"aten::embedding", -1, 0, 1, -1},
    {"aten::nll_loss", -1, 1, 1, 4},       {"aten::nll_loss_nd", -1, 1, 1, 4},
    {"aten::nll_loss2d", -1, 1, 1, 4},     {"aten::cross_entropy_loss", -1, 1, 1, 4},
};

const Selection* find_selection(std::string_view name) {
  if (!name.empty() && name.back() == '_') {
    name.remove_suffix(1);
  }
  const auto* const found = std::find_if(std::begin(kSelections), std::end(kSelections),
                                         [&](const Selection& selection) { return selection.name == name; });
  return found == std::end(kSelections) ? nullptr : found;
}

}  // namespace

void note_indices(const at::Tensor& copy, const at::Tensor& source) {
  const bool is_index = copy.scalar_type() == at::kLong || copy.scalar_type() == at::kInt;
  if (!is_index || copy.is_cpu() || !source.is_cpu() || copy.is_inference() ||
      source.scalar_type() != copy.scalar_type() || source.layout() != at::kStrided) {
    return;
  }
  const at::Tensor values = source.detach().contiguous();
  const Extremes extremes =
      values.scalar_type() == at::kLong ? extremes_of<int64_t>(values) : extremes_of<int32_t>(values);
  Notes& all = notes();
  const std::lock_guard lock(all.mutex);
  if (all.of.size() >= all.clean_at) {
    std::erase_if(all.of, [](const auto& entry) { return entry.second.tensor.expired(); });
    all.clean_at = std::max<size_t>(64, 2 * all.of.size());
  }
  all.of.insert_or_assign(
      copy.unsafeGetTensorImpl(),
      Note{c10::weak_intrusive_ptr<c10::TensorImpl>(copy.getIntrusivePtr()), copy._version(), extremes});
}

std::optional<std::pair<int64_t, int64_t>> known_range(const at::Tensor& tensor,
                                                       std::optional<int64_t> ignored) {
  if (tensor.is_cpu() || tensor.is_inference()) {
    return std::nullopt;
  }
  Notes& all = notes();
  const std::lock_guard lock(all.mutex);
  const auto found = all.of.find(tensor.unsafeGetTensorImpl());
  if (found == all.of.end() || found->second.tensor.expired() || found->second.version != tensor._version()) {
    return std::nullopt;
  }
  const Extremes& extremes = found->second.extremes;
  const int64_t least = extremes.least == ignored ? extremes.second_least : extremes.least;
  const int64_t greatest = extremes.greatest == ignored ? extremes.second_greatest : extremes.greatest;
  if (least > greatest) {
    return std::nullopt;
  }
  return std::pair(least, greatest);
}

void check_index_arguments(const c10::OperatorHandle& op, const torch::jit::Stack& stack) {
  if (stack.empty() || !stack[0].isTensor() || !stack[0].toTensor().defined() ||
      stack[0].toTensor().is_cpu()) {
    return;
  }
  const Selection* const selection = find_selection(op.schema().name());
  if (selection == nullptr || !stack[static_cast<size_t>(selection->index)].isTensor()) {
    return;
  }
  const at::Tensor& indices = stack[static_cast<size_t>(selection->index)].toTensor();
  const at::Tensor& subject = stack[0].toTensor();
  int64_t dimension = selection->fixed;
  if (selection->dimension >= 0) {
    const c10::IValue& given = stack[static_cast<size_t>(selection->dimension)];
    dimension = given.isInt() ? given.toInt() : subject.dim();
  } else if (dimension >= subject.dim()) {
    dimension = 0;  // the classes of a single example
  }
  dimension = dimension < 0 ? dimension + subject.dim() : dimension;
  if (!indices.defined() || dimension < 0 || dimension >= subject.dim()) {
    return;  // LibTorch says what is wrong
  }
  const std::optional<int64_t> ignored =
      selection->ignored < 0 ? std::nullopt
                             : std::optional(stack[static_cast<size_t>(selection->ignored)].toInt());
  const auto range = known_range(indices, ignored);
  const int64_t size = subject.size(dimension);
  if (range.has_value() && (range->first < 0 || range->second >= size)) {
    throw Error("ERR_SENET_ARG_RANGE", op.schema().name() + ": index " +
                                           std::to_string(range->first < 0 ? range->first : range->second) +
                                           " is out of range for dimension " + std::to_string(dimension) +
                                           " of size " + std::to_string(size));
  }
}

}  // namespace senet::addon
