// The softmax of one row by one warp. All lanes call.
#pragma once

#include <cmath>

#include "core/half.h"
#include "cuda/block.h"

namespace detrx::cuda {

// log(sum(e^(scale * x))) of count >= 1 items, scale > 0.
template <typename T>
__device__ inline float log_sum_exp(const T* x, int count, float scale = 1.0F) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  float most = to_float(x[0]);
  for (int i = lane; i < count; i += kWarp) {
    const float at = to_float(x[i]);
    most = at > most ? at : most;
  }
  most = lanes_max(most);
  float sum = 0.0F;
  for (int i = lane; i < count; i += kWarp) sum += expf(scale * (to_float(x[i]) - most));
  return scale * most + logf(lanes_sum(sum));
}

}  // namespace detrx::cuda
