// Pixels of a picture as words, whatever its format and strides.
#pragma once

#include <cstdint>

#include "cpu/letterbox.h"

namespace detrx::cpu {

class PixelRows {
 public:
  // Refuses planes that do not fit the format or each other.
  explicit PixelRows(const PictureView& picture);

  std::int64_t height() const noexcept { return picture_.plane.shape[0]; }
  std::int64_t width() const noexcept { return picture_.plane.shape[1]; }

  // Whether rows are pixels of 3 or 4 adjacent bytes, `step` bytes apart, and how long one is.
  bool adjacent() const noexcept { return adjacent_; }
  std::int64_t step() const noexcept { return picture_.plane.stride[1]; }
  std::int64_t bytes() const noexcept { return (width() - 1) * step() + 3; }
  const std::uint8_t* row(std::int64_t y) const noexcept {
    return picture_.plane.data + y * picture_.plane.stride[0];
  }

  // Any rows: writes the pixels at the columns `at` of row y to every second word, their first byte
  // lowest. A word holds y, u and v where `luminous`, red, green and blue in their order elsewhere.
  void read(std::int64_t y, const std::int32_t* at, std::int64_t count, std::int32_t* words) const;
  bool luminous() const noexcept { return picture_.chroma || picture_.format == PixelFormat::yuyv; }
  Colours colours() const noexcept { return picture_.colours; }

  // Which byte of a pixel is red, green and blue.
  const int* order() const noexcept { return order_; }

 private:
  void require_bytes(std::int64_t channels) const;
  void require_nv12() const;

  PictureView picture_;
  bool adjacent_ = false;
  int order_[3] = {0, 1, 2};
};

}  // namespace detrx::cpu
