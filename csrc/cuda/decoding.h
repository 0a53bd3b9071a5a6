// What the kernels of decoding are given.
#pragma once

#include <cstdint>

#include "core/decode.h"
#include "cuda/stream.h"

namespace detrx::cuda {

constexpr std::int64_t kMostAnswers = 2048;
constexpr int kMostClasses = 1024;  // that have their columns named

struct DecodeProblem {
  const void *logits, *boxes;  // (B, Q, C), (B, Q, 4) of one type
  std::int64_t images, queries, columns, top;
  Decoding decoding;
  bool wide_labels;      // of 64 bits
  float* scores;         // (B, K)
  void* labels;          // (B, K)
  float* corners;        // (B, K, 4)
  std::int32_t* chosen;  // (B, K): the queries of the answers; may be null
  float* best;           // (B, Q), for the work of Decoding::queries
  std::int32_t* best_label;
  // Of Decoding::queries alone. Scores are a sigmoid, and the last column is a class as any other:
  bool sigmoid;
  // Where `classes` is not 0, the column of each class: others are none, but for the softmax.
  std::int32_t classes;
  std::uint16_t column[kMostClasses];
};

template <typename T>
void launch_decode(const DecodeProblem& problem, Stream stream);

}  // namespace detrx::cuda
