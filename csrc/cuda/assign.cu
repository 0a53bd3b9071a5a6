#include "cuda/launch.h"
#include "cuda/solve.h"

namespace detrx::cuda {
namespace {

template <int K>
__global__ void __launch_bounds__(kSolveThreads) solve_kernel(const Assignment p) {
  DETRX_SHARED_MEMORY(memory);
  solve<K>(p, p.workspace == nullptr ? memory : p.workspace + blockIdx.x * p.bytes);
}

}  // namespace

void launch_assign(const Assignment& p, const AssignPlan& plan, Stream stream) {
  const auto kernel = plan.registers ? solve_kernel<kColumnsOfThread> : solve_kernel<0>;
  launch("assign", kernel, {p.problems}, plan.threads, plan.shared, stream, p);
}

}  // namespace detrx::cuda
