#include "cpu/pixel_rows.h"

#include <cstring>

#include "core/error.h"

namespace detrx::cpu {
namespace {

constexpr std::int64_t kLongest = 1 << 24;  // rows of 4 bytes a pixel are counted in 32 bits

std::int32_t word(std::int32_t first, std::int32_t second, std::int32_t third) {
  return first | second << 8 | third << 16;
}

}  // namespace

PixelRows::PixelRows(const PictureView& picture) : picture_(picture) {
  const auto& shape = picture.plane.shape;
  require(height() > 0 && width() > 0, "[letterbox] a picture must hold at least one pixel, got ",
          text(shape));
  require(height() < kLongest && width() < kLongest,
          "[letterbox] a picture is too large: ", text(shape));
  const PixelFormat format = picture.format;
  if (format == PixelFormat::bgr || format == PixelFormat::bgra) {
    order_[0] = 2;
    order_[2] = 0;
  }
  if (format == PixelFormat::nv12) {
    require_nv12();
    return;
  }
  require(!picture.chroma, "[letterbox] nv12 alone has a plane of chroma");
  if (format == PixelFormat::yuyv) {
    require(shape[2] == 2 && width() % 2 == 0,
            "[letterbox] yuyv must have shape (H, W, 2) with W even, got ", text(shape));
  } else if (format == PixelFormat::grey) {
    require_bytes(1);
  } else {
    require_bytes(format == PixelFormat::rgb || format == PixelFormat::bgr ? 3 : 4);
    adjacent_ = picture.plane.stride[2] == 1 && (step() == 3 || step() == 4);
  }
}

void PixelRows::require_bytes(std::int64_t channels) const {
  require(picture_.plane.shape[2] == channels, "[letterbox] this format has ", channels,
          " bytes a pixel, got a plane of shape ", text(picture_.plane.shape));
}

void PixelRows::require_nv12() const {
  require_bytes(1);
  require(picture_.chroma.has_value(),
          "[letterbox] nv12 has a plane of chroma beside that of luma");
  require_shape("letterbox", "the chroma of nv12", *picture_.chroma,
                {(height() + 1) / 2, (width() + 1) / 2, 2});
}

void PixelRows::read(std::int64_t y, const std::int32_t* at, std::int64_t count,
                     std::int32_t* words) const {
  const auto& plane = picture_.plane;
  const std::uint8_t* const from = row(y);
  const std::int64_t step = plane.stride[1], channel = plane.stride[2];
  if (picture_.chroma) {
    const auto& chroma = *picture_.chroma;
    const std::uint8_t* const pairs = chroma.data + y / 2 * chroma.stride[0];
    for (std::int64_t i = 0; i < count; ++i) {
      const std::uint8_t* const pair = pairs + at[i] / 2 * chroma.stride[1];
      words[2 * i] = word(from[at[i] * step], pair[0], pair[chroma.stride[2]]);
    }
  } else if (plane.shape[2] == 2) {
    for (std::int64_t i = 0; i < count; ++i) {
      const std::uint8_t* const even = from + at[i] / 2 * 2 * step;
      words[2 * i] = word(from[at[i] * step], even[channel], even[step + channel]);
    }
  } else {
    const std::int64_t apart = plane.shape[2] == 1 ? 0 : channel;
    for (std::int64_t i = 0; i < count; ++i) {
      const std::uint8_t* const pixel = from + at[i] * step;
      words[2 * i] = word(pixel[0], pixel[apart], pixel[2 * apart]);
    }
  }
}

}  // namespace detrx::cpu
