// Attention of heads of 32 channels on the GPU, without the table of scores in memory.
#pragma once

#include <cstdint>
#include <optional>

#include "core/tensor_view.h"
#include "cuda/attending.h"

namespace detrx::cuda {

// Writes softmax(scale * query key^T + bias) value for each head, heads lying one after another in
// a row. Maxima, sums and products are float32 whatever the type; float16 queries are scaled before
// the product, and float16 weights are rounded before the second one. A bias of minus infinity
// hides a key; where all are hidden the answer is 0. Does not wait; memory is the device's, at
// addresses that 16 divides, and not checked.
void attention(const AttentionProblem& problem, Dtype dtype, Stream stream);

// The same for tensors, which are checked.
void attention(const AnyView<3>& query, const AnyView<3>& key, const AnyView<3>& value,
               const std::optional<AnyView<2>>& bias, std::int64_t heads, float scale,
               const AnyView<3>& out, std::int64_t stream);

}  // namespace detrx::cuda
