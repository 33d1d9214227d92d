// C++ objects behind opaque JavaScript objects, with a Node-API type tag so that a wrong object is an error
// and never a wild pointer.
#pragma once

#include <napi.h>

#include <memory>

namespace senet::addon {

/// A new plain object that owns `box` until it is collected. `Box` needs `static const napi_type_tag kTag`
/// and `void released(Napi::Env)`, called on the JavaScript thread before it is deleted.
template <typename Box>
Napi::Object wrap(Napi::Env env, std::unique_ptr<Box> box) {
  const auto finalize = [](napi_env finalizing, void* data, void*) {
    std::unique_ptr<Box> owned(static_cast<Box*>(data));
    owned->released(Napi::Env(finalizing));
  };
  napi_value object = nullptr;
  if (napi_create_object(env, &object) != napi_ok ||
      napi_wrap(env, object, box.get(), finalize, nullptr, nullptr) != napi_ok) {
    box->released(env);  // a Worker is being terminated, and what was counted goes
    throw Napi::Error::New(env, "could not wrap a native object");
  }
  box.release();  // from here on the finaliser's, also if the tag fails because a Worker is being terminated
  if (napi_type_tag_object(env, object, &Box::kTag) != napi_ok) {
    throw Napi::Error::New(env, "could not tag a native object");
  }
  return {env, object};
}

/// The box behind an object made by wrap(), or null.
template <typename Box>
Box* unwrap(const Napi::Value& value) {
  if (!value.IsObject()) {
    return nullptr;
  }
  bool tagged = false;
  if (napi_check_object_type_tag(value.Env(), value, &Box::kTag, &tagged) != napi_ok || !tagged) {
    return nullptr;
  }
  void* data = nullptr;
  if (napi_unwrap(value.Env(), value, &data) != napi_ok) {
    return nullptr;
  }
  return static_cast<Box*>(data);
}

}  // namespace senet::addon
