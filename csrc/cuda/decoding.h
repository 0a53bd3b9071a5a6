// What the kernels of decoding are given.
#pragma once

#include <cstdint>

#include "core/decode.h"
#include "cuda/launch.h"

namespace detrx::cuda {

struct DecodeProblem {
  const void *logits, *boxes;  // (B, Q, C), (B, Q, 4) of one type
  std::int64_t images, queries, columns, top;
  Decoding decoding;
  bool wide_labels;  // of 64 bits
  float* scores;     // (B, K)
  void* labels;      // (B, K)
  float* corners;    // (B, K, 4)
  float* best;       // (B, Q), for the work of Decoding::queries
  std::int32_t* best_label;
};

constexpr std::int64_t kMostAnswers = 2048;

template <typename T>
void launch_decode(const DecodeProblem& problem, Stream stream);

}  // namespace detrx::cuda
