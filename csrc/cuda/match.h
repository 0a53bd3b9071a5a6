// Matching on the GPU: the costs of all layers and images in one launch, and their assignment in
// another. As cpu/match.h, with costs that differ in their last bits.
#pragma once

#include <cstdint>

#include "core/cost.h"
#include "core/tensor_view.h"

namespace detrx::cuda {

// Finds the query of each target in each of L layers at the least total cost. All tensors are
// contiguous. Does not wait; may be captured.
//   logits    (L, B, Q, C) float32, float16 or bfloat16
//   boxes     (L, B, Q, 4) centres, of the type of logits
//   labels    (B, M) int64; the costs of a target of another class than [0, C) are NaN
//   truths    (B, M, 4) float32 centres
//   counts    (B,) int32; what is outside [0, M] is taken as the nearer end
//   cost      (L * B, M, Q) float32 written: the costs, past the counts nothing
//   match     (L * B, M) int32 written: -1 past the counts and for targets left over
//   bad       (L * B,) int32 written: how many used costs were NaN or infinite
//   workspace (assign_workspace(L * B, M, Q),) uint8
void match(const AnyView<4>& logits, const AnyView<4>& boxes, const AnyView<2>& labels,
           const AnyView<3>& truths, const AnyView<1>& counts, const CostWeights& weights,
           const AnyView<3>& cost, const AnyView<2>& match, const AnyView<1>& bad,
           const AnyView<1>& workspace, std::int64_t stream);

}  // namespace detrx::cuda
