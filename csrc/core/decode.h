// From logits and boxes to the best objects: what CPU and CUDA share.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/half.h"
#include "core/inline.h"

namespace detrx {

// What competes: all pairs of query and class by their sigmoid, or queries with their best class by
// the softmax over all columns, of which the last says "no object".
enum class Decoding : std::uint8_t { pairs, queries };

// Rises with the value; the two zeros are one, and NaN stands above all, so that it is seen.
DETRX_HD DETRX_INLINE std::uint32_t rank_of(float value) {
  if (value != value) return 0xffffffffU;
  const std::uint32_t bits = bits_of_float(value + 0.0F);
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}

// Orders values from high to low when keys do; among equals the lower index has the higher key.
DETRX_HD DETRX_INLINE std::uint64_t key_of(float value, std::uint32_t index) {
  return static_cast<std::uint64_t>(rank_of(value)) << 32 | (0xffffffffU - index);
}
DETRX_HD DETRX_INLINE std::uint32_t index_of(std::uint64_t key) {
  return 0xffffffffU - static_cast<std::uint32_t>(key);
}

DETRX_HD DETRX_INLINE float share_of(float logit) { return 1.0F / (1.0F + std::exp(-logit)); }

DETRX_HD DETRX_INLINE float within_canvas(float place) {
  return place < 0.0F ? 0.0F : (place > 1.0F ? 1.0F : place);  // NaN stays
}

// Writes corners x0, y0, x1, y1, cut to the canvas.
template <typename T>
DETRX_HD DETRX_INLINE void write_corners(const T* centres, float* corners) {
  for (int axis = 0; axis < 2; ++axis) {
    const float centre = to_float(centres[axis]), half = to_float(centres[axis + 2]) * 0.5F;
    corners[axis] = within_canvas(centre - half);
    corners[axis + 2] = within_canvas(centre + half);
  }
}

}  // namespace detrx
