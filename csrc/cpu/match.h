// Matching of queries and targets: the cost of each pair and the cheapest assignment, in one pass
// over each picture.
#pragma once

#include <cstdint>

#include "core/cost.h"
#include "core/tensor_view.h"

namespace detrx::cpu {

// What there is to match; L layers, B images, Q queries, C classes, M targets at most.
struct MatchInput {
  AnyView<4> logits;                         // (L, B, Q, C) float32, float16 or bfloat16
  AnyView<4> boxes;                          // (L, B, Q, 4) centres, of these types
  TensorView<const std::int64_t, 2> labels;  // (B, M) in [0, C) up to the count
  TensorView<const float, 3> truths;         // (B, M, 4) centres
  TensorView<const std::int32_t, 1> counts;  // (B,) real targets, in [0, M]
};

// Finds the query of each target of each image in each layer at the least total cost. Everything is
// read where it lies; beside the output there are about 2 * T * Q floats a thread.
//   match   (L * B, M) written, contiguous; -1 past the counts and for targets that the cheapest
//           total leaves out where they outnumber the queries
//   bad     (L * B,) written: how many of the costs were NaN or infinite; those are taken as 1e6
//   threads >= 1, share the L * B problems
// Returns the sum of bad.
std::int64_t match(const MatchInput& input, const CostWeights& weights,
                   TensorView<std::int32_t, 2> match, TensorView<std::int32_t, 1> bad, int threads);

// The costs alone: cost (L * B, M, Q) is written up to the counts, contiguous.
void match_cost(const MatchInput& input, const CostWeights& weights, TensorView<float, 3> cost);

}  // namespace detrx::cpu
