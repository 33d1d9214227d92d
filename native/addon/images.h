// Images, which are uint8 tensors: what LibTorch's operators do otherwise.
#pragma once

#include "addon/environment.h"

namespace senet::addon {

Napi::Value resize_images(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value resize_images_async(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value can_prepare_images(Environment& environment, const Napi::CallbackInfo& info);
Napi::Value prepare_image(Environment& environment, const Napi::CallbackInfo& info);

}  // namespace senet::addon
