#include "core/half.h"
#include "cuda/cost_table.h"

namespace detrx::cuda {
namespace {

constexpr int kThreads = 128;

template <typename T>
__device__ inline BoxOf<float> read_box(const T* at) {
  return box_of(to_float(at[0]), to_float(at[1]), to_float(at[2]), to_float(at[3]));
}

// log(sum(e^x)) of one query; count is 1 or more.
template <typename T>
__device__ inline float log_sum_exp(const T* x, int count) {
  float most = to_float(x[0]);
  for (int c = 1; c < count; ++c) most = to_float(x[c]) > most ? to_float(x[c]) : most;
  float sum = 0.0F;
  for (int c = 0; c < count; ++c) sum += expf(to_float(x[c]) - most);
  return most + logf(sum);
}

// One thread a query of one image of one layer; it meets the targets one after another, so that a
// warp writes, and reads the targets, side by side.
template <typename T>
__global__ void __launch_bounds__(kThreads) cost_kernel(const CostTable p) {
  const std::int64_t layer = blockIdx.z, image = blockIdx.y, problem = layer * p.images + image;
  const std::int64_t query = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (query >= p.queries) return;
  const std::int64_t row = problem * p.queries + query;
  const T* const logits = static_cast<const T*>(p.logits) + row * p.classes;
  const BoxOf<float> box = read_box(static_cast<const T*>(p.boxes) + 4 * row);
  const CostWeights& w = p.weights;
  const bool softmax = w.kind == ClassCost::softmax;
  const std::int32_t given = p.counts[image];
  const std::int32_t count = given < p.targets ? given : p.targets;
  const bool asked = softmax && count > 0 && p.classes > 0;
  const float whole = asked ? log_sum_exp(logits, p.classes) : 0.0F;
  const float positive = w.class_ * w.alpha, negative = w.class_ * (1.0F - w.alpha);
  float* const to = p.cost + problem * p.targets * p.queries + query;
  for (std::int32_t t = 0; t < count; ++t) {
    const std::int64_t target = image * p.targets + t, label = p.labels[target];
    const bool known = label >= 0 && label < p.classes;
    const float x = known ? to_float(logits[label]) : __int_as_float(0x7fc00000);
    const float of_class =
        softmax ? -w.class_ * expf(x - whole) : focal_cost(x, positive, negative, w.gamma);
    const float of_box = box_cost(box, read_box(p.truths + 4 * target), w.l1, w.giou);
    to[static_cast<std::int64_t>(t) * p.queries] = of_class + of_box;
  }
}

}  // namespace

template <typename T>
void launch_cost_table(const CostTable& p, Stream stream) {
  launch("match", cost_kernel<T>, {divide_up(p.queries, kThreads), p.images, p.layers}, kThreads, 0,
         stream, p);
}

template void launch_cost_table<float>(const CostTable&, Stream);
template void launch_cost_table<Half>(const CostTable&, Stream);
template void launch_cost_table<Bfloat16>(const CostTable&, Stream);

}  // namespace detrx::cuda
