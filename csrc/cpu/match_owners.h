// Matches seen from the queries' side.
#pragma once

#include <cstdint>

#include "core/tensor_view.h"

namespace detrx::cpu {

// Turns the query of each target into the target of each query. All tensors are contiguous.
//   match   (N, M) queries in [0, Q), or -1
//   owners  (N, Q) written: the target that each query owns, or -1
void owners(TensorView<const std::int32_t, 2> match, TensorView<std::int32_t, 2> owners);

// Lets the stages vote for the target of each query.
//   owners  (L, N) a target or -1, for each query of the batch
//   agreed  (N,) written: the target with the most votes, the lowest-numbered among equals; -1
//           where no stage gives the query to any
void agree(TensorView<const std::int32_t, 2> owners, TensorView<std::int32_t, 1> agreed);

}  // namespace detrx::cpu
