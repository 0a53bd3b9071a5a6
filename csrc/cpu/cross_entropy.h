// DETR's class loss (arXiv 2005.12872): weighted softmax cross-entropy over all queries.
#pragma once

#include <cstdint>
#include <optional>

#include "core/tensor_view.h"

namespace detrx::cpu {

// The weighted mean over the queries of each stage. A query that owns a target weighs 1 and is
// taught the target's class, any other weighs no_object and is taught the last class.
//   logits   (L, B, Q, C + 1) float32, float16 or bfloat16; classes adjacent, other strides free
//   labels   (B, M) classes in [0, C), contiguous
//   owners   (L, B, Q) or (1, B, Q), queries adjacent
//   means    (L,) written
//   log_sums (L, B, Q) contiguous, written: what the way back needs of each query
//   weights  (L,) contiguous, written: the sum of the weights of each stage
//   slopes   (L, B, Q, C + 1) float32 as logits must then be, contiguous; written where it is
//            there: the gradient of means
//   threads  >= 1, share the queries; they change no bit of the answer
void cross_entropy(const AnyView<4>& logits, const TensorView<const std::int64_t, 2>& labels,
                   const TensorView<const std::int32_t, 3>& owners, float no_object,
                   const TensorView<float, 1>& means, const TensorView<float, 3>& log_sums,
                   const TensorView<float, 1>& weights, const std::optional<AnyView<4>>& slopes,
                   int threads);

// The gradient of the above, given that of means, and log_sums and weights from above.
//   grad_logits (L, B, Q, C + 1) contiguous, of the type of logits, written
void cross_entropy_backward(const TensorView<const float, 1>& grad, const AnyView<4>& logits,
                            const TensorView<const std::int64_t, 2>& labels,
                            const TensorView<const std::int32_t, 3>& owners, float no_object,
                            const TensorView<const float, 3>& log_sums,
                            const TensorView<const float, 1>& weights,
                            const AnyView<4>& grad_logits, int threads);

}  // namespace detrx::cpu
