// What the kernels of layer_norm.cu are given.
#pragma once

#include <cstdint>

#include "cuda/stream.h"

namespace detrx::cuda {

struct LayerNormProblem {
  const void *x, *residual;  // (rows, columns) of one type; residual may be null
  const float *gain, *bias;  // (columns)
  void* out;                 // as x
  std::int64_t rows;
  std::int32_t columns;
  float epsilon;
};

// T is float, Half or Bfloat16; of its items, kVector lie side by side in every load of a thread.
template <typename T, int kVector>
void launch_layer_norm(const LayerNormProblem& problem, Stream stream);

}  // namespace detrx::cuda
