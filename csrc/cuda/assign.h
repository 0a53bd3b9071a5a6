// Batched assignment on the GPU, as cpu/assign.h does it and with the same answer.
#pragma once

#include <cstdint>

#include "core/tensor_view.h"
#include "cuda/assignment.h"

namespace detrx::cuda {

// Gives every real target its own query at the least total cost. Does not wait; may be captured.
//   cost      (N, M, Q) float32
//   counts    (B,) int32, N a multiple of B: problem n has counts[n % B] targets; what is outside
//             [0, M] is taken as the nearer end
//   match     (N, M) int32 written, -1 past the count and for targets left over
//   bad       (N,) int32 written: how many used costs were NaN or infinite; those are taken as 1e6
//   workspace (assign_workspace(N, M, Q),) uint8
void assign(const AnyView<3>& cost, const AnyView<1>& counts, const AnyView<2>& match,
            const AnyView<1>& bad, const AnyView<1>& workspace, std::int64_t stream);

// Bytes of workspace for N problems of M targets and Q queries; 0 unless they are very large.
std::int64_t assign_workspace(std::int64_t problems, std::int64_t targets, std::int64_t queries);

// How problems of M targets and Q queries are laid on a block.
AssignPlan plan_assign(std::int64_t targets, std::int64_t queries);

}  // namespace detrx::cuda
