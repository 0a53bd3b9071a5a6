// The box losses of queries that own a target: L1, and 1 - overlap.
#pragma once

#include <cstdint>

#include "core/box.h"
#include "core/tensor_view.h"

namespace detrx::cpu {

// Sums both distances of each stage and divides them by normaliser.
//   boxes   (L, B, Q, 4) centres: float32, float16 or bfloat16, of any strides
//   truths  (B, M, 4) centres, contiguous
//   owners  (L, B, Q) or (1, B, Q), queries adjacent
//   l1      (L,) written
//   away    (L,) written: the sums of 1 - overlap
//   iou     (L, B, Q) contiguous, written: 0 where a query owns nothing
//   threads >= 1, share the images; they change no bit of the answer
void box_loss(const AnyView<4>& boxes, const TensorView<const float, 3>& truths,
              const TensorView<const std::int32_t, 3>& owners, Overlap kind, float normaliser,
              const TensorView<float, 1>& l1, const TensorView<float, 1>& away,
              const TensorView<float, 3>& iou, int threads);

// The gradient of the above, given those of l1 and away.
//   grad_boxes (L, B, Q, 4) contiguous, of the type of boxes, written: 0 where a query owns nothing
void box_loss_backward(const TensorView<const float, 1>& grad_l1,
                       const TensorView<const float, 1>& grad_away, const AnyView<4>& boxes,
                       const TensorView<const float, 3>& truths,
                       const TensorView<const std::int32_t, 3>& owners, Overlap kind,
                       float normaliser, const AnyView<4>& grad_boxes, int threads);

}  // namespace detrx::cpu
