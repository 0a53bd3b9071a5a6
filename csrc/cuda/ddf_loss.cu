#include "core/ddf.h"
#include "core/half.h"
#include "cuda/softmax.h"
#include "cuda/stage_block.h"

namespace detrx::cuda {
namespace {

constexpr int kThreads = 256;

// One query of a student and of the teacher.
struct Lesson {
  std::int64_t row, taught;  // their numbers among all queries of all stages
  bool owns;
  float weight;

  __device__ Lesson(const DdfLoss& p, const StageBlock& block, int i) : row(block.row + i) {
    const std::int64_t of_stage = row - block.stage * p.stages.images * p.stages.queries;
    taught = of_stage + p.students * p.stages.images * p.stages.queries;
    owns = block.target(i) >= 0;
    weight = owns ? p.iou[row] : p.confidence[of_stage];
  }
};

__device__ inline DdfFactors factors_of(const DdfLoss& p, std::int64_t stage) {
  return ddf_factors(p.counts[2 * stage], p.counts[2 * stage + 1], 1.0F / p.scale);
}

// One warp a query, edge after edge.
template <typename T>
__global__ void __launch_bounds__(kThreads) ddf_loss_kernel(const DdfLoss p) {
  const StageBlock block(p.stages);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  float sums[2] = {};  // over queries that own a target, and over the others
  for (int i = static_cast<int>(threadIdx.x) / kWarp; i < block.count; i += kThreads / kWarp) {
    const Lesson lesson(p, block, i);
    float loss = 0.0F;
    for (int side = 0; side < 4; ++side) {
      const std::int64_t ours = 4 * lesson.row + side, theirs = 4 * lesson.taught + side;
      const T* const student = static_cast<const T*>(p.edges) + ours * p.values;
      const T* const teacher = static_cast<const T*>(p.edges) + theirs * p.values;
      const float log_sum = log_sum_exp(student, p.values, p.scale);
      const float taught = log_sum_exp(teacher, p.values, p.scale);
      float apart = 0.0F;
      for (int k = lane; k < p.values; k += kWarp) {
        const float at = to_float(teacher[k]);
        apart += expf(p.scale * at - taught) * (at - to_float(student[k]));
      }
      loss += lanes_sum(apart) * p.scale + (log_sum - taught);
      if (lane != 0) continue;
      p.log_sums[ours] = log_sum;
      if (block.stage == 0) p.log_sums[theirs] = taught;
    }
    if (lane != 0) continue;
    sums[0] += lesson.owns ? lesson.weight * loss : 0.0F;
    sums[1] += lesson.owns ? 0.0F : lesson.weight * loss;
  }
  block_sum(sums);
  if (threadIdx.x != 0) return;
  float* const share = block.share(p.parts);
  share[0] = sums[0];
  share[1] = sums[1];
}

// One block a stage.
__global__ void __launch_bounds__(kThreads) ddf_sums_kernel(const DdfLoss p) {
  const std::int64_t stage = blockIdx.x;
  float sums[2] = {};
  for (std::int64_t i = threadIdx.x; i < p.shares; i += kThreads) {
    const float* const part = p.parts + 2 * (stage * p.shares + i);
    sums[0] += part[0];
    sums[1] += part[1];
  }
  block_sum(sums);
  if (threadIdx.x != 0) return;
  const DdfFactors factors = factors_of(p, stage);
  p.sums[stage] = sums[0] * factors.owning + sums[1] * factors.other;
}

template <typename T>
__global__ void __launch_bounds__(kThreads) ddf_loss_backward_kernel(const DdfLoss p) {
  const StageBlock block(p.stages);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const bool learns = block.stage < p.students;
  const DdfFactors factors = learns ? factors_of(p, block.stage) : DdfFactors{0.0F, 0.0F};
  const float unit = learns ? p.grad[block.stage] * p.scale : 0.0F;
  for (int i = static_cast<int>(threadIdx.x) / kWarp; i < block.count; i += kThreads / kWarp) {
    const Lesson lesson(p, block, i);
    const float factor =
        lesson.weight * (lesson.owns ? unit * factors.owning : unit * factors.other);
    for (int side = 0; side < 4; ++side) {
      const std::int64_t ours = 4 * lesson.row + side, theirs = 4 * lesson.taught + side;
      const T* const student = static_cast<const T*>(p.edges) + ours * p.values;
      const T* const teacher = static_cast<const T*>(p.edges) + theirs * p.values;
      T* const to = static_cast<T*>(p.grad_edges) + ours * p.values;
      const float log_sum = learns ? p.log_sums[ours] : 0.0F;
      const float taught = learns ? p.log_sums[theirs] : 0.0F;
      for (int k = lane; k < p.values; k += kWarp) {
        const float slope = learns ? expf(p.scale * to_float(student[k]) - log_sum) -
                                         expf(p.scale * to_float(teacher[k]) - taught)
                                   : 0.0F;
        to[k] = from_float<T>(factor * slope);
      }
    }
  }
}

}  // namespace

template <typename T>
void launch_ddf_loss(const DdfLoss& p, bool backward, Stream stream) {
  const auto kernel = backward ? ddf_loss_backward_kernel<T> : ddf_loss_kernel<T>;
  launch("ddf_loss", kernel, grid_of(p.stages), kThreads, 0, stream, p);
}

void launch_ddf_sums(const DdfLoss& p, Stream stream) {
  launch("ddf_loss", ddf_sums_kernel, {p.students}, kThreads, 0, stream, p);
}

template void launch_ddf_loss<float>(const DdfLoss&, bool, Stream);
template void launch_ddf_loss<Half>(const DdfLoss&, bool, Stream);
template void launch_ddf_loss<Bfloat16>(const DdfLoss&, bool, Stream);

}  // namespace detrx::cuda
