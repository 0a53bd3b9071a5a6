// Lays a picture on a canvas on the GPU, with the answers of cpu/letterbox.h to the bit.
#pragma once

#include <optional>

#include "core/tensor_view.h"
#include "cuda/letterboxing.h"

namespace detrx::cuda {

// The taps of a window over a picture of (height, width), first those of its rows: what a caller
// makes once for a camera and keeps in device memory.
std::int64_t letterbox_taps(const Window& window);
void letterbox_taps(const Window& window, std::int64_t height, std::int64_t width, Tap* taps);

// Enqueues the work on the stream and does not wait; nothing is checked but the format. The taps of
// the problem are set from one pointer to all of them.
void letterbox(LetterboxProblem problem, const Tap* taps, Dtype out, Stream stream);
// The same of a problem that is read, and whose pictures are read, when the work is done.
void letterbox(const LetterboxPlace& place, Dtype out, Stream stream);

// The same for tensors, which are checked: planes (H, W, C) of adjacent pixels, as cpu/letterbox.h
// has them; taps (count, 3) int32; out (3, h, w) contiguous.
void letterbox(const AnyView<3>& plane, const std::optional<AnyView<3>>& chroma, PixelFormat format,
               Colours colours, const Window& window, const Normalisation& normal,
               const AnyView<2>& taps, const AnyView<3>& out, std::int64_t stream);

}  // namespace detrx::cuda
