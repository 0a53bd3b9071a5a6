#include "core/half.h"
#include "core/sample.h"
#include "cuda/block.h"
#include "cuda/sampling.h"

namespace detrx::cuda {
namespace {

constexpr int kThreads = 256;

// Items that are read and written in one instruction of up to 16 bytes.
template <typename T, int N>
struct alignas(sizeof(T) * N) Pack {
  T items[N];
};

template <int N, typename T>
__device__ inline void load(const T* from, float (&to)[N]) {
  const auto pack = *reinterpret_cast<const Pack<T, N>*>(from);
#pragma unroll
  for (int i = 0; i < N; ++i) to[i] = to_float(pack.items[i]);
}

template <int N, typename T>
__device__ inline void store(const float (&from)[N], T* to) {
  Pack<T, N> pack;
#pragma unroll
  for (int i = 0; i < N; ++i) pack.items[i] = from_float<T>(from[i]);
  *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

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

// The weights of a place: as they are given, or the softmax of them. All lanes of a warp make one.
struct Weights {
  const float* all;
  bool softmax;
  float top, sum;

  __device__ Weights(const Sampling& p, const Place& place)
      : all(p.weights + place.number * p.points), softmax(p.softmax), top(0.0F), sum(1.0F) {
    if (!softmax || p.points == 0) return;
    top = all[0];
    for (int k = place.lane; k < p.points; k += p.lanes) top = all[k] > top ? all[k] : top;
    top = lanes_max(top, p.lanes);
    sum = 0.0F;
    for (int k = place.lane; k < p.points; k += p.lanes) sum += expf(all[k] - top);
    sum = lanes_sum(sum, p.lanes);
  }
  __device__ float operator[](int k) const { return softmax ? expf(all[k] - top) / sum : all[k]; }
};

// Calls visit(k, point, level, corners) for all points of a place, k counted from its first.
template <typename Visit>
__device__ inline void each_point(const Sampling& p, std::int64_t number, Visit visit) {
  for (int level = 0, k = 0; level < p.levels; ++level) {
    for (; k < p.end[level]; ++k) {
      const std::int64_t point = number * p.points + k;
      Footprint c;
      find_footprint(p.locations[2 * point], p.locations[2 * point + 1], p.height[level],
                     p.width[level], c);
      visit(k, point, level, c);
    }
  }
}

template <typename T, int N>
__global__ void __launch_bounds__(kThreads) sample_kernel(const Sampling p) {
  const Place place(p);
  const Weights weights(p, place);
  if (!place.real) return;
  const auto* const values = static_cast<const T*>(p.values) + place.base;
  auto* const out = static_cast<T*>(p.out) + place.number * p.channels;
  const std::int64_t step = static_cast<std::int64_t>(p.heads) * p.channels;
  for (int channel = place.lane * N; channel < p.channels; channel += p.lanes * N) {
    float sum[N] = {};
    each_point(p, place.number, [&](int k, std::int64_t, int level, const Footprint& c) {
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
  const Weights weights(p, place);
  const auto* const values = static_cast<const T*>(p.values) + place.base;
  float* const grad_values = p.grad_values + place.base;
  const auto* const grad = static_cast<const T*>(p.grad) + place.number * p.channels;
  const std::int64_t step = static_cast<std::int64_t>(p.heads) * p.channels;
  float mean = 0.0F;  // of the slopes of a softmax
  each_point(p, place.number, [&](int k, std::int64_t point, int level, const Footprint& c) {
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
  launch("deform_attn", sample_kernel<T, kVector>, grid_of(p), kThreads, 0, stream, p);
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
