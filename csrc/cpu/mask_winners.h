// Which of several masks has each pixel of a picture.
#pragma once

#include <cstdint>

#include "core/tensor_view.h"

namespace detrx::cpu {

// The mask with the highest logit at each place, read between four cells as torch's bilinear does:
// first along the columns, then along the rows, in float32.
//   logits  (K, h, w) contiguous, K >= 1; a NaN never wins
//   rows    (H,) rising, in [0, h - 1]: where to read, 0 the middle of the first cell
//   columns (W,) rising, in [0, w - 1]
//   best    (H, W) contiguous, written: the first of the highest
//   threads >= 1, share the rows; they change no bit of the answer
void mask_winners(const TensorView<const float, 3>& logits, const TensorView<const float, 1>& rows,
                  const TensorView<const float, 1>& columns,
                  const TensorView<std::int32_t, 2>& best, int threads);

}  // namespace detrx::cpu
