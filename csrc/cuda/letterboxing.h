// What the kernel of the letterbox is given.
#pragma once

#include <cstdint>

#include "core/letterbox.h"
#include "core/picture.h"
#include "cuda/launch.h"

namespace detrx::cuda {

// A picture in device memory whose pixels are adjacent and whose rows may be pitched; or in
// textures (CUtexObject of unnormalised places, read as they are), of one byte for luma and grey,
// two for chroma, four else.
struct DevicePicture {
  const std::uint8_t *plane, *chroma;  // null where textures are read
  std::int64_t pitch, chroma_pitch;    // bytes from row to row
  unsigned long long texture, chroma_texture;
  std::int64_t height, width;
  PixelFormat format;
  Colours colours;
};

struct LetterboxProblem {
  DevicePicture picture;
  const Tap *rows, *columns;  // of the window, in device memory
  Window window;
  Normalisation normal;
  void* out;  // (3, h, w)
  std::int64_t height, width;
};

// A problem that lies in device memory, so that a captured launch lays one picture after another;
// what stays is the canvas.
struct LetterboxPlace {
  const LetterboxProblem* problem;
  std::int64_t height, width;
};

// T is float, Half or std::uint8_t.
template <typename T>
void launch_letterbox(const LetterboxProblem& problem, Stream stream);
template <typename T>
void launch_letterbox(const LetterboxPlace& place, Stream stream);

}  // namespace detrx::cuda
