#include "core/fgl.h"
#include "core/half.h"
#include "cuda/softmax.h"
#include "cuda/stage_block.h"

namespace detrx::cuda {
namespace {

constexpr int kThreads = 256;

// The offsets of all bins, once for the block; memory is of bins + 1 floats.
__device__ inline const float* find_offsets(const FglLoss& p, unsigned char* memory) {
  auto* const offsets = reinterpret_cast<float*>(memory);
  for (int bin = static_cast<int>(threadIdx.x); bin <= p.bins; bin += kThreads) {
    offsets[bin] = bin_offset(bin, p.bins, p.bound);
  }
  __syncthreads();
  return offsets;
}

// The bins around each edge of a query's target.
struct Bins {
  Edges edges;
  const float* offsets;
  int bins;

  __device__ Bins(const FglLoss& p, std::int64_t row, std::int64_t target, const float* all)
      : edges(edge_offsets(read_box(p.references + 4 * row), read_box(p.truths + 4 * target),
                           p.reg_scale)),
        offsets(all),
        bins(p.bins) {}
  __device__ Bin around(int side) const { return find_bin(edges.at[side], offsets, bins); }
};

// One warp a query, edge after edge.
template <typename T>
__global__ void __launch_bounds__(kThreads) fgl_loss_kernel(const FglLoss p) {
  DETRX_SHARED_MEMORY(memory);
  const StageBlock block(p.stages);
  const float* const offsets = find_offsets(p, memory);
  float sums[1] = {};
  for (int i = static_cast<int>(threadIdx.x) / kWarp; i < block.count; i += kThreads / kWarp) {
    const std::int64_t target = block.target(i), row = block.row + i;
    if (target < 0) continue;
    const Bins bins(p, row, target, offsets);
    float loss = 0.0F;
#pragma unroll
    for (int side = 0; side < 4; ++side) {
      const T* const x = static_cast<const T*>(p.edges) + (4 * row + side) * (p.bins + 1);
      const float log_sum = log_sum_exp(x, p.bins + 1);
      const Bin bin = bins.around(side);
      loss += (log_sum - to_float(x[bin.left])) * (1.0F - bin.share) +
              (log_sum - to_float(x[bin.left + 1])) * bin.share;
    }
    if (threadIdx.x % kWarp == 0) sums[0] += p.iou[row] * loss;
  }
  block_sum(sums);
  if (threadIdx.x != 0) return;
  float* const share = block.share(p.parts);
  share[0] = sums[0];
  share[1] = 0.0F;
}

template <typename T>
__global__ void __launch_bounds__(kThreads) fgl_loss_backward_kernel(const FglLoss p) {
  DETRX_SHARED_MEMORY(memory);
  const StageBlock block(p.stages);
  const float* const offsets = find_offsets(p, memory);
  const int lane = static_cast<int>(threadIdx.x) % kWarp, values = p.bins + 1;
  const float unit = unit_of(p.stages, p.grad, block.stage);
  for (int i = static_cast<int>(threadIdx.x) / kWarp; i < block.count; i += kThreads / kWarp) {
    const std::int64_t target = block.target(i), row = block.row + i;
    T* const to = static_cast<T*>(p.grad_edges) + 4 * row * values;
    if (target < 0) {
      for (int k = lane; k < 4 * values; k += kWarp) to[k] = from_float<T>(0.0F);
      continue;
    }
    const Bins bins(p, row, target, offsets);
    const float scale = unit * p.iou[row];
#pragma unroll
    for (int side = 0; side < 4; ++side) {
      const T* const x = static_cast<const T*>(p.edges) + (4 * row + side) * values;
      const float log_sum = log_sum_exp(x, values);
      const Bin bin = bins.around(side);
      for (int k = lane; k < values; k += kWarp) {
        const float wanted =
            k == bin.left ? 1.0F - bin.share : (k == bin.left + 1 ? bin.share : 0.0F);
        to[side * values + k] = from_float<T>(scale * (expf(to_float(x[k]) - log_sum) - wanted));
      }
    }
  }
}

}  // namespace

template <typename T>
void launch_fgl_loss(const FglLoss& p, bool backward, Stream stream) {
  const auto kernel = backward ? fgl_loss_backward_kernel<T> : fgl_loss_kernel<T>;
  const int shared = static_cast<int>(sizeof(float)) * (p.bins + 1);
  launch("fgl_loss", kernel, grid_of(p.stages), kThreads, shared, stream, p);
}

template void launch_fgl_loss<float>(const FglLoss&, bool, Stream);
template void launch_fgl_loss<Half>(const FglLoss&, bool, Stream);
template void launch_fgl_loss<Bfloat16>(const FglLoss&, bool, Stream);

}  // namespace detrx::cuda
