// Where a bilinear sample reads: the four pixels around a point of a feature level.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/inline.h"

namespace detrx {

// Left and right of the row above, then of the row below.
struct Footprint {
  std::int64_t pixel[4];  // counted row by row from the level's first, or -1 outside
  float share[4];         // how much each counts; they add up to 1
  float across, down;     // how far from the left and from the upper pixel
};

// The corners of a location in [0, 1] of a level, edge to edge. Far outside is all alike, which
// keeps the conversion to an integer defined; a NaN becomes a place outside.
DETRX_HD DETRX_INLINE void find_footprint(float x_location, float y_location, std::int64_t height,
                                          std::int64_t width, Footprint& c) {
  const float x = x_location * static_cast<float>(width) - 0.5F;
  const float y = y_location * static_cast<float>(height) - 0.5F;
  const bool near =
      x > -1 && y > -1 && x < static_cast<float>(width) && y < static_cast<float>(height);
  const float left = near ? std::floor(x) : -2.0F, above = near ? std::floor(y) : -2.0F;
  c.across = near ? x - left : 0.0F;
  c.down = near ? y - above : 0.0F;
  const auto column = static_cast<std::int64_t>(left), row = static_cast<std::int64_t>(above);
  for (int k = 0; k < 4; ++k) {
    const std::int64_t i = row + k / 2, j = column + k % 2;
    const bool inside = i >= 0 && i < height && j >= 0 && j < width;
    c.pixel[k] = inside ? i * width + j : -1;
    c.share[k] = (k / 2 ? c.down : 1 - c.down) * (k % 2 ? c.across : 1 - c.across);
  }
}

// The gradients by weight and by x, y in [0, 1] of one sample, of which `product` holds the
// products of the four pixels with the gradient of the sum.
struct SampleGradient {
  float weight, x, y;
};

DETRX_HD DETRX_INLINE SampleGradient differentiate_sample(const Footprint& c,
                                                          const float (&product)[4], float weight,
                                                          std::int64_t height, std::int64_t width) {
  const float above = product[1] - product[0], below = product[3] - product[2];
  const float left = product[2] - product[0], right = product[3] - product[1];
  return {c.share[0] * product[0] + c.share[1] * product[1] + c.share[2] * product[2] +
              c.share[3] * product[3],
          weight * static_cast<float>(width) * (above + c.down * (below - above)),
          weight * static_cast<float>(height) * (left + c.across * (right - left))};
}

}  // namespace detrx
