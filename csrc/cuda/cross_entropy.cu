#include "core/half.h"
#include "cuda/softmax.h"
#include "cuda/stage_block.h"

namespace detrx::cuda {
namespace {

constexpr int kThreads = 256;

// What a query is taught: a class, and how much that weighs.
struct Lesson {
  int wanted;
  float weight;
};

__device__ inline Lesson lesson_of(const CrossEntropy& p, const StageBlock& block, int query) {
  const std::int64_t target = block.target(query);
  const std::int64_t label = target < 0 ? -1 : p.labels[target];
  if (label < 0 || label >= p.classes - 1) return {p.classes - 1, p.no_object};
  return {static_cast<int>(label), 1.0F};
}

// One warp a query.
template <typename T>
__global__ void __launch_bounds__(kThreads) cross_entropy_kernel(const CrossEntropy p) {
  const StageBlock block(p.stages);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  float sums[2] = {};
  for (int i = static_cast<int>(threadIdx.x) / kWarp; i < block.count; i += kThreads / kWarp) {
    const T* const x = static_cast<const T*>(p.logits) + (block.row + i) * p.classes;
    const float log_sum = log_sum_exp(x, p.classes);
    if (lane != 0) continue;
    const Lesson lesson = lesson_of(p, block, i);
    p.log_sums[block.row + i] = log_sum;
    sums[0] += lesson.weight * (log_sum - to_float(x[lesson.wanted]));
    sums[1] += lesson.weight;
  }
  block_sum(sums);
  if (threadIdx.x != 0) return;
  float* const share = block.share(p.parts);
  share[0] = sums[0];
  share[1] = sums[1];
}

template <typename T>
__global__ void __launch_bounds__(kThreads) cross_entropy_backward_kernel(const CrossEntropy p) {
  const StageBlock block(p.stages);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const float unit = p.grad[block.stage] / p.weights[block.stage];
  for (int i = static_cast<int>(threadIdx.x) / kWarp; i < block.count; i += kThreads / kWarp) {
    const std::int64_t first = (block.row + i) * p.classes;
    const T* const x = static_cast<const T*>(p.logits) + first;
    T* const to = static_cast<T*>(p.grad_logits) + first;
    const float log_sum = p.log_sums[block.row + i];
    const Lesson lesson = lesson_of(p, block, i);
    for (int c = lane; c < p.classes; c += kWarp) {
      const float wanted = c == lesson.wanted ? 1.0F : 0.0F;
      to[c] = from_float<T>(unit * lesson.weight * (expf(to_float(x[c]) - log_sum) - wanted));
    }
  }
}

}  // namespace

template <typename T>
void launch_cross_entropy(const CrossEntropy& p, bool backward, Stream stream) {
  const auto kernel = backward ? cross_entropy_backward_kernel<T> : cross_entropy_kernel<T>;
  launch("cross_entropy", kernel, grid_of(p.stages), kThreads, 0, stream, p);
}

template void launch_cross_entropy<float>(const CrossEntropy&, bool, Stream);
template void launch_cross_entropy<Half>(const CrossEntropy&, bool, Stream);
template void launch_cross_entropy<Bfloat16>(const CrossEntropy&, bool, Stream);

}  // namespace detrx::cuda
