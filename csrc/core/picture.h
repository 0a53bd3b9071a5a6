// Pictures as cameras and decoders lay them in memory, and what their colours mean.
#pragma once

#include <cstdint>

#include "core/inline.h"

namespace detrx {

// How the bytes of a pixel lie: one plane of 3, 4 or 1 bytes a pixel; nv12 has a plane of luma and
// one of half as many (u, v) pairs each way; yuyv alternates luma with u and v.
enum class PixelFormat : std::uint8_t { rgb, bgr, rgba, bgra, grey, nv12, yuyv };

// What y, u and v stand for: the weights of a standard, over 16 to 235 or (full) 0 to 255.
enum class Colours : std::uint8_t { bt601, bt601_full, bt709, bt709_full };

// Times 2^20.
struct YuvWeights {
  std::int32_t black, y, ub, ug, vg, vr;
};

// BT.601 of limited range has the rounded figures that OpenCV has; the others follow from kr, kb.
DETRX_HD DETRX_INLINE YuvWeights weights_of(Colours colours) {
  switch (colours) {
    case Colours::bt601_full:
      return {0, 1048576, 1858077, -360853, -748826, 1470104};
    case Colours::bt709:
      return {16, 1220945, 2215014, -223607, -558796, 1879825};
    case Colours::bt709_full:
      return {0, 1048576, 1945738, -196424, -490864, 1651297};
    default:
      return {16, 1220542, 2116026, -409993, -852492, 1673527};
  }
}

DETRX_HD DETRX_INLINE std::int32_t whole_level(std::int32_t scaled) {
  const std::int32_t level = scaled >> 20;
  return level < 0 ? 0 : (level > 255 ? 255 : level);
}

// A word of y, u and v, the first byte lowest, as one of red, green and blue, each rounded to the
// nearest level.
DETRX_HD DETRX_INLINE std::int32_t rgb_word(std::int32_t yuv, const YuvWeights& w) {
  const std::int32_t y = (yuv & 255) - w.black, u = ((yuv >> 8) & 255) - 128,
                     v = ((yuv >> 16) & 255) - 128;
  const std::int32_t light = (y > 0 ? y : 0) * w.y + (1 << 19);
  return whole_level(light + w.vr * v) | whole_level(light + w.vg * v + w.ug * u) << 8 |
         whole_level(light + w.ub * u) << 16;
}

}  // namespace detrx
