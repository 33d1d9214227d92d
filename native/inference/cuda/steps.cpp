#include "inference/cuda/steps.h"

namespace senet::inference::cuda {

const char* operation_name(const Step& step) {
  switch (step.kind) {
    case Step::Kind::kConvolution:
      return "convolution";
    case Step::Kind::kPointwise:
      return "pointwise";
    case Step::Kind::kMean:
      return "mean";
    case Step::Kind::kExcite:
      return step.w2 != nullptr || step.channel_kernel != nullptr ? "excite" : "global_average_pool";
    case Step::Kind::kPool:
      return step.is_max ? "max_pool" : "average_pool";
    case Step::Kind::kConcatenate:
      return "concatenate";
    case Step::Kind::kOperator:
      return "operator";
  }
  return "?";
}

std::vector<std::string> extras_of(const Steps& steps, const Step& step) {
  std::vector<std::string> extras;
  if (step.factors != kNone) {
    extras.push_back(steps.value(step.factors).name);
  }
  if (step.residual != kNone) {
    extras.push_back("residual");
  }
  if (step.relu) {
    extras.push_back("relu");
  }
  return extras;
}

std::string to_string(const Steps& steps) {
  std::string text;
  for (const Step& step : steps.steps) {
    text += operation_name(step) + (step.name.empty() ? "" : ' ' + step.name) + ':';
    for (const Id input : step.inputs) {
      text += ' ' + steps.value(input).name;
    }
    text += " -> " + steps.value(step.output).name;
    const char* separator = "; ";
    for (const std::string& extra : extras_of(steps, step)) {
      text += separator + extra;
      separator = ", ";
    }
    text += '\n';
  }
  return text;
}

}  // namespace senet::inference::cuda
