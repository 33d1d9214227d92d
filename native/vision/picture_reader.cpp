#include "vision/picture_reader.h"

#include <algorithm>
#include <array>
#include <exception>
#include <mutex>
#include <string_view>

#ifdef __linux__
#include <dlfcn.h>
#include <link.h>
#endif

namespace senet::vision {
namespace {

// What is used of libvips's C interface (libvips 8.15 and later), with its numbers.
struct VipsImage;
struct VipsRect {
  int left;
  int top;
  int width;
  int height;
};
/// The head of the public structure, which accessors of libvips are macros on; check_region() looks whether
/// it is so.
struct VipsRegion {
  struct {
    void* type;
    unsigned references;
    void* data;
    int constructed;
    int is_static;
    void* arguments;
    char* nickname;
    char* description;
    int closing[3];
    size_t local_memory;
  } object;
  VipsImage* image;
  VipsRect valid;
  int type;
  uint8_t* data;
  int line;  // bytes
};
constexpr int kFormatUchar = 0;
constexpr int kInterpretationGrey = 1;
constexpr int kInterpretationRgb = 22;
constexpr int kAccessSequential = 1;
/// As sharp's `failOn: 'error'`: damage is an error, an odd header is not.
constexpr int kFailOnError = 2;
constexpr int kLeastMinorVersion = 15;
/// The rows that libvips decodes together; others would be copied on their way.
constexpr int64_t kJpegRows = 8;
constexpr int64_t kPngRows = 16;
/// Pixels from which on a thread of libvips's own pays: it keeps the memory of a few rows for the next ones
/// there, where it gives back, asks for anew and zeroes each several times on a thread that is not its own.
constexpr int64_t kOwnThreadPixels = 1 << 19;

struct Libvips {
  int (*version)(int);
  int (*init)(const char*);
  int (*jpegload_buffer)(void*, size_t, VipsImage**, ...);
  int (*pngload_buffer)(void*, size_t, VipsImage**, ...);
  VipsImage* (*image_new_from_memory)(const void*, size_t, int, int, int, int);
  int (*image_get_width)(const VipsImage*);
  int (*image_get_height)(const VipsImage*);
  int (*image_get_bands)(const VipsImage*);
  int (*image_get_format)(const VipsImage*);
  int (*image_get_coding)(const VipsImage*);
  int (*image_get_interpretation)(const VipsImage*);
  size_t (*image_get_typeof)(const VipsImage*, const char*);
  int (*image_get_int)(const VipsImage*, const char*, int*);
  int (*image_get_blob)(const VipsImage*, const char*, const void**, size_t*);
  VipsRegion* (*region_new)(VipsImage*);
  int (*region_prepare)(VipsRegion*, const VipsRect*);
  void (*error_clear)();
  void (*thread_shutdown)();
  void* (*thread_new)(const char*, void* (*)(void*), void*);
  void* (*thread_join)(void*);
  void (*object_unref)(void*);
};

#ifdef __linux__
template <typename Function>
bool look_up(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

/// The library's own handle. It stays in the process: its types cannot be unloaded.
void* find_library() {
  void* found = nullptr;
  dl_iterate_phdr(
      [](dl_phdr_info* object, size_t, void* result) {
        const std::string_view path = object->dlpi_name;
        const std::string_view name = path.substr(path.rfind('/') + 1);
        if (name.rfind("libvips-cpp.so", 0) != 0 && name.rfind("libvips.so", 0) != 0) {
          return 0;
        }
        *static_cast<void**>(result) = const_cast<char*>(object->dlpi_name);
        return 1;
      },
      &found);
  return found == nullptr ? nullptr : dlopen(static_cast<const char*>(found), RTLD_NOLOAD | RTLD_LAZY);
}

bool look_up_all(void* library, Libvips& vips) {
  return look_up(library, "vips_version", vips.version) && look_up(library, "vips_init", vips.init) &&
         look_up(library, "vips_jpegload_buffer", vips.jpegload_buffer) &&
         look_up(library, "vips_pngload_buffer", vips.pngload_buffer) &&
         look_up(library, "vips_image_new_from_memory", vips.image_new_from_memory) &&
         look_up(library, "vips_image_get_width", vips.image_get_width) &&
         look_up(library, "vips_image_get_height", vips.image_get_height) &&
         look_up(library, "vips_image_get_bands", vips.image_get_bands) &&
         look_up(library, "vips_image_get_format", vips.image_get_format) &&
         look_up(library, "vips_image_get_coding", vips.image_get_coding) &&
         look_up(library, "vips_image_get_interpretation", vips.image_get_interpretation) &&
         look_up(library, "vips_image_get_typeof", vips.image_get_typeof) &&
         look_up(library, "vips_image_get_int", vips.image_get_int) &&
         look_up(library, "vips_image_get_blob", vips.image_get_blob) &&
         look_up(library, "vips_region_new", vips.region_new) &&
         look_up(library, "vips_region_prepare", vips.region_prepare) &&
         look_up(library, "vips_error_clear", vips.error_clear) &&
         look_up(library, "vips_thread_shutdown", vips.thread_shutdown) &&
         look_up(library, "vips_g_thread_new", vips.thread_new) &&
         look_up(library, "g_thread_join", vips.thread_join) &&
         look_up(library, "g_object_unref", vips.object_unref);
}

/// Whether a region is laid out as this file says: seen at one whose pixels lie where we put them.
bool check_region(const Libvips& vips) {
  constexpr int kWidth = 7;
  constexpr int kHeight = 5;
  constexpr int kBands = 3;
  std::array<uint8_t, size_t{kWidth} * kHeight * kBands> pixels{};
  VipsImage* const image =
      vips.image_new_from_memory(pixels.data(), pixels.size(), kWidth, kHeight, kBands, kFormatUchar);
  if (image == nullptr) {
    return false;
  }
  VipsRegion* const region = vips.region_new(image);
  const auto shows = [&](const VipsRect& part) {
    return vips.region_prepare(region, &part) == 0 && region->image == image &&
           region->line == kWidth * kBands && region->valid.left <= part.left &&
           region->valid.top <= part.top &&
           region->valid.left + region->valid.width >= part.left + part.width &&
           region->valid.top + region->valid.height >= part.top + part.height &&
           region->data + (part.top - region->valid.top) * region->line +
                   (part.left - region->valid.left) * kBands ==
               pixels.data() + (part.top * kWidth + part.left) * kBands;
  };
  const bool is_so = region != nullptr && shows({0, 0, kWidth, kHeight}) && shows({2, 1, 3, 2});
  if (region != nullptr) {
    vips.object_unref(region);
  }
  vips.object_unref(image);
  return is_so;
}
#endif

/// Null where there is none that serves; looked for until one is found.
const Libvips* libvips() {
#ifdef __linux__
  static std::mutex mutex;
  static const Libvips* found = nullptr;
  static void* refused = nullptr;
  const std::lock_guard lock(mutex);
  if (found != nullptr) {
    return found;
  }
  void* const library = find_library();
  if (library == nullptr || library == refused) {
    return nullptr;
  }
  Libvips vips{};
  if (look_up_all(library, vips) && vips.version(0) == 8 && vips.version(1) >= kLeastMinorVersion &&
      vips.init("senet-torch") == 0 && check_region(vips)) {
    found = new Libvips(vips);
  } else {
    refused = library;
  }
  return found;
#else
  return nullptr;
#endif
}

class VipsReader final : public PictureReader {
 public:
  VipsReader(const Libvips& vips, VipsImage* image, int64_t strip)
      : vips_(vips),
        image_(image),
        strip_(strip),
        picture_{vips.image_get_width(image), vips.image_get_height(image), vips.image_get_bands(image), 0} {
    if (vips.image_get_typeof(image, "orientation") != 0) {
      vips.image_get_int(image, "orientation", &picture_.orientation);
    }
  }
  VipsReader(const VipsReader&) = delete;
  VipsReader& operator=(const VipsReader&) = delete;
  ~VipsReader() override {
    vips_.object_unref(image_);
    vips_.thread_shutdown();  // what it keeps for each thread
  }

  bool has_plain_pixels() const {
    const int space = vips_.image_get_interpretation(image_);
    const bool is_grey = space == kInterpretationGrey && picture_.bands <= 2;
    const bool is_rgb = space == kInterpretationRgb && (picture_.bands == 3 || picture_.bands == 4);
    return vips_.image_get_format(image_) == kFormatUchar && vips_.image_get_coding(image_) == 0 &&
           (is_grey || is_rgb);
  }
  const Picture& picture() const override {
    return picture_;
  }
  bool has_xmp_orientation() const override {
    const void* data = nullptr;
    size_t length = 0;
    return vips_.image_get_typeof(image_, "xmp-data") != 0 &&
           vips_.image_get_blob(image_, "xmp-data", &data, &length) == 0 &&
           std::string_view(static_cast<const char*>(data), length).find("tiff:Orientation") !=
               std::string_view::npos;
  }
  bool read(InputMaker& maker) override {
    if (picture_.width * picture_.height < kOwnThreadPixels) {
      return read_here(maker);
    }
    Reading reading{*this, maker};
    void* const thread = vips_.thread_new("senet-decode", &Reading::run, &reading);
    if (thread == nullptr) {  // the system has none left
      vips_.error_clear();
      return read_here(maker);
    }
    vips_.thread_join(thread);
    if (reading.failure != nullptr) {
      std::rethrow_exception(reading.failure);
    }
    return reading.is_whole;
  }

 private:
  // What a thread of libvips's does, while the one that wants it waits.
  struct Reading {
    const VipsReader& reader;
    InputMaker& maker;
    bool is_whole = false;
    std::exception_ptr failure = nullptr;

    static void* run(void* given) {
      auto& reading = *static_cast<Reading*>(given);
      try {
        reading.is_whole = reading.reader.read_here(reading.maker);
      } catch (...) {
        reading.failure = std::current_exception();
      }
      return nullptr;
    }
  };

  bool read_here(InputMaker& maker) const {
    VipsRegion* const region = vips_.region_new(image_);
    if (region == nullptr) {
      vips_.error_clear();
      return false;
    }
    const bool is_whole = read_rows(*region, maker);
    vips_.object_unref(region);
    if (!is_whole) {
      vips_.error_clear();
    }
    return is_whole;
  }

  bool read_rows(VipsRegion& region, InputMaker& maker) const {
    for (int64_t row = 0; row < picture_.height; row += strip_) {
      const int64_t count = std::min(strip_, picture_.height - row);
      const VipsRect part{0, static_cast<int>(row), static_cast<int>(picture_.width),
                          static_cast<int>(count)};
      if (vips_.region_prepare(&region, &part) != 0) {
        return false;
      }
      const auto down = static_cast<int64_t>(part.top - region.valid.top) * region.line;
      maker.push(region.data + down - region.valid.left * picture_.bands, region.line, count);
    }
    return true;
  }

  const Libvips& vips_;
  VipsImage* image_;
  int64_t strip_;
  Picture picture_;
};

}  // namespace

std::unique_ptr<PictureReader> PictureReader::open(const uint8_t* bytes, size_t length, PictureFormat format,
                                                   int shrink) {
  const Libvips* const vips = libvips();
  if (vips == nullptr) {
    return nullptr;
  }
  void* const data = const_cast<uint8_t*>(bytes);  // which libvips only reads
  VipsImage* image = nullptr;
  const bool is_jpeg = format == PictureFormat::kJpeg;
  constexpr void* kEnd = nullptr;
  const int status = is_jpeg && shrink > 1
                         ? vips->jpegload_buffer(data, length, &image, "access", kAccessSequential, "fail_on",
                                                 kFailOnError, "shrink", shrink, kEnd)
                     : is_jpeg ? vips->jpegload_buffer(data, length, &image, "access", kAccessSequential,
                                                       "fail_on", kFailOnError, kEnd)
                               : vips->pngload_buffer(data, length, &image, "access", kAccessSequential,
                                                      "fail_on", kFailOnError, kEnd);
  if (status != 0) {
    vips->error_clear();
    vips->thread_shutdown();
    return nullptr;
  }
  auto reader = std::make_unique<VipsReader>(*vips, image, is_jpeg ? kJpegRows : kPngRows);
  return reader->has_plain_pixels() ? std::move(reader) : nullptr;
}

bool can_read_pictures() {
  return libvips() != nullptr;
}

}  // namespace senet::vision
