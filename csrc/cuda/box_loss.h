// The box losses of queries that own a target on the GPU, as cpu/box_loss.h. The sums are added in
// a fixed order: two runs give the same bits.
#pragma once

#include <cstdint>

#include "core/box.h"
#include "core/tensor_view.h"
#include "cuda/stage_arguments.h"

namespace detrx::cuda {

// Sums both distances of each stage and divides them by normaliser. All tensors are contiguous.
//   boxes      (L, B, Q, 4) centres: float32, float16 or bfloat16
//   truths     (B, M, 4) centres
//   owners     (L, B, Q) or (1, B, Q) int32
//   normaliser (1,) float32 or none
//   l1, away   (L,) written: the sums of L1 and of 1 - overlap
//   iou        (L, B, Q) written: 0 where a query owns nothing
//   parts      (L, loss_parts(B, Q), 2) float32, for the work
void box_loss(const AnyView<4>& boxes, const AnyView<3>& truths, const AnyView<3>& owners,
              Overlap kind, const Normaliser& normaliser, const AnyView<1>& l1,
              const AnyView<1>& away, const AnyView<3>& iou, const AnyView<3>& parts,
              std::int64_t stream);

// The gradient of the above, given those of l1 and away.
//   grad_boxes (L, B, Q, 4) of the type of boxes, written: 0 where a query owns nothing
void box_loss_backward(const AnyView<1>& grad_l1, const AnyView<1>& grad_away,
                       const AnyView<4>& boxes, const AnyView<3>& truths, const AnyView<3>& owners,
                       Overlap kind, const Normaliser& normaliser, const AnyView<4>& grad_boxes,
                       std::int64_t stream);

}  // namespace detrx::cuda
