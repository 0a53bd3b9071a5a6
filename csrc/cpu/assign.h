// Batched assignment of targets to queries.
#pragma once

#include <cstdint>
#include <optional>

#include "core/tensor_view.h"

namespace detrx::cpu {

// Gives every real target its own query at the least total cost.
//   cost    (N, Q, M) read at the first counts[n] targets only, where it lies; fastest where the
//           queries or the targets are adjacent
//   counts  (N,) int32 or int64: real targets, 0 <= counts[n] <= M
//   match   (N, M) written: the query of each target; -1 past the count and, where targets
//           outnumber queries, for those that the cheapest total leaves out
//   bad     (N,) written where it is given: how many used costs were NaN or infinite; those are
//           taken as 1e6
//   threads >= 1, share the problems
// Returns the sum of bad.
std::int64_t assign(TensorView<const float, 3> cost, const AnyView<1>& counts,
                    TensorView<std::int64_t, 2> match,
                    const std::optional<TensorView<std::int64_t, 1>>& bad, int threads);

}  // namespace detrx::cpu
