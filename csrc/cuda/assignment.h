// What the kernel of assign.cu is given.
#pragma once

#include <cstdint>

#include "cuda/launch.h"
#include "cuda/shape.h"

namespace detrx::cuda {

// Many problems at once: problem n is of image n % images.
struct Assignment {
  const float* cost;           // (N, targets, queries)
  const std::int32_t* counts;  // (images,) taken as in [0, targets]
  std::int64_t problems;
  std::int64_t images;
  std::int32_t targets;
  std::int32_t queries;
  std::int32_t* match;       // (N, targets) written, -1 past the counts and for those left over
  std::int32_t* bad;         // (N,) written: how many used costs were not finite
  unsigned char* workspace;  // null, or `bytes` for each problem
  std::int64_t bytes;
};

// How a problem of some size is laid on a block.
struct AssignPlan {
  int threads;
  bool registers;          // whether the threads' registers hold the columns
  int shared;              // bytes of a block
  std::int64_t workspace;  // bytes of a problem
};

constexpr int kColumnsOfThread = 4;
constexpr int kSolveThreads = 512;

// Starts the kernel of assign.cu for problems that lie in memory with all else filled in.
void launch_assign(const Assignment& problem, const AssignPlan& plan, Stream stream);

// Bytes of the tables of a problem of rows and columns up to these.
DETRX_HD inline std::int64_t table_bytes(std::int64_t rows, std::int64_t columns, bool registers) {
  const std::int64_t bytes = 12 * rows + 8 * columns + (registers ? 0 : 17 * columns);
  return divide_up(bytes, 16) * 16;
}

}  // namespace detrx::cuda
