// What computes each convolution of a sequence: cuDNN's plan and what it leaves, a kernel of ours, or nobody
// here. Knows no LibTorch.
#pragma once

#include "inference/cuda/convolutions.h"

#include <memory>
#include <string>
#include <vector>

namespace senet::inference::cuda {

// Who computes a convolution step. What cuDNN's plan leaves, our pointwise kernel does in place.
enum class Form {
  kWhole,     // cuDNN, all of it
  kWithBias,  // cuDNN, but for factors, residual and ReLU
  kBare,      // cuDNN, the convolution alone
  kOurs,      // our kernel, all of it
  kHost,      // no kernel serves it
};
inline constexpr Form kCudnnForms[] = {Form::kWhole, Form::kWithBias, Form::kBare};
inline const char* form_name(Form form) {
  switch (form) {
    case Form::kWhole:
      return "cudnn whole";
    case Form::kWithBias:
      return "cudnn bias";
    case Form::kBare:
      return "cudnn bare";
    case Form::kOurs:
      return "ours";
    case Form::kHost:
      break;
  }
  return "libtorch";
}

struct Candidate {
  Form form = Form::kHost;
  std::shared_ptr<const ConvolutionPlan> plan;  // of cuDNN's forms
  int tile_rows = 0;                            // of ours; 0: of vectors

  std::string name() const {
    const std::string which = plan ? plan->name() : tile_rows > 0 ? std::to_string(tile_rows) + " rows" : "";
    return form_name(form) + (which.empty() ? "" : ' ' + which);
  }
  int64_t workspace_bytes() const {
    return plan ? plan->workspace_bytes() : 0;
  }
};

struct Choices {
  std::vector<Candidate> of_steps;  // of each step that is a convolution
};

}  // namespace senet::inference::cuda
