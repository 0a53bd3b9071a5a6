// Sigmoid class losses over all queries and classes, without one-hot targets.
#pragma once

#include <cstdint>
#include <optional>

#include "core/focal.h"
#include "core/tensor_view.h"

namespace detrx::cpu {

// Sums the loss of each stage and divides it by normaliser.
//   logits  (L, B, Q, C) float32, float16 or bfloat16; classes adjacent, other strides free
//   labels  (B, M) classes in [0, C), contiguous
//   owners  (L, B, Q) or (1, B, Q), queries adjacent
//   quality (L, B, Q) read where a query owns a target; not used by kind focal
//   sums    (L,) written
//   slopes  (L, B, Q, C) float32 as logits must then be, contiguous; written where it is there: the
//           gradient of sums
//   threads >= 1, share the queries; they change no bit of the answer
void focal_loss(const AnyView<4>& logits, const TensorView<const std::int64_t, 2>& labels,
                const TensorView<const std::int32_t, 3>& owners,
                const std::optional<TensorView<const float, 3>>& quality, FocalKind kind,
                float alpha, float gamma, float normaliser, const TensorView<float, 1>& sums,
                const std::optional<AnyView<4>>& slopes, int threads);

// The gradient of the above, given that of sums.
//   grad_logits (L, B, Q, C) contiguous, of the type of logits, written
void focal_loss_backward(const TensorView<const float, 1>& grad, const AnyView<4>& logits,
                         const TensorView<const std::int64_t, 2>& labels,
                         const TensorView<const std::int32_t, 3>& owners,
                         const std::optional<TensorView<const float, 3>>& quality, FocalKind kind,
                         float alpha, float gamma, float normaliser, const AnyView<4>& grad_logits,
                         int threads);

}  // namespace detrx::cpu
