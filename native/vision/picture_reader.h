// Rows of JPEG and PNG files, decoded by the libvips that is in the process already: the one that sharp,
// which decodes all other images, brings and has started. Looked up by name at run time, so that the addon
// needs none to be built or loaded; where there is none, or it is not as it should be, nothing is read here.
#pragma once

#include "vision/input_maker.h"

#include <cstddef>
#include <cstdint>
#include <memory>

namespace senet::vision {

enum class PictureFormat : uint8_t { kJpeg, kPng };

class PictureReader {
 public:
  /// Reads the header. Null for what is not read here: no libvips, an image that is damaged, or one that has
  /// other pixels than 8 bits of grey or RGB. The bytes must outlive the reader. `shrink`, 1, 2, 4 or 8,
  /// divides a JPEG's sides while it is decoded, by libjpeg's scaling.
  static std::unique_ptr<PictureReader> open(const uint8_t* bytes, size_t length, PictureFormat format,
                                             int shrink);
  virtual ~PictureReader() = default;

  /// `orientation` 0: the file's EXIF says none.
  virtual const Picture& picture() const = 0;
  /// Whether there is an XMP packet that may say how the picture is turned.
  virtual bool has_xmp_orientation() const = 0;
  /// Calls maker.push() for all rows; false if the image turns out to be damaged.
  virtual bool read(InputMaker& maker) = 0;
};

/// Whether open() can read anything in this process.
bool can_read_pictures();

}  // namespace senet::vision
