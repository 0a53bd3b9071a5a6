// Sigmoid class losses over all queries and classes on the GPU, as cpu/focal_loss.h. The sums are
// added in a fixed order: two runs give the same bits.
#pragma once

#include <cstdint>
#include <optional>

#include "core/focal.h"
#include "core/tensor_view.h"
#include "cuda/stage_arguments.h"

namespace detrx::cuda {

// Sums the loss of each stage and divides it by normaliser. All tensors are contiguous.
//   logits     (L, B, Q, C) float32, float16 or bfloat16
//   labels     (B, M) int64; a target of another class than [0, C) is no positive
//   owners     (L, B, Q) or (1, B, Q) int32
//   quality    (L, B, Q) float32 or none, which is 1; not used by kind focal
//   normaliser (1,) float32 or none
//   sums       (L,) written
//   parts      (L, loss_parts(B, Q), 2) float32, for the work
void focal_loss(const AnyView<4>& logits, const AnyView<2>& labels, const AnyView<3>& owners,
                const std::optional<AnyView<3>>& quality, FocalKind kind, float alpha, float gamma,
                const Normaliser& normaliser, const AnyView<1>& sums, const AnyView<3>& parts,
                std::int64_t stream);

// The gradient of the above, given that of sums.
//   grad_logits (L, B, Q, C) of the type of logits, written
void focal_loss_backward(const AnyView<1>& grad, const AnyView<4>& logits, const AnyView<2>& labels,
                         const AnyView<3>& owners, const std::optional<AnyView<3>>& quality,
                         FocalKind kind, float alpha, float gamma, const Normaliser& normaliser,
                         const AnyView<4>& grad_logits, std::int64_t stream);

}  // namespace detrx::cuda
