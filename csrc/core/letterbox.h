// How a picture is laid on a canvas: bilinear in whole numbers, with the weights and the rounding
// of OpenCV's resize for bytes (11 bits a weight), so that both give the same levels.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/inline.h"

namespace detrx {

// Along one axis: the two pixels of the picture that one of the canvas reads, and how much each
// counts of 2048.
struct Tap {
  std::int32_t first, second;
  std::int16_t first_weight, second_weight;
};

// To the nearest, ties to even.
DETRX_HD DETRX_INLINE std::int16_t whole_weight(float weight) {
  const float scaled = weight * 2048.0F;
  const auto below = static_cast<std::int32_t>(std::floor(scaled));
  const float rest = scaled - static_cast<float>(below);
  const bool up = rest > 0.5F || (rest == 0.5F && (below & 1) != 0);
  return static_cast<std::int16_t>(below + (up ? 1 : 0));
}

// The tap of place `at` of `wanted` places over `length` pixels. Beyond the outermost middles the
// columns read one pixel; the rows read it twice, with both weights, as OpenCV has it.
DETRX_HD DETRX_INLINE Tap find_tap(std::int64_t at, std::int64_t wanted, std::int64_t length,
                                   bool column) {
  const double scale = 1.0 / (static_cast<double>(wanted) / static_cast<double>(length));
  const auto place = static_cast<float>((static_cast<double>(at) + 0.5) * scale - 0.5);
  const float floor = std::floor(place);
  const auto last = static_cast<std::int32_t>(length - 1);
  auto first = static_cast<std::int32_t>(floor);
  float share = place - floor;
  if (column && (first < 0 || first >= last)) {
    share = 0.0F;
    first = first < 0 ? 0 : last;
  }
  const std::int32_t second = first + 1;
  return {first < 0 ? 0 : (first > last ? last : first), second > last ? last : second,
          whole_weight(1.0F - share), whole_weight(share)};
}

// Two neighbours in a row, as 1/128 of a level.
DETRX_HD DETRX_INLINE std::int32_t across(std::int32_t left, std::int32_t right,
                                          std::int32_t left_weight, std::int32_t right_weight) {
  return (left * left_weight + right * right_weight) >> 4;
}

// Two of the above, one below the other, as a level.
DETRX_HD DETRX_INLINE std::int32_t down(std::int32_t above, std::int32_t below,
                                        std::int32_t above_weight, std::int32_t below_weight) {
  return (((above * above_weight) >> 16) + ((below * below_weight) >> 16) + 2) >> 2;
}

// The rows and the columns of the canvas that the picture covers.
struct Window {
  std::int64_t top, left, height, width;
};

// What becomes of a level of each channel, and of canvas without picture.
struct Normalisation {
  float scale[3], shift[3], empty[3];
};

}  // namespace detrx
