// D-FINE's fine-grained localisation loss on the GPU, as cpu/fgl_loss.h. The sums are added in a
// fixed order: two runs give the same bits.
#pragma once

#include <cstdint>

#include "core/tensor_view.h"
#include "cuda/stage_arguments.h"

namespace detrx::cuda {

// Sums, over each stage, the cross-entropy of each edge's distribution against the two bins around
// the true edge, times the query's IoU, and divides by normaliser. All tensors are contiguous.
//   edges      (L, B, Q, 4, R + 1) float32, float16 or bfloat16
//   references (L, B, Q, 4) float32 centres that the distributions refine
//   truths     (B, M, 4) float32 centres
//   owners     (L, B, Q) or (1, B, Q) int32
//   iou        (L, B, Q) float32 weights
//   normaliser (1,) float32 or none
//   sums       (L,) written
//   parts      (L, loss_parts(B, Q), 2) float32, for the work
void fgl_loss(const AnyView<5>& edges, const AnyView<4>& references, const AnyView<3>& truths,
              const AnyView<3>& owners, const AnyView<3>& iou, float reg_scale, float up,
              const Normaliser& normaliser, const AnyView<1>& sums, const AnyView<3>& parts,
              std::int64_t stream);

// The gradient of the above, given that of sums.
//   grad_edges (L, B, Q, 4, R + 1) of the type of edges, written: 0 where a query owns nothing
void fgl_loss_backward(const AnyView<1>& grad, const AnyView<5>& edges,
                       const AnyView<4>& references, const AnyView<3>& truths,
                       const AnyView<3>& owners, const AnyView<3>& iou, float reg_scale, float up,
                       const Normaliser& normaliser, const AnyView<5>& grad_edges,
                       std::int64_t stream);

}  // namespace detrx::cuda
