#include "addon/files.h"

#include "addon/convert.h"
#include "core/error.h"
#include "core/names.h"
#include "runtime/file_reader.h"

#include <ATen/ops/empty.h>

#include <cstring>

namespace senet::addon {
namespace {

using runtime::ByteRange;
using runtime::FileIdentity;
using runtime::TensorView;

std::vector<ByteRange> to_ranges(const Napi::Value& value) {
  if (!value.IsArray()) {
    throw Error("ERR_SENET_ARG_TYPE", "expected an array of ranges, got " + describe_value(value));
  }
  const auto array = value.As<Napi::Array>();
  std::vector<ByteRange> ranges;
  for (uint32_t i = 0, length = array.Length(); i < length; ++i) {
    const auto range = array.Get(i).ToObject();
    ranges.push_back({to_int64(range.Get("offset"), "offset"), to_int64(range.Get("length"), "length")});
  }
  return ranges;
}

std::vector<TensorView> to_views(const Napi::Value& value) {
  if (!value.IsArray()) {
    throw Error("ERR_SENET_ARG_TYPE", "expected an array of tensors, got " + describe_value(value));
  }
  const auto array = value.As<Napi::Array>();
  std::vector<TensorView> views;
  for (uint32_t i = 0, length = array.Length(); i < length; ++i) {
    const auto view = array.Get(i).ToObject();
    const int64_t range = to_int64(view.Get("range"), "range");
    if (range < 0) {
      throw Error("ERR_SENET_ARG_RANGE", "range: expected an index, got " + std::to_string(range));
    }
    views.push_back({static_cast<size_t>(range), parse_dtype(to_string(view.Get("dtype"), "dtype")),
                     to_int64_array(view.Get("shape"), "shape"), to_int64_array(view.Get("stride"), "stride"),
                     to_int64(view.Get("storageOffset"), "storageOffset")});
  }
  return views;
}

Napi::Array wrap_all(Environment& environment, std::vector<at::Tensor> tensors) {
  auto array = Napi::Array::New(environment.env(), tensors.size());
  for (uint32_t i = 0; i < tensors.size(); ++i) {
    array.Set(i, wrap_tensor(environment, std::move(tensors[i])));
  }
  return array;
}

// A tensor whose storage holds its elements as they are.
const at::Tensor& to_storage_tensor(const Napi::Value& value) {
  const at::Tensor& tensor = to_tensor(value, "tensor");
  dtype_name(tensor.scalar_type());  // refuses the dtypes that no container of ours has
  if (tensor.layout() != at::kStrided || tensor.is_neg() || tensor.is_conj()) {
    throw Error("ERR_SENET_LIBTORCH", "a tensor of this layout has no plain bytes; make it dense first");
  }
  return tensor;
}

int to_descriptor(const Napi::Value& value) {
  const int64_t descriptor = to_int64(value, "fd");
  if (descriptor < 0 || descriptor > INT32_MAX) {
    throw Error("ERR_SENET_ARG_RANGE", "fd: expected a file descriptor");
  }
  return static_cast<int>(descriptor);
}

using Reader = std::vector<at::Tensor> (*)(int, FileIdentity, const std::vector<ByteRange>&,
                                           const std::vector<TensorView>&);

Napi::Value submit_reading(Environment& environment, const Napi::CallbackInfo& info, Reader reader) {
  const int descriptor = to_descriptor(info[0]);
  const FileIdentity identity{to_int64(info[1], "size"), to_int64(info[2], "modified")};
  auto ranges = to_ranges(info[3]);
  auto views = to_views(info[4]);
  const int64_t job = environment.submit(
      [descriptor, identity, ranges = std::move(ranges), views = std::move(views), reader]() -> Deliver {
        auto tensors = reader(descriptor, identity, ranges, views);
        return [tensors = std::move(tensors)](Environment& here) mutable {
          return wrap_all(here, std::move(tensors));
        };
      });
  return environment.job_number(job);
}

}  // namespace

Napi::Value read_tensors(Environment& environment, const Napi::CallbackInfo& info) {
  return submit_reading(environment, info, &runtime::read_tensors);
}

Napi::Value map_tensors(Environment& environment, const Napi::CallbackInfo& info) {
  return submit_reading(environment, info, &runtime::map_tensors);
}

Napi::Value modified_time(Environment& environment, const Napi::CallbackInfo& info) {
  return Napi::BigInt::New(environment.env(), runtime::modified_nanoseconds(to_descriptor(info[0])));
}

Napi::Value read_bytes(Environment& environment, const Napi::CallbackInfo& info) {
  const int descriptor = to_descriptor(info[0]);
  const int64_t size = to_int64(info[1], "size");
  const int64_t job = environment.submit([descriptor, size, ranges = to_ranges(info[2])]() -> Deliver {
    auto bytes = runtime::read_bytes(descriptor, size, ranges);
    return [bytes = std::move(bytes)](Environment& here) -> Napi::Value {
      const Napi::TypedArray array = new_typed_array(here.env(), napi_uint8_array, bytes.size());
      if (!bytes.empty()) {
        std::memcpy(data_of(array), bytes.data(), bytes.size());
      }
      return array;
    };
  });
  return environment.job_number(job);
}

Napi::Value tensors_from_bytes(Environment& environment, const Napi::CallbackInfo& info) {
  const auto ranges = to_ranges(info[1]);
  const auto views = to_views(info[2]);
  // After the conversions, which may run JavaScript: the bytes cannot be detached between here and the copy.
  const std::span<const uint8_t> bytes = to_bytes(info[0], "bytes");
  return wrap_all(environment,
                  runtime::copy_tensors(bytes.data(), static_cast<int64_t>(bytes.size()), ranges, views));
}

Napi::Value storage_info(Environment& environment, const Napi::CallbackInfo& info) {
  const at::Tensor& tensor = to_storage_tensor(info[0]);
  const Napi::Env env = environment.env();
  const auto* storage = tensor.storage().unsafeGetStorageImpl();
  auto facts = Napi::Object::New(env);
  facts.Set("id", Napi::BigInt::New(env, static_cast<uint64_t>(reinterpret_cast<uintptr_t>(storage))));
  facts.Set("bytes", Napi::Number::New(env, static_cast<double>(tensor.storage().nbytes())));
  facts.Set("stride", from_shape(env, tensor.strides()));
  facts.Set("storageOffset", Napi::Number::New(env, static_cast<double>(tensor.storage_offset())));
  return facts;
}

Napi::Value storage_bytes(Environment& environment, const Napi::CallbackInfo& info) {
  const at::Tensor& tensor = to_storage_tensor(info[0]);
  const int64_t offset = to_int64(info[1], "offset");
  const int64_t length = to_int64(info[2], "length");
  const auto available = static_cast<int64_t>(tensor.storage().nbytes());
  if (offset < 0 || length < 0 || offset > available || length > available - offset) {
    throw Error("ERR_SENET_ARG_RANGE", "the bytes " + std::to_string(offset) + " + " +
                                           std::to_string(length) + " leave a storage of " +
                                           std::to_string(available) + " bytes");
  }
  at::Tensor bytes = at::empty({0}, at::TensorOptions().dtype(at::kByte).device(tensor.device()));
  bytes.set_(tensor.storage(), offset, {length}, {1});
  bytes = bytes.cpu();
  const Napi::TypedArray array =
      new_typed_array(environment.env(), napi_uint8_array, static_cast<size_t>(length));
  if (length > 0) {
    std::memcpy(data_of(array), bytes.const_data_ptr(), static_cast<size_t>(length));
  }
  return array;
}

}  // namespace senet::addon
