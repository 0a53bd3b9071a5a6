// D-FINE's decoupled distillation focal loss (arXiv 2410.13842): the last layer's distributions
// teach the layers before.
#pragma once

#include <cstdint>

#include "core/tensor_view.h"

namespace detrx::cpu {

// Sums, over each stage but the last, the Kullback-Leibler divergence of each edge's distribution
// from the last stage's, both softened by temperature. A query that owns a target weighs its IoU,
// any other its confidence; the means over the two kinds are weighed by the roots of their numbers.
//   edges       (L, B, Q, 4, R + 1) float32, float16 or bfloat16; bins adjacent, other strides free
//   confidence  (B, Q) in [0, 1], any strides
//   owners      (L, B, Q) or (1, B, Q), queries adjacent
//   iou         (L, B, Q), any strides
//   counts      (L - 1, 2) contiguous: queries with a target and without, perhaps of more images
//   temperature > 0
//   sums        (L - 1,) written, (0,) where L is 0
//   log_sums    (L, B, Q, 4) contiguous, written: for the way back
//   threads     >= 1, share the images; they change no bit of the answer
void ddf_loss(const AnyView<5>& edges, const TensorView<const float, 2>& confidence,
              const TensorView<const std::int32_t, 3>& owners,
              const TensorView<const float, 3>& iou, const TensorView<const float, 2>& counts,
              float temperature, const TensorView<float, 1>& sums,
              const TensorView<float, 4>& log_sums, int threads);

// The gradient of the above, given that of sums; none goes to the last stage.
//   grad_edges (L, B, Q, 4, R + 1) contiguous, of the type of edges, written
void ddf_loss_backward(const TensorView<const float, 1>& grad, const AnyView<5>& edges,
                       const TensorView<const float, 2>& confidence,
                       const TensorView<const std::int32_t, 3>& owners,
                       const TensorView<const float, 3>& iou,
                       const TensorView<const float, 2>& counts, float temperature,
                       const TensorView<const float, 4>& log_sums, const AnyView<5>& grad_edges,
                       int threads);

}  // namespace detrx::cpu
