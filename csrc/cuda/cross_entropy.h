// DETR's class loss on the GPU, as cpu/cross_entropy.h. The sums are added in a fixed order: two
// runs give the same bits.
#pragma once

#include <cstdint>

#include "core/tensor_view.h"
#include "cuda/stage_arguments.h"

namespace detrx::cuda {

// The weighted mean over the queries of each stage. All tensors are contiguous.
//   logits   (L, B, Q, C + 1) float32, float16 or bfloat16
//   labels   (B, M) int64; a target of another class than [0, C) is as none
//   owners   (L, B, Q) or (1, B, Q) int32
//   means    (L,) written
//   log_sums (L, B, Q) written: what the way back needs of each query
//   weights  (L,) written: the sum of the weights of each stage
//   parts    (L, loss_parts(B, Q), 2) float32, for the work
void cross_entropy(const AnyView<4>& logits, const AnyView<2>& labels, const AnyView<3>& owners,
                   float no_object, const AnyView<1>& means, const AnyView<3>& log_sums,
                   const AnyView<1>& weights, const AnyView<3>& parts, std::int64_t stream);

// The gradient of the above, given that of means, and log_sums and weights from above.
//   grad_logits (L, B, Q, C + 1) of the type of logits, written
void cross_entropy_backward(const AnyView<1>& grad, const AnyView<4>& logits,
                            const AnyView<2>& labels, const AnyView<3>& owners, float no_object,
                            const AnyView<3>& log_sums, const AnyView<1>& weights,
                            const AnyView<4>& grad_logits, std::int64_t stream);

}  // namespace detrx::cuda
