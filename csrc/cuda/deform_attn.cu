#include "core/half.h"
#include "core/sample.h"
#include "cuda/block.h"
#include "cuda/pack.h"
#include "cuda/sampling.h"

namespace detrx::cuda {
namespace {

constexpr int kThreads = 256;

template <int N>
__device__ inline void add(const float (&values)[N], float scale, float* to) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  constexpr int kSteps = N / 4;  // four at a time
#pragma unroll
  for (int i = 0; i < 4 * kSteps; i += 4) {
    atomicAdd(reinterpret_cast<float4*>(to + i),
              make_float4(scale * values[i], scale * values[i + 1], scale * values[i + 2],
                          scale * values[i + 3]));
  }
#else
  constexpr int kSteps = 0;
#endif
#pragma unroll
  for (int i = 4 * kSteps; i < N; ++i) atomicAdd(to + i, scale * values[i]);
}

// The head of a query that a group of lanes works on.
struct Place {
  bool real;            // not past the last one, where a group only keeps its warp company
  std::int64_t number;  // (image, query, head)
  std::int64_t base;    // of its image and head in values
  int lane;

  __device__ explicit Place(const Sampling& p) {
    // Numbers of 31 bits, which are quick to divide; the host has seen to it that they do.
    const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;
    const auto lanes = static_cast<unsigned>(p.lanes), heads = static_cast<unsigned>(p.heads);
    const unsigned last = static_cast<unsigned>(p.images * p.queries) * heads - 1;
    const unsigned mine = thread / lanes <= last ? thread / lanes : last;
    real = thread / lanes <= last;
    number = mine;
    lane = static_cast<int>(thread % lanes);
    const unsigned image = mine / heads / static_cast<unsigned>(p.queries);
    base = (image * p.pixels * p.heads + mine % heads) * p.channels;
  }
};

// The weights of a place's points, or the logits that make them, and where the points lie.
struct Given {
  const float *weights, *locations;

  __device__ Given(const Sampling& p, const Place& place)
      : weights(p.weights + place.number * p.points),
        locations(p.locations + 2 * place.number * p.points) {}
  __device__ float weight(int k) const { return weights[k]; }
  __device__ float x(int k, int) const { return locations[2 * k]; }
  __device__ float y(int k, int) const { return locations[2 * k + 1]; }
};

// The same where points are told by how far they are from the middle of the query's box.
template <typename T>
struct AroundBox {
  const T *logits, *offsets;
  const float *box, *reach;

  __device__ AroundBox(const Sampling& p, const Place& place)
      : logits(static_cast<const T*>(p.logits) + place.number * p.points),
        offsets(static_cast<const T*>(p.offsets) + 2 * place.number * p.points),
        box(p.boxes + 4 * (place.number / p.heads)),
        reach(p.reach) {}
  __device__ float weight(int k) const { return to_float(logits[k]); }
  __device__ float x(int k, int level) const {
    return box[0] + to_float(offsets[2 * k]) * box[2] * reach[level];
  }
  __device__ float y(int k, int level) const {
    return box[1] + to_float(offsets[2 * k + 1]) * box[3] * reach[level];
  }
};

// The weights of a place: as they are given, or the softmax of them. All lanes of a warp make one.
template <typename Points>
struct Weights {
  const Points& points;
  bool softmax;
  float top, sum;

  __device__ Weights(const Sampling& p, const Place& place, const Points& points)
      : points(points), softmax(p.softmax), top(0.0F), sum(1.0F) {
    if (!softmax || p.points == 0) return;
    top = points.weight(0);
    for (int k = place.lane; k < p.points; k += p.lanes) {
      top = points.weight(k) > top ? points.weight(k) : top;
    }
    top = lanes_max(top, p.lanes);
    sum = 0.0F;
    for (int k = place.lane; k < p.points; k += p.lanes) sum += expf(points.weight(k) - top);
    sum = lanes_sum(sum, p.lanes);
  }
  __device__ float operator[](int k) const {
    return softmax ? expf(points.weight(k) - top) / sum : points.weight(k);
  }
};

// Calls visit(k, level, corners) for all points of a place, k counted from its first.
template <typename Points, typename Visit>
__device__ inline void each_point(const Sampling& p, const Points& points, Visit visit) {
  for (int level = 0, k = 0; level < p.levels; ++level) {
    for (; k < p.end[level]; ++k) {
      Footprint c;
      find_footprint(points.x(k, level), points.y(k, level), p.height[level], p.width[level], c);
      visit(k, level, c);
    }
  }
}

template <typename T, int N, typename Points>
__global__ void __launch_bounds__(kThreads) sample_kernel(const Sampling p) {
  const Place place(p);
  const Points points(p, place);
  const Weights<Points> weights(p, place, points);
  if (!place.real) return;
  const auto* const values = static_cast<const T*>(p.values) + place.base;
  auto* const out = static_cast<T*>(p.out) + place.number * p.channels;
  const std::int64_t step = static_cast<std::int64_t>(p.heads) * p.channels;
  for (int channel = place.lane * N; channel < p.channels; channel += p.lanes * N) {
    float sum[N] = {};
    each_point(p, points, [&](int k, int level, const Footprint& c) {
      const float weight = weights[k];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (c.pixel[i] < 0) continue;
        float pixel[N];
        load(values + (p.start[level] + c.pixel[i]) * step + channel, pixel);
        const float scale = c.share[i] * weight;
#pragma unroll
        for (int n = 0; n < N; ++n) sum[n] += scale * pixel[n];
      }
    });
    store(sum, out + channel);
  }
}

