#include <cmath>

#include "cuda/block.h"
#include "cuda/normalising.h"
#include "cuda/pack.h"
#include "cuda/shape.h"

namespace detrx::cuda {
namespace {

constexpr int kThreads = 128;

// One warp a row. It is read three times, from the cache after the first, so that the variance is
// that of differences from the mean and not a difference of large sums.
template <typename T, int N>
__global__ void __launch_bounds__(kThreads) layer_norm_kernel(const LayerNormProblem p) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const std::int64_t row =
      static_cast<std::int64_t>(blockIdx.x) * (kThreads / kWarp) + threadIdx.x / kWarp;
  if (row >= p.rows) return;  // the whole warp
  const T* const x = static_cast<const T*>(p.x) + row * p.columns;
  const T* const residual =
      p.residual == nullptr ? nullptr : static_cast<const T*>(p.residual) + row * p.columns;
  const auto each = [&](auto use) {
    for (int column = lane * N; column < p.columns; column += kWarp * N) {
      float y[N];
      load(x + column, y);
      if (residual != nullptr) {
        float more[N];
        load(residual + column, more);
#pragma unroll
        for (int i = 0; i < N; ++i) y[i] += more[i];
      }
      use(column, y);
    }
  };
  const auto columns = static_cast<float>(p.columns);
  float sum = 0.0F, squares = 0.0F;
  each([&](int, const float (&y)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) sum += y[i];
  });
  const float mean = lanes_sum(sum) / columns;
  each([&](int, const float (&y)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) squares += (y[i] - mean) * (y[i] - mean);
  });
  const float scale = 1.0F / std::sqrt(lanes_sum(squares) / columns + p.epsilon);
  T* const out = static_cast<T*>(p.out) + row * p.columns;
  each([&](int column, const float (&y)[N]) {
    float norm[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
      norm[i] = (y[i] - mean) * scale * p.gain[column + i] + p.bias[column + i];
    }
    store(norm, out + column);
  });
}

}  // namespace

template <typename T, int kVector>
void launch_layer_norm(const LayerNormProblem& p, Stream stream) {
  const Grid grid{divide_up(p.rows, kThreads / kWarp)};
  launch("layer_norm", layer_norm_kernel<T, kVector>, grid, kThreads, 0, stream, p);
}

template void launch_layer_norm<float, 4>(const LayerNormProblem&, Stream);
template void launch_layer_norm<float, 1>(const LayerNormProblem&, Stream);
template void launch_layer_norm<Half, 8>(const LayerNormProblem&, Stream);
template void launch_layer_norm<Half, 1>(const LayerNormProblem&, Stream);
template void launch_layer_norm<Bfloat16, 8>(const LayerNormProblem&, Stream);
template void launch_layer_norm<Bfloat16, 1>(const LayerNormProblem&, Stream);

}  // namespace detrx::cuda
