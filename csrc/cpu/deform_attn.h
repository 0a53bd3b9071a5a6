// Multi-scale deformable attention (arXiv 2010.04159) in float32.
#pragma once

#include <cstdint>
#include <vector>

#include "core/tensor_view.h"

namespace detrx::cpu {

// How many points a softmax is taken of in registers.
constexpr std::int64_t kMostSoftened = 64;

// Sums weighted bilinear samples; what lies outside a level counts as zero, and a location in [0,
// 1] covers the level from edge to edge. All tensors are contiguous.
//   values    (B, S, H, D) the levels one after another, row by row
//   sides     height and width of each level
//   locations (B, Q, H, P, 2) x, y
//   weights   (B, Q, H, P)
//   points    how many of the P points belong to each level
//   softmax   whether weights are logits, at most kMostSoftened, to take a softmax over P of
//   out       (B, Q, H * D) written
void deform_attn(TensorView<const float, 4> values, const std::vector<std::int64_t>& sides,
                 TensorView<const float, 5> locations, TensorView<const float, 4> weights,
                 const std::vector<std::int64_t>& points, bool softmax, TensorView<float, 3> out,
                 int threads);

// The gradients of the above (with softmax, of the logits), given the gradient of out; the last
// three are written.
void deform_attn_backward(TensorView<const float, 3> grad, TensorView<const float, 4> values,
                          const std::vector<std::int64_t>& sides,
                          TensorView<const float, 5> locations, TensorView<const float, 4> weights,
                          const std::vector<std::int64_t>& points, bool softmax,
                          TensorView<float, 4> grad_values, TensorView<float, 5> grad_locations,
                          TensorView<float, 4> grad_weights, int threads);

}  // namespace detrx::cpu
