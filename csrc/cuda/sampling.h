// What the kernels of deform_attn.cu are given.
#pragma once

#include <cstdint>

#include "cuda/stream.h"

namespace detrx::cuda {

constexpr int kMostLevels = 8;

struct Sampling {
  std::int64_t images, pixels, queries;
  std::int32_t heads, channels, points, levels;
  std::int32_t height[kMostLevels], width[kMostLevels];
  std::int64_t start[kMostLevels];  // the level's first pixel
  std::int32_t end[kMostLevels];    // one past its last point
  std::int32_t lanes;               // threads to a query's head, a power of two up to 32
  bool softmax;                     // whether weights are logits
  const void* values;
  const float* locations;
  const float* weights;
  // In place of the two above: boxes (B, Q, 4), and offsets and logits of the type of values. A
  // point lies at the centre + offset * (w, h) * the reach of its level.
  const float* boxes;
  const void *offsets, *logits;
  float reach[kMostLevels];
  void* out;
  const void* grad;
  float* grad_values;
  float* grad_locations;
  float* grad_weights;
};

// T is float, Half or Bfloat16; of its items, kVector lie side by side in every load of a thread.
template <typename T, int kVector>
void launch_sample(const Sampling& problem, Stream stream);
template <typename T, int kVector>
void launch_differentiate(const Sampling& problem, Stream stream);

}  // namespace detrx::cuda
