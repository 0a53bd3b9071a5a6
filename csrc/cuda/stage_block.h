// A block's view of the losses' problem.
#pragma once

#include <cstdint>

#include "cuda/block.h"
#include "cuda/stages.h"

namespace detrx::cuda {

// The queries of one image of one stage that this block takes.
struct StageBlock {
  std::int64_t stage = blockIdx.z, image = blockIdx.y;
  int first, count;
  std::int64_t row;  // the first query's number among all of all stages
  const std::int32_t* owners;
  std::int64_t targets;

  __device__ explicit StageBlock(const Stages& s) {
    first = static_cast<int>(blockIdx.x) * kQueries;
    const std::int64_t left = s.queries - first;
    count = static_cast<int>(left < kQueries ? left : kQueries);
    row = (stage * s.images + image) * s.queries + first;
    owners = s.owners + stage * s.owner_step + image * s.queries + first;
    targets = s.targets;
  }

  // The target of the block's i-th query counted over all images, or -1.
  __device__ std::int64_t target(int i) const {
    const std::int64_t owner = owners[i];
    return owner >= 0 && owner < targets ? image * targets + owner : -1;
  }

  // Where the block's share of the sums stands.
  __device__ float* share(float* parts) const {
    return parts + 2 * ((stage * gridDim.y + image) * gridDim.x + blockIdx.x);
  }
};

__device__ inline Box read_box(const float* at) { return {at[0], at[1], at[2], at[3]}; }

// The gradient of a stage's sum before it is divided.
__device__ inline float unit_of(const Stages& s, const float* grad, std::int64_t stage) {
  return s.normaliser == nullptr ? grad[stage] : grad[stage] / *s.normaliser;
}

}  // namespace detrx::cuda
