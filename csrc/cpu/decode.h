// From logits and boxes to the best objects of each image.
#pragma once

#include "core/decode.h"
#include "core/tensor_view.h"

namespace detrx::cpu {

// Answers the best K of each image, best first, among equals the one that comes first.
//   logits  (B, Q, C) float32, float16 or bfloat16; of Decoding::queries the last column is "no
//           object"
//   boxes   (B, Q, 4) centres in [0, 1], of the type of logits
//   scores  (B, K) written; K is at most Q * C, or Q
//   labels  (B, K) written
//   corners (B, K, 4) written: in [0, 1]
// All tensors are contiguous.
void decode(const AnyView<3>& logits, const AnyView<3>& boxes, Decoding decoding,
            const TensorView<float, 2>& scores, const TensorView<std::int64_t, 2>& labels,
            const TensorView<float, 3>& corners, int threads);

}  // namespace detrx::cpu
