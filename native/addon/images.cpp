#include "addon/images.h"

#include "addon/convert.h"
#include "core/error.h"
#include "vision/resize.h"

#include <string>
#include <utility>
#include <vector>

namespace senet::addon {
namespace {

struct Call {
  at::Tensor images;
  std::vector<int64_t> size;  // height, width
  vision::Rectangle window;
  vision::Filter filter;

  at::Tensor run() const {
    return vision::resize(images, size[0], size[1], window, filter);
  }
};

Call to_call(const Napi::CallbackInfo& info) {
  std::vector<int64_t> size = to_int64_array(info[1], "size");
  const std::vector<int64_t> window = to_int64_array(info[2], "window");
  if (size.size() != 2 || window.size() != 4) {
    throw Error("ERR_SENET_ARG_RANGE", "resize: expected a size of 2 numbers and a window of 4, got " +
                                           std::to_string(size.size()) + " and " +
                                           std::to_string(window.size()));
  }
  const vision::Filter filter = vision::parse_filter(to_string(info[3], "interpolation"));
  return {
      to_tensor(info[0], "images"), std::move(size), {window[0], window[1], window[2], window[3]}, filter};
}

}  // namespace

Napi::Value resize_images(Environment& environment, const Napi::CallbackInfo& info) {
  return wrap_tensor(environment, to_call(info).run());
}

Napi::Value resize_images_async(Environment& environment, const Napi::CallbackInfo& info) {
  const int64_t job = environment.submit([call = to_call(info)]() -> Deliver {
    return [result = call.run()](Environment& here) mutable { return wrap_tensor(here, std::move(result)); };
  });
  return Napi::Number::New(environment.env(), static_cast<double>(job));
}

}  // namespace senet::addon
