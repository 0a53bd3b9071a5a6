#include "core/box.h"
#include "core/half.h"
#include "cuda/stage_block.h"

namespace detrx::cuda {
namespace {

template <typename T>
__device__ inline Box read_box_of(const void* boxes, std::int64_t row) {
  const T* const at = static_cast<const T*>(boxes) + 4 * row;
  return {to_float(at[0]), to_float(at[1]), to_float(at[2]), to_float(at[3])};
}

// One thread a query.
template <typename T>
__global__ void __launch_bounds__(kQueries) box_loss_kernel(const BoxLoss p) {
  const StageBlock block(p.stages);
  const int i = static_cast<int>(threadIdx.x);
  const std::int64_t target = i < block.count ? block.target(i) : -1;
  float sums[2] = {}, iou = 0.0F;
  if (target >= 0) {
    const Box box = read_box_of<T>(p.boxes, block.row + i), truth = read_box(p.truths + 4 * target);
    const Meeting meeting = meet(box, truth);
    iou = meeting.iou;
    sums[0] = distance(box, truth);
    sums[1] = 1.0F - overlap(p.kind, meeting, box, truth);
  }
  if (i < block.count) p.iou[block.row + i] = iou;
  block_sum(sums);
  if (i != 0) return;
  float* const share = block.share(p.parts);
  share[0] = sums[0];
  share[1] = sums[1];
}

template <typename T>
__global__ void __launch_bounds__(kQueries) box_loss_backward_kernel(const BoxLoss p) {
  const StageBlock block(p.stages);
  const int i = static_cast<int>(threadIdx.x);
  if (i >= block.count) return;
  const std::int64_t target = block.target(i);
  Box slope{0.0F, 0.0F, 0.0F, 0.0F};
  if (target >= 0) {
    const Box box = read_box_of<T>(p.boxes, block.row + i), truth = read_box(p.truths + 4 * target);
    const Box lean = overlap_slope(p.kind, meet(box, truth), box, truth);
    const float l1 = unit_of(p.stages, p.grad_l1, block.stage);
    const float away = unit_of(p.stages, p.grad_away, block.stage);
    slope = {l1 * sign(box.cx - truth.cx) - away * lean.cx,
             l1 * sign(box.cy - truth.cy) - away * lean.cy,
             l1 * sign(box.w - truth.w) - away * lean.w,
             l1 * sign(box.h - truth.h) - away * lean.h};
  }
  T* const to = static_cast<T*>(p.grad_boxes) + 4 * (block.row + i);
  to[0] = from_float<T>(slope.cx);
  to[1] = from_float<T>(slope.cy);
  to[2] = from_float<T>(slope.w);
  to[3] = from_float<T>(slope.h);
}

}  // namespace

template <typename T>
void launch_box_loss(const BoxLoss& p, bool backward, Stream stream) {
  const auto kernel = backward ? box_loss_backward_kernel<T> : box_loss_kernel<T>;
  launch("box_loss", kernel, grid_of(p.stages), kQueries, 0, stream, p);
}

template void launch_box_loss<float>(const BoxLoss&, bool, Stream);
template void launch_box_loss<Half>(const BoxLoss&, bool, Stream);
template void launch_box_loss<Bfloat16>(const BoxLoss&, bool, Stream);

}  // namespace detrx::cuda
