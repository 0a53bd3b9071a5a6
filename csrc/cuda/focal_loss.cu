#include "core/focal.h"
#include "core/half.h"
#include "cuda/stage_block.h"

namespace detrx::cuda {
namespace {

constexpr int kThreads = 256;

// The loss and slope of the block's logit at `at`.
template <typename T>
__device__ inline Term term_of(const FocalLoss& p, const StageBlock& block, int at) {
  const int query = at / p.classes, c = at - query * p.classes;
  const std::int64_t target = block.target(query);
  const float x = to_float(static_cast<const T*>(p.logits)[block.row * p.classes + at]);
  if (target < 0 || p.labels[target] != c) return focal_negative(p.terms, x);
  const float quality = p.quality == nullptr ? 1.0F : p.quality[block.row + query];
  return focal_positive(p.terms, x, quality);
}

template <typename T>
__global__ void __launch_bounds__(kThreads) focal_loss_kernel(const FocalLoss p) {
  const StageBlock block(p.stages);
  float sums[1] = {};
  for (int at = static_cast<int>(threadIdx.x); at < block.count * p.classes; at += kThreads) {
    sums[0] += term_of<T>(p, block, at).loss;
  }
  block_sum(sums);
  if (threadIdx.x != 0) return;
  float* const share = block.share(p.parts);
  share[0] = sums[0];
  share[1] = 0.0F;
}

template <typename T>
__global__ void __launch_bounds__(kThreads) focal_loss_backward_kernel(const FocalLoss p) {
  const StageBlock block(p.stages);
  const float unit = unit_of(p.stages, p.grad, block.stage);
  T* const to = static_cast<T*>(p.grad_logits) + block.row * p.classes;
  for (int at = static_cast<int>(threadIdx.x); at < block.count * p.classes; at += kThreads) {
    to[at] = from_float<T>(unit * term_of<T>(p, block, at).slope);
  }
}

}  // namespace

template <typename T>
void launch_focal_loss(const FocalLoss& p, bool backward, Stream stream) {
  const auto kernel = backward ? focal_loss_backward_kernel<T> : focal_loss_kernel<T>;
  launch("focal_loss", kernel, grid_of(p.stages), kThreads, 0, stream, p);
}

template void launch_focal_loss<float>(const FocalLoss&, bool, Stream);
template void launch_focal_loss<Half>(const FocalLoss&, bool, Stream);
template void launch_focal_loss<Bfloat16>(const FocalLoss&, bool, Stream);

}  // namespace detrx::cuda
