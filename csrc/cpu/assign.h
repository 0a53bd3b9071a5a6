// Batched assignment of targets to queries.
#pragma once

#include <cstdint>

#include "core/tensor_view.h"

namespace detrx::cpu {

// Gives every real target its own query at the least total cost.
//   cost    (N, M, Q) read at the first counts[n] targets only; fastest where queries are adjacent
//   counts  (N,) real targets, 0 <= counts[n] <= M
//   match   (N, M) written: the query of each target; -1 past the count and, where targets
//           outnumber queries, for those that the cheapest total leaves out
//   bad     (N,) written: how many used costs were NaN or infinite; those are taken as 1e6
//   threads >= 1, share the problems
void assign(TensorView<const float, 3> cost, TensorView<const std::int32_t, 1> counts,
            TensorView<std::int64_t, 2> match, TensorView<std::int64_t, 1> bad, int threads);

}  // namespace detrx::cpu
