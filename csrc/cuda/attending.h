// What the kernels of attention.cu are given.
#pragma once

#include <cstdint>

#include "cuda/stream.h"

namespace detrx::cuda {

constexpr int kHead = 32;  // channels of a head

struct AttentionProblem {
  const void *query, *key, *value;  // (B, N, H * 32) and twice (B, S, H * 32), of one type
  const float* bias;                // (B, S), or null
  void* out;                        // as query
  std::int64_t images;
  std::int32_t queries, keys, heads;
  float scale;
};

// T is float or Bfloat16; and for Half, on tensor cores.
template <typename T>
void launch_attention(const AttentionProblem& problem, Stream stream);
void launch_tensor_attention(const AttentionProblem& problem, Stream stream);

}  // namespace detrx::cuda
