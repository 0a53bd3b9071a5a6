// D-FINE's decoupled distillation focal loss on the GPU, as cpu/ddf_loss.h. The sums are added in a
// fixed order: two runs give the same bits.
#pragma once

#include <cstdint>

#include "core/tensor_view.h"
#include "cuda/stage_arguments.h"

namespace detrx::cuda {

// The weighted divergences of all stages from the last. All tensors are contiguous.
//   edges       (L, B, Q, 4, R + 1) float32, float16 or bfloat16
//   confidence  (B, Q) float32 in [0, 1]
//   owners      (L, B, Q) or (1, B, Q) int32
//   iou         (L, B, Q) float32
//   counts      (L - 1, 2) float32: queries with a target and without, perhaps of more images
//   temperature > 0
//   sums        (L - 1,) written, (0,) where L is 0
//   log_sums    (L, B, Q, 4) written, where L is above 1: for the way back
//   parts       (L, loss_parts(B, Q), 2) float32, for the work
void ddf_loss(const AnyView<5>& edges, const AnyView<2>& confidence, const AnyView<3>& owners,
              const AnyView<3>& iou, const AnyView<2>& counts, float temperature,
              const AnyView<1>& sums, const AnyView<4>& log_sums, const AnyView<3>& parts,
              std::int64_t stream);

// The gradient of the above, given that of sums; none goes to the last stage.
//   grad_edges (L, B, Q, 4, R + 1) of the type of edges, written
void ddf_loss_backward(const AnyView<1>& grad, const AnyView<5>& edges,
                       const AnyView<2>& confidence, const AnyView<3>& owners,
                       const AnyView<3>& iou, const AnyView<2>& counts, float temperature,
                       const AnyView<4>& log_sums, const AnyView<5>& grad_edges,
                       std::int64_t stream);

}  // namespace detrx::cuda
