// How a kernel is started. A kernel takes one struct of pointers and sizes by value, and its launch
// function is no more than a grid: all that a host has to decide or refuse stands in the .cpp file
// of the same name. So the .cu files are compiled by nvcc, by NVRTC (`make xavier`, where functions
// without a mark are device code) and, for the tests, by a C++ compiler.
#pragma once

#include <cstdint>

#include "core/inline.h"
#include "cuda/stream.h"

#if !defined(__CUDACC_RTC__)
#include <cuda_runtime.h>

#include "cuda/handles.h"
#endif

// The shared memory whose size the launch names, as bytes.
#define DETRX_SHARED_MEMORY(name) extern __shared__ __align__(16) unsigned char name[]

namespace detrx::cuda {

// Blocks along x, y and z.
struct Grid {
  std::int64_t x = 1;
  std::int64_t y = 1;
  std::int64_t z = 1;
};

#if defined(__CUDACC_RTC__)

template <typename Problem>
void launch(const char*, void (*)(Problem), Grid, int, int, Stream, const Problem&) {}

#else

// Starts blocks of `threads` threads with `shared` bytes of memory each; does nothing where the
// grid is empty. Does not wait.
template <typename Problem>
void launch(const char* where, void (*kernel)(Problem), Grid grid, int threads, int shared,
            Stream stream, const Problem& problem) {
  if (grid.x <= 0 || grid.y <= 0 || grid.z <= 0) return;
  require(grid.x <= 0x7fffffff && grid.y <= 65535 && grid.z <= 65535, "[", where,
          "] is too large for one launch");
  const dim3 blocks(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y),
                    static_cast<unsigned>(grid.z));
  Problem copy = problem;
  void* arguments[] = {&copy};
  check(cudaLaunchKernel(reinterpret_cast<const void*>(kernel), blocks,
                         dim3(static_cast<unsigned>(threads)), arguments,
                         static_cast<std::size_t>(shared), stream),
        where);
}

#endif

}  // namespace detrx::cuda
