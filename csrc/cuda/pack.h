// Items that a thread reads and writes in one instruction of up to 16 bytes.
#pragma once

#include "core/half.h"
#include "cuda/launch.h"

namespace detrx::cuda {

template <typename T, int N>
struct alignas(sizeof(T) * N) Pack {
  T items[N];
};

template <int N, typename T>
__device__ inline void load(const T* from, float (&to)[N]) {
  const auto pack = *reinterpret_cast<const Pack<T, N>*>(from);
#pragma unroll
  for (int i = 0; i < N; ++i) to[i] = to_float(pack.items[i]);
}

template <int N, typename T>
__device__ inline void store(const float (&from)[N], T* to) {
  Pack<T, N> pack;
#pragma unroll
  for (int i = 0; i < N; ++i) pack.items[i] = from_float<T>(from[i]);
  *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

}  // namespace detrx::cuda
