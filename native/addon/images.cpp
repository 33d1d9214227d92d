#include "addon/images.h"

#include "addon/convert.h"
#include "core/error.h"
#include "vision/input_maker.h"
#include "vision/picture_reader.h"
#include "vision/resize.h"

#include <ATen/ops/empty.h>

#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace senet::addon {
namespace {

struct Resizing {
  at::Tensor images;
  std::vector<int64_t> size;  // height, width
  vision::Rectangle window;
  vision::Filter filter;

  at::Tensor run() const {
    return vision::resize(images, size[0], size[1], window, filter);
  }
};

Resizing to_resizing(const Napi::CallbackInfo& info) {
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

/// An image file and what is to become of it.
struct Preparation {
  const uint8_t* bytes;  // of an array that is kept, or of `copy`
  at::Tensor copy;
  size_t length;
  vision::PictureFormat format;
  int64_t width;  // as TypeScript found them
  int64_t height;
  int shrink;
  int orientation;  // 0: what EXIF says
  vision::InputPlan plan;

  /// Nothing where the image is not one for this way: TypeScript then takes the other.
  std::optional<at::Tensor> run() const {
    const auto reader = vision::PictureReader::open(bytes, length, format, shrink);
    if (reader == nullptr) {
      return std::nullopt;
    }
    vision::Picture picture = reader->picture();
    // libvips leaves out a last column and row that are not whole.
    if (picture.width != width / shrink || picture.height != height / shrink) {
      return std::nullopt;
    }
    if (orientation != 0) {
      picture.orientation = orientation;
    } else if (picture.orientation <= 0 && reader->has_xmp_orientation()) {
      return std::nullopt;
    }
    if (picture.orientation < 1 || picture.orientation > 8) {
      picture.orientation = 1;
    }
    vision::InputMaker maker(plan, picture);
    if (!maker.is_possible() || !reader->read(maker)) {
      return std::nullopt;
    }
    return maker.finish();
  }
};

vision::PictureFormat to_format(const std::string& name) {
  if (name == "jpeg") {
    return vision::PictureFormat::kJpeg;
  }
  if (name == "png") {
    return vision::PictureFormat::kPng;
  }
  throw Error("ERR_SENET_ARG_RANGE", "image: expected jpeg or png, got " + name);
}

vision::Placement to_placement(const Napi::Value& value) {
  const std::vector<int64_t> numbers = to_int64_array(value, "placement");
  if (numbers.size() != 10) {
    throw Error("ERR_SENET_ARG_RANGE",
                "placement: expected 10 numbers, got " + std::to_string(numbers.size()));
  }
  return {numbers[0], numbers[1], {numbers[2], numbers[3], numbers[4], numbers[5]}, numbers[6], numbers[7],
          numbers[8], numbers[9]};
}

int to_one_of(const Napi::Value& value, const char* what, int64_t least, int64_t most) {
  const int64_t number = to_int64(value, what);
  if (number < least || number > most) {
    throw Error("ERR_SENET_ARG_RANGE", std::string(what) + ": expected " + std::to_string(least) + " to " +
                                           std::to_string(most) + ", got " + std::to_string(number));
  }
  return static_cast<int>(number);
}

}  // namespace

Napi::Value can_prepare_images(Environment& environment, const Napi::CallbackInfo&) {
  return Napi::Boolean::New(environment.env(), vision::can_read_pictures());
}

Napi::Value prepare_image(Environment& environment, const Napi::CallbackInfo& info) {
  Preparation preparation{};
  preparation.format = to_format(to_string(info[1], "format"));
  const std::vector<int64_t> size = to_int64_array(info[2], "size");
  if (size.size() != 2) {
    throw Error("ERR_SENET_ARG_RANGE", "size: expected 2 numbers, got " + std::to_string(size.size()));
  }
  preparation.height = size[0];
  preparation.width = size[1];
  preparation.shrink = 1 << to_one_of(info[3], "shrink", 0, 3);
  preparation.orientation = to_one_of(info[4], "orientation", 0, 8);
  preparation.plan.placements = {to_placement(info[5]), to_placement(info[6])};
  preparation.plan.filter = vision::parse_filter(to_string(info[7], "interpolation"));
  preparation.plan.is_grey = to_bool(info[8], "grey");
  preparation.plan.table = to_floats(info[9], "table");
  const bool is_borrowed = to_bool(info[10], "borrowed");
  // The last: a getter of another argument might have moved them.
  const std::span<const uint8_t> bytes = to_bytes(info[0], "image");
  preparation.bytes = bytes.data();
  preparation.length = bytes.size();
  if (is_borrowed && preparation.length > 0) {
    // Into memory that was in use before: new pages cost more than the copy.
    preparation.copy = at::empty({static_cast<int64_t>(preparation.length)}, at::kByte);
    auto* const copy = preparation.copy.mutable_data_ptr<uint8_t>();
    std::memcpy(copy, preparation.bytes, preparation.length);
    preparation.bytes = copy;
  }
  Napi::ObjectReference kept;
  if (!is_borrowed) {
    kept = Napi::Persistent(info[0].As<Napi::Object>());
  }
  const int64_t job = environment.submit(
      [preparation = std::move(preparation)]() -> Deliver {
        std::optional<at::Tensor> input = preparation.run();
        return [input = std::move(input)](Environment& here) mutable -> Napi::Value {
          return input ? wrap_tensor(here, std::move(*input)) : here.env().Null();
        };
      },
      nullptr, runtime::Company::kShared, runtime::Executor::decoders());
  if (!is_borrowed) {
    environment.keep(job, std::move(kept));
  }
  return environment.job_number(job);
}

Napi::Value resize_images(Environment& environment, const Napi::CallbackInfo& info) {
  return wrap_tensor(environment, to_resizing(info).run());
}

Napi::Value resize_images_async(Environment& environment, const Napi::CallbackInfo& info) {
  const int64_t job = environment.submit([resizing = to_resizing(info)]() -> Deliver {
    return
        [result = resizing.run()](Environment& here) mutable { return wrap_tensor(here, std::move(result)); };
  });
  return environment.job_number(job);
}

}  // namespace senet::addon
