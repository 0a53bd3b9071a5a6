// What the threads of a warp or a block find together. All of it is in a fixed order: two runs give
// the same bits, and so do two devices. Every thread of the block must call.
#pragma once

#include <cstdint>

#include "cuda/launch.h"
#include "cuda/shape.h"

namespace detrx::cuda {

constexpr unsigned kAllLanes = 0xffffffffU;

// The least of a warp, in every lane.
__device__ inline std::uint32_t warp_min(std::uint32_t value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  return __reduce_min_sync(kAllLanes, value);
#else
  for (int step = kWarp / 2; step > 0; step /= 2) {
    const std::uint32_t other = __shfl_xor_sync(kAllLanes, value, step);
    value = other < value ? other : value;
  }
  return value;
#endif
}

// The sum and the greatest of groups of `lanes` neighbours, a power of two up to 32, in every lane.
__device__ inline float lanes_sum(float value, int lanes = kWarp) {
  for (int step = lanes / 2; step > 0; step /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, step);
  }
  return value;
}

__device__ inline float lanes_max(float value, int lanes = kWarp) {
  for (int step = lanes / 2; step > 0; step /= 2) {
    const float other = __shfl_xor_sync(kAllLanes, value, step);
    value = other > value ? other : value;
  }
  return value;
}

// Sums each of N values over the block; the answers are thread 0's. Call it once in a kernel.
template <int N>
__device__ inline void block_sum(float (&values)[N]) {
  __shared__ float parts[N][kMostThreads / kWarp];
  const unsigned lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  for (int i = 0; i < N; ++i) {
    values[i] = lanes_sum(values[i]);
    if (lane == 0) parts[i][warp] = values[i];
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int i = 0; i < N; ++i) {
    float sum = 0.0F;
    for (unsigned w = 0; w < blockDim.x / kWarp; ++w) sum += parts[i][w];
    values[i] = sum;
  }
}

}  // namespace detrx::cuda
