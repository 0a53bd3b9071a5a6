// What the kernels of match.cu are given.
#pragma once

#include <cstdint>

#include "core/cost.h"
#include "cuda/launch.h"
#include "cuda/shape.h"

namespace detrx::cuda {

struct CostTable {
  std::int64_t layers, images, queries;
  std::int32_t targets, classes;
  const void* logits;          // (L, B, Q, C)
  const void* boxes;           // (L, B, Q, 4)
  const std::int64_t* labels;  // (B, M)
  const float* truths;         // (B, M, 4)
  const std::int32_t* counts;  // (B,)
  CostWeights weights;
  float* cost;  // (L * B, M, Q) written
};

// T, the type of logits and boxes, is float, Half or Bfloat16.
template <typename T>
void launch_cost_table(const CostTable& problem, Stream stream);

}  // namespace detrx::cuda
