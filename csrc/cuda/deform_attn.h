// Multi-scale deformable attention (arXiv 2010.04159) on the GPU, as cpu/deform_attn.h.
#pragma once

#include <cstdint>
#include <vector>

#include "core/tensor_view.h"
#include "cuda/stream.h"

namespace detrx::cuda {

// Sums weighted bilinear samples. All tensors are contiguous; coordinates, weights and sums are
// float32 whatever the values are. Does not wait; may be captured.
//   values    (B, S, H, D) float32, float16 or bfloat16
//   sides     height and width of each of at most 8 levels
//   locations (B, Q, H, P, 2) float32 x, y
//   weights   (B, Q, H, P) float32
//   points    how many of the P points belong to each level
//   softmax   whether weights are logits to take a softmax over P of
//   out       (B, Q, H * D) of the type of values, written
void deform_attn(const AnyView<4>& values, const std::vector<std::int64_t>& sides,
                 const AnyView<5>& locations, const AnyView<4>& weights,
                 const std::vector<std::int64_t>& points, bool softmax, const AnyView<3>& out,
                 std::int64_t stream);

// A call of the below over memory of the device that is not checked.
struct BoxAttention {
  std::int64_t images, pixels, queries, heads, channels;
  const void *values, *offsets, *logits;  // of one type
  const float* boxes;
  void* out;
};

// The same for the points around boxes, softmax included. A point of a level that has n lies at
// centre + offset * (w, h) * reach / n of its query's box. Does not wait; may be captured.
void deform_attn_of_boxes(const BoxAttention& call, const std::vector<std::int64_t>& sides,
                          const std::vector<std::int64_t>& points, float reach, Dtype dtype,
                          Stream stream);

// The same for tensors, which are checked:
//   boxes   (B, Q, 4) float32 centres cx, cy, w, h
//   offsets (B, Q, H * P * 2), logits (B, Q, H * P), out (B, Q, H * D) of the type of values
void deform_attn_of_boxes(const AnyView<4>& values, const std::vector<std::int64_t>& sides,
                          const AnyView<3>& boxes, const AnyView<3>& offsets,
                          const AnyView<3>& logits, const std::vector<std::int64_t>& points,
                          float reach, const AnyView<3>& out, std::int64_t stream);

// The gradients of deform_attn (with softmax, of the logits), given the gradient of out in the type
// of values.
//   grad_values    (B, S, H, D) float32, added to: pass zeros. Threads add in no fixed order, so
//                  its last bits differ from run to run
//   grad_locations, grad_weights  written
void deform_attn_backward(const AnyView<3>& grad, const AnyView<4>& values,
                          const std::vector<std::int64_t>& sides, const AnyView<5>& locations,
                          const AnyView<4>& weights, const std::vector<std::int64_t>& points,
                          bool softmax, const AnyView<4>& grad_values,
                          const AnyView<5>& grad_locations, const AnyView<4>& grad_weights,
                          std::int64_t stream);

}  // namespace detrx::cuda