template <typename T, int N>
__global__ void __launch_bounds__(kThreads) differentiate_kernel(const Sampling p) {
  const Place place(p);
  const Given points(p, place);
  const Weights<Given> weights(p, place, points);
  const auto* const values = static_cast<const T*>(p.values) + place.base;
  float* const grad_values = p.grad_values + place.base;
  const auto* const grad = static_cast<const T*>(p.grad) + place.number * p.channels;
  const std::int64_t step = static_cast<std::int64_t>(p.heads) * p.channels;
  float mean = 0.0F;  // of the slopes of a softmax
  each_point(p, points, [&](int k, int level, const Footprint& c) {
    const std::int64_t point = place.number * p.points + k;
    const float weight = weights[k];
    float product[4] = {};
    for (int channel = place.lane * N; channel < p.channels; channel += p.lanes * N) {
      float slope[N];
      load(grad + channel, slope);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (c.pixel[i] < 0) continue;
        const std::int64_t at = (p.start[level] + c.pixel[i]) * step + channel;
        float pixel[N];
        load(values + at, pixel);
#pragma unroll
        for (int n = 0; n < N; ++n) product[i] += slope[n] * pixel[n];
        if (place.real) add(slope, weight * c.share[i], grad_values + at);
      }
    }
    // All lanes of a warp are here: each has the same number of points.
#pragma unroll
    for (int i = 0; i < 4; ++i) product[i] = lanes_sum(product[i], p.lanes);
    if (!place.real || place.lane != 0) return;
    const SampleGradient found =
        differentiate_sample(c, product, weight, p.height[level], p.width[level]);
    p.grad_weights[point] = found.weight;
    mean += weight * found.weight;
    p.grad_locations[2 * point] = found.x;
    p.grad_locations[2 * point + 1] = found.y;
  });
  if (!p.softmax || !place.real || place.lane != 0) return;
  float* const slopes = p.grad_weights + place.number * p.points;
  for (int k = 0; k < p.points; ++k) slopes[k] = weights[k] * (slopes[k] - mean);
}

Grid grid_of(const Sampling& p) {
  return {divide_up(p.images * p.queries * p.heads * p.lanes, kThreads)};
}

}  // namespace

template <typename T, int kVector>
void launch_sample(const Sampling& p, Stream stream) {
  constexpr auto kGiven = sample_kernel<T, kVector, Given>;
  constexpr auto kAroundBox = sample_kernel<T, kVector, AroundBox<T>>;
  launch("deform_attn", p.boxes != nullptr ? kAroundBox : kGiven, grid_of(p), kThreads, 0, stream,
         p);
}

template <typename T, int kVector>
void launch_differentiate(const Sampling& p, Stream stream) {
  launch("deform_attn_backward", differentiate_kernel<T, kVector>, grid_of(p), kThreads, 0, stream,
         p);
}

#define DETRX_SAMPLING(T, N)                                  \
  template void launch_sample<T, N>(const Sampling&, Stream); \
  template void launch_differentiate<T, N>(const Sampling&, Stream);
DETRX_SAMPLING(float, 4)
DETRX_SAMPLING(float, 1)
DETRX_SAMPLING(Half, 8)
DETRX_SAMPLING(Half, 1)
DETRX_SAMPLING(Bfloat16, 8)
DETRX_SAMPLING(Bfloat16, 1)
#undef DETRX_SAMPLING

}  // namespace detrx::cuda
