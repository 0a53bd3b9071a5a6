// Lays a picture on a canvas, normalised, channels first, in one pass over the canvas.
#pragma once

#include <optional>

#include "core/letterbox.h"
#include "core/picture.h"
#include "core/tensor_view.h"

namespace detrx::cpu {

// A picture of any strides. Its plane is (H, W, 3 or 4) for the colours by bytes, (H, W, 1) for
// grey and the luma of nv12, (H, W, 2) for yuyv, with W even.
struct PictureView {
  TensorView<const std::uint8_t, 3> plane;
  std::optional<TensorView<const std::uint8_t, 3>> chroma;  // of nv12: (H / 2, W / 2, 2) rounded up
  PixelFormat format = PixelFormat::rgb;
  Colours colours = Colours::bt601;
};

// Writes out (3, h, w), red first: within the window level * scale + shift, elsewhere what empty
// says; levels are those of OpenCV's bilinear resize to the bit. out is float32, float16 or uint8,
// the last without scale and shift; its rows are of adjacent items. On up to `threads` threads.
void letterbox(const PictureView& picture, const Window& window, const Normalisation& normal,
               const AnyView<3>& out, int threads);

}  // namespace detrx::cpu
