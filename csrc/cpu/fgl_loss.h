// D-FINE's fine-grained localisation loss (arXiv 2410.13842) of queries that own a target.
#pragma once

#include <cstdint>

#include "core/tensor_view.h"

namespace detrx::cpu {

// Sums, over each stage, the cross-entropy of each edge's distribution against the two bins around
// the true edge, times the query's IoU, and divides by normaliser.
//   edges      (L, B, Q, 4, R + 1) float32, float16 or bfloat16; bins adjacent, other strides free
//   references (L, B, Q, 4) centres that the distributions refine, contiguous
//   truths     (B, M, 4) centres, contiguous
//   owners     (L, B, Q) or (1, B, Q), queries adjacent
//   iou        (L, B, Q) weights, any strides
//   sums       (L,) written
//   threads    >= 1, share the images; they change no bit of the answer
void fgl_loss(const AnyView<5>& edges, const TensorView<const float, 4>& references,
              const TensorView<const float, 3>& truths,
              const TensorView<const std::int32_t, 3>& owners,
              const TensorView<const float, 3>& iou, float reg_scale, float up, float normaliser,
              const TensorView<float, 1>& sums, int threads);

// The gradient of the above, given that of sums.
//   grad_edges (L, B, Q, 4, R + 1) contiguous, of the type of edges, written: 0 where a query owns
//              nothing
void fgl_loss_backward(const TensorView<const float, 1>& grad, const AnyView<5>& edges,
                       const TensorView<const float, 4>& references,
                       const TensorView<const float, 3>& truths,
                       const TensorView<const std::int32_t, 3>& owners,
                       const TensorView<const float, 3>& iou, float reg_scale, float up,
                       float normaliser, const AnyView<5>& grad_edges, int threads);

}  // namespace detrx::cpu
