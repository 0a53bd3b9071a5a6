#include "cuda/block.h"
#include "cuda/stages.h"

namespace detrx::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) stage_sums_kernel(const StageSums p) {
  const std::int64_t stage = blockIdx.x;
  float sums[2] = {};
  for (std::int64_t i = threadIdx.x; i < p.shares; i += kThreads) {
    const float* const part = p.parts + 2 * (stage * p.shares + i);
    sums[0] += part[0];
    sums[1] += part[1];
  }
  block_sum(sums);
  if (threadIdx.x != 0) return;
  const float divisor = p.normaliser == nullptr ? 1.0F : *p.normaliser;
  if (p.mean) {
    sums[1] = sums[1] > kTinyWeight ? sums[1] : kTinyWeight;
    sums[0] /= sums[1];
  }
  for (int i = 0; i < 2; ++i) {
    if (p.sums[i] != nullptr) p.sums[i][stage] = sums[i] / divisor;
  }
}

}  // namespace

void launch_stage_sums(const StageSums& p, Stream stream) {
  launch("stage_sums", stage_sums_kernel, {p.stages}, kThreads, 0, stream, p);
}

}  // namespace detrx::cuda
