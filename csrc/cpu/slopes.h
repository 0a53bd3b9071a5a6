// Slopes that a loss wrote on its way forward, and large places for gradients.
#pragma once

#include <cstdint>

#include "core/tensor_view.h"

namespace detrx::cpu {

// Multiplies the slopes of each stage with its gradient, where they lie.
//   grad    (L,)
//   slopes  (L, B, Q, C) float32, contiguous
//   threads >= 1, share the work
void scale_slopes(const TensorView<const float, 1>& grad, const TensorView<float, 4>& slopes,
                  int threads);

// Asks for large pages where fresh memory is about to be written; making small ones would take
// longer than what is written there.
void prefer_large_pages(void* from, std::int64_t bytes) noexcept;

// Refuses a place for slopes that is not laid out as it must be, and answers where it begins.
float* room_for_slopes(const char* where, const AnyView<4>& slopes, const AnyView<4>& logits);

}  // namespace detrx::cpu
